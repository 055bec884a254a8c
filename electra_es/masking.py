"""Choosing positions, writing [MASK], gathering, scattering and sampling replacements.

Shapes: B batch, L length, K predictions, V vocabulary, H hidden.
Source: `pretrain_helpers.py` of google-research/electra; each function names its own.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from electra_es.config import ModelConfig
from electra_es.randomness import Key, fold_in, uniform


class Inputs(NamedTuple):
    """A batch as it comes from the records."""

    input_ids: tf.Tensor  # int32 [B, L], right-padded
    input_mask: tf.Tensor  # int32 [B, L], 1 for tokens, 0 for padding
    segment_ids: tf.Tensor  # int32 [B, L]
    example_index: tf.Tensor  # int64 [B], place in the stream of examples: what draws depend on


class MaskedInputs(NamedTuple):
    """A batch with positions chosen. Unused slots have position 0, id 0 and weight 0."""

    input_ids: tf.Tensor  # int32 [B, L], with [MASK] written in
    positions: tf.Tensor  # int32 [B, K]
    original_ids: tf.Tensor  # int32 [B, K]
    weights: tf.Tensor  # float32 [B, K]


class VocabularyFacts(NamedTuple):
    """What masking needs to know of the vocabulary."""

    size: int
    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    word_starts: np.ndarray  # bool [V], whether a piece begins a word


def candidate_positions(inputs: Inputs, vocab: VocabularyFacts) -> tf.Tensor:
    """bool [B, L]: tokens that may be selected, i.e. not [CLS], [SEP], [MASK] or padding
    (`_get_candidates_mask`)."""
    candidates = tf.cast(inputs.input_mask, tf.bool)
    for special_id in (vocab.cls_id, vocab.sep_id, vocab.mask_id):
        candidates &= inputs.input_ids != special_id
    return candidates


def count_predictions(inputs: Inputs, candidates: tf.Tensor, config: ModelConfig, k: int) -> tf.Tensor:
    """int32 [B]: max(1, min(K, round(tokens * mask_prob))) (`mask`), but never more than there are
    candidates when positions are drawn without replacement."""
    tokens = tf.cast(tf.reduce_sum(inputs.input_mask, axis=-1), tf.float32)
    wanted = tf.cast(tf.round(tokens * config.mask_prob), tf.int32)
    wanted = tf.maximum(1, tf.minimum(k, wanted))
    available = tf.reduce_sum(tf.cast(candidates, tf.int32), axis=-1)
    if config.masking == "original":
        return tf.where(available > 0, wanted, 0)
    return tf.minimum(wanted, available)


def choose_positions(
    inputs: Inputs, candidates: tf.Tensor, counts: tf.Tensor, draws: tf.Tensor, k: int,
    config: ModelConfig, vocab: VocabularyFacts,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Chooses `counts` positions of each row.

    Args:
      inputs: the batch.
      candidates: bool [B, L].
      counts: int32 [B].
      draws: float32 [B, L] in [0, 1).
      k: K.
      config: `config.masking` says how.
      vocab: for word starts.

    Returns:
      positions int32 [B, K] and weights float32 [B, K].
    """
    if config.masking == "original":
        # With replacement: draw number i takes candidate number floor(u_i * n).
        n = tf.reduce_sum(tf.cast(candidates, tf.float32), axis=-1, keepdims=True)
        in_order = tf.argsort(tf.cast(~candidates, tf.int32), axis=-1, stable=True)
        chosen = tf.gather(in_order, tf.cast(draws[:, :k] * n, tf.int32), batch_dims=1)
        used = tf.range(k)[tf.newaxis, :] < counts[:, tf.newaxis]
    elif config.masking == "whole_word":
        chosen, used = _choose_words(inputs, candidates, counts, draws, k, vocab)
    else:
        _, chosen = tf.math.top_k(tf.where(candidates, draws, -1.0), k)
        used = tf.range(k)[tf.newaxis, :] < counts[:, tf.newaxis]
    weights = tf.cast(used, tf.float32)
    return chosen * tf.cast(used, tf.int32), weights


