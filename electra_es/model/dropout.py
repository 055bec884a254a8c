"""Dropout whose masks are derived from (seed, step, layer), so that a resumed run repeats them."""

import contextlib
import threading
from collections.abc import Iterator

import tensorflow as tf
import tf_keras

_AUTO_SELECT = 3  # tf.random.Algorithm.AUTO_SELECT: the device's own generator
_dropout_seed = threading.local()


@contextlib.contextmanager
def dropout_seed(seed: tf.Tensor) -> Iterator[None]:
    """Derives every dropout mask drawn inside from `seed`, int32 [2].

    Thread-local, because a strategy traces each replica in a thread of its own.
    """
    _dropout_seed.value = seed
    try:
        yield
    finally:
        _dropout_seed.value = None


class Dropout(tf_keras.layers.Layer):
    """Sets a share `rate` of the entries to 0 and scales up the others; any shape.

    tf_keras draws from a stateful stream, and no checkpoint restores it. This layer derives the mask
    from the step's seed and the layer's number. Each layer of a model needs a number of its own.

    One addition puts the number into the generator's key, and the comparison is the mask. With
    `stateless_fold_in` and `tf.nn.experimental.stateless_dropout` the step of the small model needs
    a fifth more memory for activations on a TPU (docs/preflight.md).
    """

    def __init__(self, rate: float, number: int):
        super().__init__()
        self.rate, self.number = rate, number

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Raises RuntimeError in training outside `dropout_seed`."""
        if not training or not self.rate:
            return x
        seed = getattr(_dropout_seed, "value", None)
        if seed is None:
            raise RuntimeError("dropout outside `dropout_seed`: call with training=False")
        key = tf.bitcast(seed, tf.uint64) + tf.constant(self.number, tf.uint64)
        noise = tf.raw_ops.StatelessRandomUniformV2(
            shape=tf.shape(x), key=key[tf.newaxis], counter=tf.zeros([2], tf.uint64),
            alg=_AUTO_SELECT)
        return tf.where(noise >= self.rate, x / tf.cast(1.0 - self.rate, x.dtype), 0)
