"""Reads the examples of a task's split; `formats/` knows the layouts.

Nothing is lost silently: a row that cannot be used ends the run with its file and line, or is
counted by reason; rows that a rule of the task leaves out are counted too.
"""

import os
import zlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from electra_es.errors import UsageError
from electra_es.finetuning.examples import Split, TextExample
from electra_es.finetuning.formats.conll import read_conll
from electra_es.finetuning.formats.rows import Rows
from electra_es.finetuning.formats.squad import read_squad
from electra_es.finetuning.formats.tables import read_table
from electra_es.finetuning.tasks import Task


def read_split(task: Task, split: str, data_dir: str, skip_bad_rows: bool = False) -> Split:
    """Reads `train`, `dev` or `test` of a task.

    Args:
      task: what to read.
      split: its name. Training pairs of a symmetric task are there in both orders.
      data_dir: directory that the task's file names are relative to.
      skip_bad_rows: leave rows out that cannot be used, and count them, instead of ending.

    Raises:
      UsageError: no such split or file, a bad row (its file and line), or nothing left.
    """
    if split not in task.splits:
        raise UsageError(f"task {task.name}: no split {split}: expected one of "
                         f"{', '.join(task.splits)}")
    source = split if split in task.files else "train"
    rows = Rows(skip_bad_rows)
    settings = task.of_split(source)
    examples: list[Any] = []
    for path in _paths(task, source, data_dir):
        examples += _read(settings, source, path, rows)
    if task.dev_share and "dev" not in task.files and split != "test":
        examples = [e for e in examples if _is_dev(task, e) == (split == "dev")]
    if not examples:
        raise UsageError(f"task {task.name}: no example of {split} in {task.files[source]} "
                         f"({dict(rows.dropped) or 'nothing was left out'})")
    if task.symmetric and split == "train":
        examples += [TextExample(e.texts[::-1], e.label, e.where) for e in examples]
    return Split(split, examples, dict(rows.dropped))


def has_split(task: Task, split: str, data_dir: str) -> bool:
    """Whether the task has this split and its files are there."""
    source = split if split in task.files else "train"
    return split in task.splits and bool(
        tf.io.gfile.glob(os.path.join(data_dir, task.files[source])))


def _read(task: Task, split: str, path: str, rows: Rows) -> Iterator[Any]:
    if task.layout in ("conll", "conllu"):
        return read_conll(task, path, rows)
    if task.layout == "squad":
        return read_squad(task, path, rows)
    return read_table(task, split, path, rows)


def _paths(task: Task, split: str, data_dir: str) -> list[str]:
    pattern = os.path.join(data_dir, task.files[split])
    paths = sorted(tf.io.gfile.glob(pattern))
    if not paths:
        hint = f"; {task.how_to_get}" if task.how_to_get else ""
        raise UsageError(f"{pattern}: no such file: expected {split} of task {task.name}{hint}")
    return paths


def _is_dev(task: Task, example: Any) -> bool:
    """Draws by the first text, so that all examples with it are in one split, whatever the order."""
    first = example.texts[0] if isinstance(example, TextExample) else (
        " ".join(example.words) if task.kind == "tagging" else example.context)
    return zlib.crc32(first.encode("utf-8", "surrogatepass")) % task.dev_share == 0
