"""A batch in parts, one for each core of a CPU, that are computed at the same time.

TensorFlow divides each operation between all cores, and at its end each core waits for the others: two
cores take 0.6 to 0.7 of the time that one core takes for a product of `small`. A core that computes
everything for a part of the batch waits once a step. So a run on a CPU gives each operation one thread
(`training/devices.py`), and as many operations run at the same time as there are cores. Where operations
have all threads, a batch has one part.

Shapes: B batch, P parts.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

# A random number of dropout decides on a row in each quarter of the batch (`dropout.py`).
_QUARTERS = 4


class Part(NamedTuple):
    """Which part of a batch is computed: B / 4P rows of each quarter, after those of the parts before."""

    number: tf.Tensor  # int32 scalar
    of: int  # P


def divides_between(rows: int, cores: int) -> bool:
    """Whether every core can have a part of a batch of so many rows."""
    return cores > 1 and rows % (_QUARTERS * cores) == 0


def cores_for_parts() -> int:
    """How many parts can be computed at the same time: 1 where operations have several threads."""
    threading = tf.config.threading
    return (threading.get_inter_op_parallelism_threads() or 1
            if threading.get_intra_op_parallelism_threads() == 1 else 1)


def sum_of_parts(function: Callable[[Any, Part | None], Any], batch: Any) -> Any:
    """The sum of `function(part of the batch, which part)` over the parts.

    The rows of a part come from all quarters of the batch. So dropout, which is told which part it is,
    keeps the entries that it keeps if there is one part.

    Args:
      function: returns tensors, nested in any way.
      batch: tensors [B, ...], nested in any way.
    """
    rows = tf.nest.flatten(batch)[0].shape[0] or 1
    parts = max((n for n in range(2, cores_for_parts() + 1) if divides_between(rows, n)), default=1)
    if parts == 1:
        return function(batch, None)

    # A call that stays a call. TensorFlow would else copy its graph into the caller's for each part.
    compiled = tf.function(lambda rows, number: function(rows, Part(number, parts)), autograph=False,
                           experimental_attributes={"_noinline": True})
    results = [compiled(tf.nest.map_structure(lambda x, i=i: _rows(x, i, parts), batch), tf.constant(i))
               for i in range(parts)]
    return tf.nest.map_structure(lambda *x: tf.add_n(x), *results)


def joined_parts(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """`function` of tensors [B, ...], computed in parts. There is no dropout, so any number of rows
    can be divided."""
    def call(*batch: tf.Tensor) -> tf.Tensor:
        rows = batch[0].shape[0] or 1
        parts = min(cores_for_parts(), rows)
        if parts == 1:
            return function(*batch)
        ends = [rows * i // parts for i in range(parts + 1)]
        return tf.concat([function(*(x[start:end] for x in batch))
                          for start, end in itertools.pairwise(ends)], axis=0)

    return call


def _rows(x: tf.Tensor, part: int, parts: int) -> tf.Tensor:
    """The rows [B / P, ...] of a part, see `Part`."""
    inner = [-1 if size is None else size for size in x.shape[1:]]
    quarters = tf.reshape(x, [_QUARTERS, parts, x.shape[0] // (_QUARTERS * parts), *inner])
    return tf.reshape(quarters[:, part], [x.shape[0] // parts, *inner])
