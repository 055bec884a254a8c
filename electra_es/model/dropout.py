"""Dropout whose masks are derived from (seed, step, layer), so that a resumed run repeats them."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from electra_es.model.parts import Part
from electra_es.model.scoped import Scoped

_AUTO_SELECT = 3  # tf.random.Algorithm.AUTO_SELECT: the device's own generator
_NUMBERS_PER_COUNT = 4  # of 32 bits that a CPU's generator, Philox, makes for each value of its counter
_LEVELS = 2**8  # a draw has 8 bits
_dropout_seed = Scoped(outside=(None, None))  # seed, part


def dropout_seed(seed: tf.Tensor, part: Part | None = None) -> AbstractContextManager[None]:
    """Derives every dropout mask drawn inside the `with` from `seed`, int32 [2]. If what is computed is
    part of a batch, the masks are those of its rows."""
    return _dropout_seed.set_to((seed, part))


class Draws(NamedTuple):
    """What decides which entries of an array [B, ...] dropout keeps.

    Each 32-bit number decides on an entry in each quarter of the batch, by 8 bits each. Bits are what
    costs time and memory here: for the dropout of attention there are B N L L.
    """

    bits: tf.Tensor  # uint32 [Q, ...], Q = B / 4 rounded up
    thresholds: tf.Tensor  # int32 [n], n the last axis: a draw below it drops the entry


def kept_entries(draws: Draws | None, batch: tf.Tensor | int) -> tf.Tensor | None:
    """bool [B, ...]: which entries are kept; None: all."""
    if draws is None:
        return None
    bits, inner = draws.bits, draws.bits.shape[1:]
    shifts = tf.constant([0, 8, 16, 24], tf.uint32, [4] + [1] * len(bits.shape))
    levels = tf.bitwise.bitwise_and(
        tf.bitwise.right_shift(bits, shifts), tf.constant(_LEVELS - 1, tf.uint32))
    kept = tf.cast(levels, tf.int32) >= draws.thresholds  # [4, Q, ...]
    kept = tf.reshape(kept, tf.concat([[-1], tf.shape(bits)[1:]], 0) if None in inner else [-1, *inner])
    return kept if isinstance(batch, int) and batch % 4 == 0 else kept[:batch]


def dropped(x: tf.Tensor, kept: tf.Tensor | None, scale: float) -> tf.Tensor:
    """0 where `kept` of the same shape is false, the rest times `scale`; None: `x`."""
    return x if kept is None else tf.where(kept, x * tf.cast(scale, x.dtype), 0)


def shape_of(x: tf.Tensor) -> list[tf.Tensor | int]:
    """The shape, in numbers if all are known."""
    return tf.unstack(tf.shape(x)) if None in x.shape else x.shape.as_list()


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
        self.threshold = round(rate * 2**16) / 2**16 * _LEVELS  # the rate in levels, not a whole number
        self.scale = 1.0 / (1.0 - rate)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Raises RuntimeError in training outside `dropout_seed`."""
        kept = self.kept(shape_of(x)) if training else None
        if kept is None:
            return x

        @tf.custom_gradient  # the derived one sums up a gradient for the 0 as well
        def drop(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            return dropped(x, kept, self.scale), lambda upstream: dropped(upstream, kept, self.scale)

        return drop(x)

    def kept(self, shape: list[tf.Tensor | int]) -> tf.Tensor | None:
        """bool of `shape`, [B, ...]: which entries are kept; None: all. Raises as `draws`."""
        return kept_entries(self.draws(shape), shape[0])

    def draws(self, shape: list[tf.Tensor | int]) -> Draws | None:
        """The random numbers for an array of `shape`, [B, ...]; None: all its entries are kept.

        Raises:
          RuntimeError: outside `dropout_seed`.
        """
        if not self.threshold:
            return None
        seed, part = _dropout_seed.value
        if seed is None:
            raise RuntimeError("dropout outside `dropout_seed`: call with training=False")
        key = tf.bitcast(seed, tf.uint64) + tf.constant(self.number, tf.uint64)
        batch, *inner = shape
        return Draws(_bits(key, [(batch + 3) // 4, *inner], part), self._thresholds(inner[-1], seed))

    def _thresholds(self, n: tf.Tensor | int, seed: tf.Tensor) -> tf.Tensor:
        """int32 [n]: a whole number of levels for each column. A rate of 0.1 is 25.6 levels: three of
        five columns have 26, the others 25. Each step begins elsewhere in this pattern."""
        start = tf.cast(tf.bitwise.bitwise_and(seed[1], 1023), tf.float32)
        ends = tf.floor((tf.cast(tf.range(n + 1), tf.float32) + start) * self.threshold)
        return tf.cast(ends[1:] - ends[:-1], tf.int32)


def _bits(key: tf.Tensor, shape: list[tf.Tensor | int], part: Part | None) -> tf.Tensor:
    """uint32 of `shape`, [Q, ...], drawn with a uint64 `key`; of a part the rows that follow those of the
    parts before it in what is drawn for the whole batch."""
    def draw(rows: tf.Tensor | int, counter: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[rows, *shape[1:]], key=tf.expand_dims(key, 0), counter=counter, alg=_AUTO_SELECT,
            dtype=tf.uint32)

    start = tf.zeros([2], tf.uint64)
    if part is None:
        return draw(shape[0], start)
    if math.prod(size for size in shape if isinstance(size, int)) % _NUMBERS_PER_COUNT:
        return draw(part.of * shape[0], start)[part.number * shape[0]:][:shape[0]]
    numbers = tf.reduce_prod(tf.cast(tf.stack(shape), tf.int64))
    before = tf.cast(part.number, tf.int64) * (numbers // _NUMBERS_PER_COUNT)
    return draw(shape[0], tf.stack([tf.cast(before, tf.uint64), start[1]]))
