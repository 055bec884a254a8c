"""GELU in the exact, erf form, as the original (`modeling.gelu`)."""

import math

import tensorflow as tf

from electra_es.model.fused import fused, is_fusing


def gelu(x: tf.Tensor) -> tf.Tensor:
    """GELU of `x`, of its shape and type."""
    return _of_few_passes(x) if is_fusing() else tf.nn.gelu(x, approximate=False)


def gelu_and_derivative(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`gelu` and its derivative, of the shape and type of `x`."""
    below = 0.5 * (1.0 + tf.math.erf(x * math.sqrt(0.5)))
    return x * below, below + x * tf.exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))


@tf.custom_gradient
def _of_few_passes(x: tf.Tensor) -> tuple:
    return _value(x), lambda upstream: _gradient(x, upstream)


@fused
def _value(x: tf.Tensor) -> tf.Tensor:
    return gelu_and_derivative(x)[0]


@fused
def _gradient(x: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    return upstream * gelu_and_derivative(x)[1]
