"""Choosing positions, writing [MASK], gathering and scattering.

Shapes: B batch, L length, K predictions, H hidden.
Source: `pretrain_helpers.py` of google-research/electra; each function names its own.
"""

import tensorflow as tf

from electra_es.config import ModelConfig
from electra_es.model.batches import Inputs, MaskedInputs, VocabularyFacts
from electra_es.model.randomness import Key, fold_in, uniform


def candidate_positions(inputs: Inputs, vocab: VocabularyFacts) -> tf.Tensor:
    """bool [B, L]: tokens that may be selected, i.e. not [CLS], [SEP], [MASK] or padding
    (`_get_candidates_mask`)."""
    candidates = tf.cast(inputs.input_mask, tf.bool)
    for special_id in (vocab.cls_id, vocab.sep_id, vocab.mask_id):
        candidates &= inputs.input_ids != special_id
    return candidates


def count_predictions(inputs: Inputs, candidates: tf.Tensor, config: ModelConfig, k: int) -> tf.Tensor:
    """int32 [B]: max(1, min(K, round(tokens * mask_prob))) (`mask`); without replacement, at most the
    number of candidates."""
    tokens = tf.cast(tf.reduce_sum(inputs.input_mask, axis=-1), tf.float32)
    count = tf.cast(tf.round(tokens * config.mask_prob), tf.int32)
    count = tf.maximum(1, tf.minimum(k, count))
    available = tf.reduce_sum(tf.cast(candidates, tf.int32), axis=-1)
    if config.masking == "original":
        return tf.where(available > 0, count, 0)
    return tf.minimum(count, available)


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

    If the first word is longer than the count, a part of it is taken: every row has a prediction.
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


def mask_tokens(inputs: Inputs, config: ModelConfig, vocab: VocabularyFacts, key: Key) -> MaskedInputs:
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
    Several updates of one position occur only with `masking="original"`. They are averaged with
    floor division, which writes an unrelated third id, as in the original.

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
