"""The inputs of the model: a batch, its masked form, and facts about the vocabulary.

Shapes: B batch, L length, K predictions, V vocabulary.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Inputs(NamedTuple):
    """A batch as it comes from the records."""

    input_ids: tf.Tensor  # int32 [B, L], right-padded
    input_mask: tf.Tensor  # int32 [B, L], 1 for tokens, 0 for padding
    segment_ids: tf.Tensor  # int32 [B, L]
    example_index: tf.Tensor  # int64 [B], place in the stream of examples; random draws depend on it


class MaskedInputs(NamedTuple):
    """A batch after positions were chosen. Unused slots have position 0, id 0 and weight 0."""

    input_ids: tf.Tensor  # int32 [B, L], with [MASK] written in
    positions: tf.Tensor  # int32 [B, K]
    original_ids: tf.Tensor  # int32 [B, K]
    weights: tf.Tensor  # float32 [B, K]


class VocabularyFacts(NamedTuple):
    """What masking needs to know about the vocabulary."""

    size: int
    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    word_starts: np.ndarray  # bool [V], whether a piece begins a word
