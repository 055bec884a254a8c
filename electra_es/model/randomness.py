"""Random numbers that are a pure function of (seed, purpose, example, index).

Masks and samples are drawn per example, from a counter and not from a stream: the
draws of an example do not depend on the number of replicas, hosts, micro-batches or
restarts. The generator is Threefry-2x32 with 20 rounds (Salmon
et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), written with integer
operations that TensorFlow and XLA have on every device. `tf.random.stateless_uniform`
takes one seed for a whole batch, and not one for each example.

Shapes: B batch, n numbers drawn per example.
"""

import hashlib
from typing import NamedTuple

import tensorflow as tf

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


class Key(NamedTuple):
    """64 bits from which numbers are derived: two uint32 tensors of one shape (or Python ints)."""

    high: tf.Tensor | int
    low: tf.Tensor | int


def derive_key(seed: int, purpose: str) -> Key:
    """The key of one purpose ("masking", "sampling", ...) under a run's seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return Key(int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big"))


def fold_in(key: Key, number: tf.Tensor) -> Key:
    """The key of `number` (int64, any shape, broadcast against the key) under `key`."""
    number = tf.cast(number, tf.int64)
    high = tf.cast(tf.bitwise.right_shift(number, tf.constant(32, tf.int64)), tf.uint32)
    return Key(*threefry2x32(key, high, tf.cast(number, tf.uint32)))


def uniform(key: Key, n: int) -> tf.Tensor:
    """Draws `n` numbers per key.

    Args:
      key: tensors of shape [B].
      n: how many.

    Returns:
      float32 [B, n], in [0, 1), multiples of 2^-24.
    """
    index = tf.cast(tf.range(n), tf.uint32)[tf.newaxis, :]
    wide = Key(tf.cast(key.high, tf.uint32)[:, tf.newaxis], tf.cast(key.low, tf.uint32)[:, tf.newaxis])
    bits, _ = threefry2x32(wide, index, tf.zeros_like(index))
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


def stateless_seed(key: Key, number: tf.Tensor) -> tf.Tensor:
    """A seed, int32 [2], for TensorFlow's own stateless operations (dropout)."""
    folded = fold_in(key, number)
    return tf.stack([tf.bitcast(folded.high, tf.int32), tf.bitcast(folded.low, tf.int32)])


def threefry2x32(key: Key, counter_high: tf.Tensor, counter_low: tf.Tensor
                 ) -> tuple[tf.Tensor, tf.Tensor]:
    """Encrypts a 64-bit counter with a 64-bit key: two uint32 tensors of the broadcast shape."""
    key_high, key_low = tf.cast(key.high, tf.uint32), tf.cast(key.low, tf.uint32)
    schedule = (key_high, key_low, tf.bitwise.bitwise_xor(
        tf.bitwise.bitwise_xor(key_high, key_low), tf.constant(_PARITY, tf.uint32)))
    x = tf.cast(counter_high, tf.uint32) + key_high
    y = tf.cast(counter_low, tf.uint32) + key_low
    for block in range(5):
        for rotation in _ROTATIONS[block % 2]:
            x = x + y
            y = tf.bitwise.bitwise_xor(_rotate_left(y, rotation), x)
        x = x + schedule[(block + 1) % 3]
        y = y + schedule[(block + 2) % 3] + tf.constant(block + 1, tf.uint32)
    return x, y


def _rotate_left(x: tf.Tensor, bits: int) -> tf.Tensor:
    return tf.bitwise.bitwise_or(
        tf.bitwise.left_shift(x, tf.constant(bits, tf.uint32)),
        tf.bitwise.right_shift(x, tf.constant(32 - bits, tf.uint32)))
