"""Which checkpoints a run has on disk, and which is the newest that can be read.

    checkpoints/step-00001000/ckpt.index, ckpt.data-…   what TensorFlow wrote
    checkpoints/step-00001000/COMPLETED                 {"step": …, "examples_seen": …}, written last
"""

import json
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from electra_es import files
from electra_es.errors import UsageError, reason, warn

_NAME = re.compile(r"step-(\d{8})")
MARKER = "COMPLETED"
# What is raised for files that are cut off, damaged or missing; TensorFlow raises IndexError for a file
# that ends early. Other errors (no permission, no network) say nothing about the checkpoint, and going
# back to an older one would lose steps.
_DAMAGE = (tf.errors.DataLossError, tf.errors.OutOfRangeError, tf.errors.NotFoundError,
           tf.errors.InvalidArgumentError, LookupError)


class Saved(NamedTuple):
    """What the marker of a checkpoint says."""

    step: int
    examples_seen: int


def folder(model_dir: str, step: int) -> str:
    return os.path.join(model_dir, "checkpoints", f"step-{step:08d}")


def checkpoint_path(model_dir: str, step: int) -> str:
    """The prefix under which TensorFlow opens the checkpoint of `step`."""
    return os.path.join(folder(model_dir, step), "ckpt")


def completed_steps(model_dir: str) -> list[int]:
    """Steps of the complete checkpoints in `model_dir`, in order."""
    root = os.path.join(model_dir, "checkpoints")
    steps = [int(match[1]) for name in files.names_in(root) if (match := _NAME.fullmatch(name))]
    return sorted(step for step in steps
                  if files.exists(os.path.join(folder(model_dir, step), MARKER)))


def read_newest(model_dir: str, read: Callable[[str], Any], contents: str,
                only_step: int | None = None) -> tuple[Saved | None, list[int]]:
    """Reads the newest checkpoint that is not damaged. Every command opens a run with it.

    Args:
      model_dir: where `checkpoints/` is.
      read: reads the checkpoint of a prefix into objects; raises ValueError or AssertionError if the
        checkpoint holds something else.
      contents: what `read` expects, for the message.
      only_step: read the checkpoint of this step and no other.

    Returns:
      what was read, None if there is no checkpoint; and the steps of damaged checkpoints. A warning
      names each of these.

    Raises:
      UsageError: there are checkpoints, but none can be read, or they hold something else.
    """
    damaged: list[int] = []
    for step in reversed(completed_steps(model_dir)) if only_step is None else [only_step]:
        prefix = checkpoint_path(model_dir, step)
        try:
            saved = _read_marker(model_dir, step)
            with files.no_pattern(prefix) as path:
                read(path)
            return saved, damaged
        except UsageError:
            raise
        except (ValueError, AssertionError) as error:
            raise UsageError(f"{prefix}: not {contents} ({reason(error)})") from None
        except (tf.errors.OpError, LookupError) as error:
            if not _is_damage(error, prefix):
                raise UsageError(f"{prefix}: cannot be read ({reason(error)})") from None
            if only_step is not None:
                raise UsageError(f"{prefix}: damaged ({reason(error)})") from None
            warn(f"{prefix}: damaged ({reason(error)}): taking the checkpoint before it")
            damaged.append(step)
    if damaged:
        raise UsageError(
            f"{model_dir}/checkpoints: none of the {len(damaged)} checkpoints can be read")
    return None, []


def _read_marker(model_dir: str, step: int) -> Saved:
    """The content of `COMPLETED`; raises LookupError if `_finish` cannot have written it."""
    text = files.read_bytes(os.path.join(folder(model_dir, step), MARKER)).decode("utf-8", "replace")
    try:
        values = json.loads(text)
        saved = Saved(values["step"], values["examples_seen"])
    except (ValueError, TypeError, KeyError):
        saved = Saved(-1, -1)
    if saved.step != step or type(saved.examples_seen) is not int or saved.examples_seen < 0:
        raise LookupError(f'{MARKER} says {text[:60].strip()!r}: expected {{"step": {step}, '
                          '"examples_seen": a number}')
    return saved


def _is_damage(error: Exception, prefix: str) -> bool:
    """Whether the files are damaged. Errors of TensorFlow's index reader have no class of their own."""
    if type(error) is not tf.errors.OpError:
        return isinstance(error, _DAMAGE)
    directory = os.path.dirname(prefix)
    try:
        for name in files.names_in(directory):
            with tf.io.gfile.GFile(os.path.join(directory, name), "rb") as file:
                file.read(1)
    except tf.errors.OpError as opening:
        return isinstance(opening, (*_DAMAGE, tf.errors.FailedPreconditionError))
    return True
