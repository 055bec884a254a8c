"""Softmax over the vocabulary: the generator's loss, and replacements drawn from its distribution.

[B, K, V] is the largest array of a step, and each pass over it takes as long as its product with the
table on a TPU. So the loss and the sample share one pass: the sums of the exponentials by block.

Shapes: B batch, K predictions, V vocabulary, n blocks of W ids each (n W >= V).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from electra_es.model.fused import fused


class Softmax(NamedTuple):
    """What loss and sample need of softmax(logits)."""

    blocks: tf.Tensor  # float32 [B, K, n, W]: the logits
    top: tf.Tensor  # float32 [B, K]: the greatest logit
    sums: tf.Tensor  # float32 [B, K, n]: exp(logits - top), summed over all blocks up to this one

    @property
    def log_partition(self) -> tf.Tensor:
        """float32 [B, K]: the logarithm of the sum of exp(logits)."""
        return self.top + tf.math.log(self.sums[..., -1])


def softmax_of(logits: tf.Tensor) -> Softmax:
    """The sums of float32 logits [B, K, V]; no gradient flows through them."""
    logits = tf.stop_gradient(logits)
    vocab_size = logits.shape[-1]
    width = _block_width(vocab_size)
    padding = -vocab_size % width
    whole = logits
    if padding:  # with ids of probability 0
        logits = tf.pad(logits, [[0, 0], [0, 0], [0, padding]], constant_values=-math.inf)
    batch, k = tf.unstack(tf.shape(logits)[:2])
    blocks = tf.reshape(logits, [batch, k, (vocab_size + padding) // width, width])
    top, sums = _top_and_sums(whole, blocks)
    return Softmax(blocks, top, tf.cumsum(sums, axis=-1))


@fused
def _top_and_sums(logits: tf.Tensor, blocks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[B, K], the greatest logit, and [B, K, n], for each block the sum of exp(logit - greatest)."""
    top = tf.reduce_max(logits, axis=-1)
    return top, tf.reduce_sum(tf.exp(blocks - top[..., tf.newaxis, tf.newaxis]), axis=-1)


def cross_entropy(logits: tf.Tensor, ids: tf.Tensor, log_partition: tf.Tensor) -> tf.Tensor:
    """float32 [B, K]: minus the logarithm of the probability of `ids` [B, K].

    The gradient is written here because that of `gather` would be one more array of the size of the
    logits. The probabilities are computed anew in it, and not kept.
    """
    @tf.custom_gradient
    def loss(logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            with tf.name_scope("vocabulary_softmax_gradient"):
                return _gradient_of_logits(logits, ids, log_partition, upstream)

        return log_partition - tf.gather(logits, ids, batch_dims=2), gradient

    return loss(logits)


@fused
def _gradient_of_logits(logits: tf.Tensor, ids: tf.Tensor, log_partition: tf.Tensor, upstream: tf.Tensor
                        ) -> tf.Tensor:
    """float32 [B, K, V], (softmax - target) * `upstream` [B, K]."""
    scale = upstream[..., tf.newaxis]
    is_target = tf.range(logits.shape[-1], dtype=ids.dtype) == ids[..., tf.newaxis]
    return tf.exp(logits - log_partition[..., tf.newaxis]) * scale - tf.where(is_target, scale, 0)


def sample_from_softmax(
    logits: tf.Tensor, draws: tf.Tensor, disallowed_ids: tf.Tensor | None = None
) -> tf.Tensor:
    """Draws one id per position from softmax(logits), see `sample`.

    Args:
      logits: float32 [B, K, V], already divided by the temperature.
      draws: float32 [B, K] in [0, 1).
      disallowed_ids: int32 [B, K], an id per position that must not be drawn.

    Returns:
      int32 [B, K]; no gradient flows through it.
    """
    logits = tf.stop_gradient(tf.cast(logits, tf.float32))
    if disallowed_ids is not None:
        # The original subtracts 1000 from the logit; in float32 that is probability 0.
        logits -= 1000.0 * tf.one_hot(disallowed_ids, logits.shape[-1])
    return sample(softmax_of(logits), draws)


def sample(softmax: Softmax, draws: tf.Tensor) -> tf.Tensor:
    """Draws one id per position, int32 [B, K], from draws in [0, 1), float32 [B, K], by inversion.

    The original adds a Gumbel variable to each of the V logits and takes the maximum. One
    uniform number and a two-level search of the cumulative distribution (first the block of
    about sqrt(V) ids, then the id in it) draw from the same distribution with V times fewer
    random numbers. An id of probability 0 is never drawn.
    """
    # The weights stay unnormalised: the search multiplies the draw by their sum.
    block, remainder = _search(softmax.sums, draws * softmax.sums[..., -1])
    logits = tf.gather(softmax.blocks, block, batch_dims=2)
    inside = tf.cumsum(tf.exp(logits - softmax.top[..., tf.newaxis]), axis=-1)
    offset, _ = _search(inside, remainder)
    return block * softmax.blocks.shape[-1] + offset


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
