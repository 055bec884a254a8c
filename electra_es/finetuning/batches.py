"""Batches of similar length: which examples go together, in an order derived from seed and epoch.

A batch is as long as its longest row. Where a program takes one length only, as XLA's do, the batch
is padded to one of a few lengths, so that few programs are compiled. Rows that fill up a batch have
weight 0.

Shapes: B batch, L length.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from electra_es.finetuning.features import NONE, Features
from electra_es.finetuning.tasks import Task
from electra_es.model.randomness import Key

# Powers of two and the middles between them: at most a third of a row is padding.
_LENGTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_POOL = 50  # batches whose examples are sorted by length together


class Batch(NamedTuple):
    """What a step takes; NumPy arrays or tensors. For labels and weights see `heads`."""

    input_ids: tf.Tensor  # int32 [B, L], right-padded
    input_mask: tf.Tensor  # int32 [B, L], 1 for tokens, 0 for padding
    segment_ids: tf.Tensor  # int32 [B, L]
    labels: tf.Tensor
    weights: tf.Tensor  # float32; 0 for what is not trained on


class Planned(NamedTuple):
    """A batch before it is made."""

    length: int  # of its longest row
    rows: np.ndarray  # int64 [at most B], numbers of features


def bucket_of(length: int, longest: int) -> int:
    """The length that a batch is padded to whose longest row has `length` tokens."""
    return min([longest, *(bucket for bucket in _LENGTHS if length <= bucket)])


def fused_length(length: int, longest: int) -> int:
    """The length that a batch is padded to where XLA compiles elementwise work on a CPU, for each length
    anew. Short batches, which are the most, get little padding; long ones get few lengths."""
    step = 8 if length <= 128 else 32
    return min(-(-length // step) * step, longest)


def padded_to(batch: Batch, length: int) -> Batch:
    """The NumPy arrays of `batch`, with padding up to `length`."""
    more = [(0, 0), (0, length - batch.input_ids.shape[1])]
    of_tokens = batch.weights.ndim == 2  # tagging: labels and weights are those of tokens
    return Batch(*(np.pad(array, more) if i < 3 or of_tokens else array
                   for i, array in enumerate(batch)))


def training_plan(lengths: np.ndarray, batch_size: int, key: Key) -> list[Planned]:
    """The batches of an epoch: every row once, in ceil(n / B) batches.

    Args:
      lengths: int [n], tokens of each row.
      batch_size: B.
      key: of the epoch; the order depends on nothing else.
    """
    numbers = np.random.default_rng([int(key.high), int(key.low)])
    order = numbers.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), _POOL * batch_size):
        pool = order[start:start + _POOL * batch_size]
        batches += _cut(pool[np.argsort(lengths[pool], kind="stable")], lengths, batch_size)
    return [batches[i] for i in numbers.permutation(len(batches))]


def scoring_plan(lengths: np.ndarray, batch_size: int) -> list[Planned]:
    """Every row once, sorted by length."""
    return _cut(np.argsort(lengths, kind="stable"), lengths, batch_size)


def _cut(order: np.ndarray, lengths: np.ndarray, size: int) -> list[Planned]:
    pieces = [order[start:start + size] for start in range(0, len(order), size)]
    return [Planned(int(lengths[rows].max()), rows) for rows in pieces]


def num_batches(rows: int, batch_size: int) -> int:
    return -(-rows // batch_size)


def lengths_of(features: Sequence[Features]) -> np.ndarray:
    return np.array([len(row) for row in features], np.int64)


def make_batch(features: Sequence[Features], planned: Planned, batch_size: int, task: Task) -> Batch:
    """The NumPy arrays of a planned batch, filled up to `batch_size` rows."""
    shape = (batch_size, planned.length)
    ids, mask, segments = (np.zeros(shape, np.int32) for _ in range(3))
    rows = [features[i] for i in planned.rows]
    for i, row in enumerate(rows):
        n = len(row)
        ids[i, :n], mask[i, :n], segments[i, :n] = row.input_ids, 1, row.segment_ids
    mask[len(rows):, 0] = 1  # attention over nothing is not a number
    labels, weights = _labels(rows, shape, task)
    return Batch(ids, mask, segments, labels, weights)


def _labels(rows: Sequence[Features], shape: tuple[int, int], task: Task
            ) -> tuple[np.ndarray, np.ndarray]:
    """Labels and weights of a batch, as `heads` wants them."""
    if task.kind == "tagging":
        labels = np.full(shape, NONE, np.int32)
        for i, row in enumerate(rows):
            labels[i, :len(row)] = row.labels
        return np.maximum(labels, 0), (labels != NONE).astype(np.float32)
    weights = np.zeros(shape[0], np.float32)
    weights[:len(rows)] = 1
    if task.kind == "regression":
        low, high = task.score_range
        scores = np.zeros(shape[0], np.float32)
        scores[:len(rows)] = [(float(row.labels) - low) / (high - low) for row in rows]
        return scores, weights
    width = (2,) if task.kind == "question_answering" else ()
    classes = np.zeros((shape[0], *width), np.int32)
    for i, row in enumerate(rows):
        classes[i] = row.labels
    return classes, weights
