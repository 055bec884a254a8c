"""GELU in the exact, erf form, as the original (`modeling.gelu`)."""

import math

import tensorflow as tf

from electra_es.model.fused import fused, is_fusing
from electra_es.model.kept import kept_type, with_kept_derivative
from electra_es.model.products import sum_of_rows


def gelu(x: tf.Tensor) -> tf.Tensor:
    """GELU of `x`, of its shape and type."""
    return tf.nn.gelu(x, approximate=False)


def gelu_and_derivative(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`gelu` and its derivative, of the shape and type of `x`."""
    below = 0.5 * (1.0 + tf.math.erf(x * math.sqrt(0.5)))
    return x * below, below + x * tf.exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))


def gelu_of_sum(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """float32 [..., O]: GELU of `x` plus `bias` [O].

    In float32, as in Model Garden: it reports worse convergence in bfloat16.
    """
    if is_fusing():
        return _of_few_passes(x, bias)
    total = _sum(x, bias)
    return gelu(total) if kept_type() is None else with_kept_derivative(gelu_and_derivative)(total)


@tf.custom_gradient
def _of_few_passes(x: tf.Tensor, bias: tf.Tensor) -> tuple:
    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        to_x = _gradient(x, bias, upstream)
        return to_x, tf.cast(sum_of_rows(to_x), bias.dtype)

    return _value(x, bias), gradient


@fused
def _value(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    return gelu_and_derivative(_sum(x, bias))[0]


@fused
def _gradient(x: tf.Tensor, bias: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    return tf.cast(upstream * gelu_and_derivative(_sum(x, bias))[1], x.dtype)


def _sum(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    return tf.cast(x + tf.cast(bias, x.dtype), tf.float32)
