"""Sampling of replacements from the generator's distribution.

Shapes: B batch, K predictions, V vocabulary.
"""

import math

import tensorflow as tf


def sample_from_softmax(
    logits: tf.Tensor, draws: tf.Tensor, disallowed_ids: tf.Tensor | None = None
) -> tf.Tensor:
    """Draws one id per position from softmax(logits), by inversion.

    The original adds a Gumbel variable to each of the V logits and takes the maximum. One
    uniform number and a two-level search of the cumulative distribution (first the block of
    about sqrt(V) ids, then the id in it) draw from the same distribution with V times fewer
    random numbers. An id of probability 0 is never drawn.

    Args:
      logits: float32 [B, K, V], already divided by the temperature.
      draws: float32 [B, K] in [0, 1).
      disallowed_ids: int32 [B, K], an id per position that must not be drawn.

    Returns:
      int32 [B, K]; no gradient flows through it.
    """
    logits = tf.stop_gradient(tf.cast(logits, tf.float32))
    vocab_size = logits.shape[-1]
    if disallowed_ids is not None:
        # The original subtracts 1000 from the logit; in float32 that is probability 0.
        logits -= 1000.0 * tf.one_hot(disallowed_ids, vocab_size)
    # The weights stay unnormalised: the search multiplies the draw by their sum.
    weights = tf.exp(logits - tf.reduce_max(logits, axis=-1, keepdims=True))
    width = _block_width(vocab_size)
    padding = -vocab_size % width
    if padding:
        weights = tf.pad(weights, [[0, 0], [0, 0], [0, padding]])
    batch, k = tf.shape(weights)[0], tf.shape(weights)[1]
    blocks = tf.reshape(weights, [batch, k, (vocab_size + padding) // width, width])
    block_sums = tf.cumsum(tf.reduce_sum(blocks, axis=-1), axis=-1)
    block, remainder = _search(block_sums, draws * block_sums[..., -1])
    inside = tf.cumsum(tf.gather(blocks, block, batch_dims=2), axis=-1)
    offset, _ = _search(inside, remainder)
    return block * width + offset


def _search(cumulative: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The first index whose cumulative weight exceeds the target, and target - weight before the index.

    Args:
      cumulative: float32 [B, K, n], non-decreasing.
      target: float32 [B, K].
    """
    # Rounding may make the target equal to the total; then no index would exceed it.
    target = tf.minimum(target, cumulative[..., -1] * (1.0 - 2.0**-23))
    below = cumulative <= target[..., tf.newaxis]
    index = tf.reduce_sum(tf.cast(below, tf.int32), axis=-1)
    before = tf.reduce_max(tf.where(below, cumulative, 0.0), axis=-1)
    return index, target - before


def _block_width(vocab_size: int) -> int:
    """A divisor of V near sqrt(V), so that [B, K, V] needs no padding; else sqrt(V) rounded up."""
    root = math.isqrt(vocab_size - 1) + 1
    near = range(root, 2 * root)
    return next((width for width in near if vocab_size % width == 0), root)