def _choose_words(
    inputs: Inputs, candidates: tf.Tensor, counts: tf.Tensor, draws: tf.Tensor, k: int,
    vocab: VocabularyFacts,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Whole words in random order until the next would exceed the count.

    A first word longer than the count is taken in part: a row never goes without a prediction.
    """
    length = tf.shape(candidates)[1]
    # A special token ends a word, so whatever follows it starts one.
    after_special = tf.pad(~candidates[:, :-1], [[0, 0], [1, 0]], constant_values=True)
    starts = tf.gather(tf.constant(vocab.word_starts), inputs.input_ids) | ~candidates | after_special
    word = tf.cumsum(tf.cast(starts, tf.int32), axis=-1) - 1
    start_position = tf.argsort(tf.cast(~starts, tf.int32), axis=-1, stable=True)
    score = tf.gather(draws, tf.gather(start_position, word, batch_dims=1), batch_dims=1)
    # The stable sort keeps the pieces of a word, which share a score, together and in order.
    order = tf.argsort(tf.where(candidates, score, 2.0), axis=-1, stable=True)
    ordered_word = tf.gather(word, order, batch_dims=1)
    rank = tf.range(length)[tf.newaxis, :]
    ends = tf.pad(ordered_word[:, 1:] != ordered_word[:, :-1], [[0, 0], [0, 1]], constant_values=True)
    last_rank = _reverse_cumulative_min(tf.where(ends, rank, length))
    fits = (last_rank < counts[:, tf.newaxis]) | (ordered_word == ordered_word[:, :1])
    used = fits & (rank < counts[:, tf.newaxis])
    return order[:, :k], used[:, :k]


def _reverse_cumulative_min(values: tf.Tensor) -> tf.Tensor:
    """int32 [B, L]: the least value at or to the right of each place, in log2(L) steps."""
    length, shift = values.shape[1], 1
    while shift < length:
        moved = tf.pad(values[:, shift:], [[0, 0], [0, shift]], constant_values=values.dtype.max)
        values, shift = tf.minimum(values, moved), 2 * shift
    return values


def mask(inputs: Inputs, config: ModelConfig, vocab: VocabularyFacts, key: Key) -> MaskedInputs:
    """Selects tokens and hides most of them behind [MASK] (`pretrain_helpers.mask`).

    85 % of the selected become [MASK], 15 % stay; none becomes a random token.

    Args:
      inputs: the batch; L must be static.
      config: mask_prob, replace_prob, masking, max_predictions.
      vocab: ids of special tokens, word starts.
      key: the run's key for masking; draws depend on it and on `inputs.example_index` alone.
    """
    length = inputs.input_ids.shape[1]
    k = config.predictions_per_sequence(length)
    candidates = candidate_positions(inputs, vocab)
    counts = count_predictions(inputs, candidates, config, k)
    draws = uniform(fold_in(key, inputs.example_index), length + k)
    positions, weights = choose_positions(
        inputs, candidates, counts, draws[:, :length], k, config, vocab)
    used = tf.cast(weights, tf.int32)
    original_ids = tf.gather(inputs.input_ids, positions, batch_dims=1) * used
    hidden = positions * tf.cast(draws[:, length:] < config.replace_prob, tf.int32)
    masked_ids, _ = scatter_update(
        inputs.input_ids, tf.fill(tf.shape(hidden), vocab.mask_id), hidden)
    return MaskedInputs(masked_ids, positions, original_ids, weights)


def scatter_update(
    sequence: tf.Tensor, updates: tf.Tensor, positions: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Writes ids at positions (`scatter_update` of the original, for ids).

    An update at position 0 is dropped: [CLS] is never selected, and unused slots point there.
    Updates that meet at one position, which only `masking="original"` brings about, are
    averaged with floor division, so that an unrelated third id is written, as in the original.

    Args:
      sequence: int32 [B, L].
      updates: int32 [B, K].
      positions: int32 [B, K].

    Returns:
      the updated sequence and a mask of what was written, both int32 [B, L].
    """
    shape = tf.shape(sequence)
    rows = tf.tile(tf.range(shape[0])[:, tf.newaxis], [1, tf.shape(positions)[1]])
    at = tf.stack([rows, positions], axis=-1)
    written = tf.scatter_nd(at, tf.ones_like(updates), shape)
    sums = tf.scatter_nd(at, updates, shape)
    not_first = tf.cast(tf.range(shape[1]) > 0, tf.int32)
    mean = sums // tf.maximum(written, 1)
    written = tf.minimum(written, 1) * not_first
    return tf.where(written > 0, mean, sequence), written


def gather_positions(sequence: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """[B, L, H] at int32 [B, K] -> [B, K, H] (`gather_positions`)."""
    return tf.gather(sequence, positions, batch_dims=1)


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
    # Not normalised: the search scales the draw by the sum instead.
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
    """The first index whose cumulative weight exceeds the target, and the target's rest in it.

    Args:
      cumulative: float32 [B, K, n], non-decreasing.
      target: float32 [B, K].
    """
    # Rounding may bring the target up to the total, where no index would exceed it.
    target = tf.minimum(target, cumulative[..., -1] * (1.0 - 2.0**-23))
    below = cumulative <= target[..., tf.newaxis]
    index = tf.reduce_sum(tf.cast(below, tf.int32), axis=-1)
    before = tf.reduce_max(tf.where(below, cumulative, 0.0), axis=-1)
    return index, target - before


def _block_width(vocab_size: int) -> int:
    """A divisor of V near sqrt(V), which saves padding [B, K, V]; else sqrt(V) rounded up."""
    root = math.isqrt(vocab_size - 1) + 1
    near = range(root, 2 * root)
    return next((width for width in near if vocab_size % width == 0), root)
