"""What the forward pass keeps for the backward pass, and in which type.

Without `kept_as`, arrays are kept in the type in which they are computed. A TPU multiplies in bfloat16
whatever their type is, so that it loses next to nothing with arrays in bfloat16, which take half of the
memory and of the time to read them.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from electra_es.model.scoped import Scoped

_kept = Scoped(outside=None)


def kept_as(dtype: tf.DType | None) -> AbstractContextManager[None]:
    """Large arrays that layers keep inside the `with` have this type; None: the type of their values.

    With a type, the step must be compiled by XLA.
    """
    return _kept.set_to(dtype)


def kept_type() -> tf.DType | None:
    return _kept.value


def keep(x: tf.Tensor) -> tf.Tensor:
    """`x` in the type of `kept_as`. XLA would compute cheap arrays anew wherever they are used, and keep
    what they are made of; across the barrier it does not."""
    dtype = kept_type()
    return x if dtype is None else xla.optimization_barrier(tf.cast(x, dtype))[0]


def with_kept_derivative(function: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
                         ) -> Callable[[tf.Tensor], tf.Tensor]:
    """An elementwise function that keeps its value and its derivative, and not its argument.

    Args:
      function: x -> value and derivative.
    """
    @tf.custom_gradient
    def apply(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        value, derivative = map(keep, function(x))
        return value, lambda upstream: (
            tf.cast(upstream, x.dtype) * tf.cast(derivative, x.dtype))

    return apply
