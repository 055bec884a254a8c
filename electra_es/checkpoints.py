"""Checkpoints: one folder a step, and a marker that is written last.

    checkpoints/step-00001000/ckpt.index, ckpt.data-…   weights, moments, step
    checkpoints/step-00001000/COMPLETED                 {"step": …, "examples_seen": …}

A folder is written under a temporary name and renamed; one without its marker is never taken up,
and one that cannot be restored is passed over for the one before.
"""

import json
import os
import re

import tensorflow as tf
from absl import logging

from electra_es.errors import UsageError

_FOLDER = re.compile(r"step-(\d{8})")
_MARKER = "COMPLETED"


def checkpoint_path(model_dir: str, step: int) -> str:
    """The prefix that TensorFlow knows the checkpoint of `step` by."""
    return os.path.join(_folder(model_dir, step), "ckpt")


def completed_steps(model_dir: str) -> list[int]:
    """Steps of the whole checkpoints in `model_dir`, in order."""
    root = os.path.join(model_dir, "checkpoints")
    if not tf.io.gfile.isdir(root):
        return []
    steps = [int(match[1]) for name in tf.io.gfile.listdir(root)
             if (match := _FOLDER.fullmatch(name.rstrip("/")))]
    return sorted(step for step in steps
                  if tf.io.gfile.exists(os.path.join(_folder(model_dir, step), _MARKER)))


class Checkpoints:
    """Saves and restores the state of a run."""

    def __init__(self, model_dir: str, state: tf.train.Checkpoint, *, keep: int,
                 keep_every: int, is_chief: bool = True):
        """
        Args:
          model_dir: where `checkpoints/` is.
          state: the objects to save.
          keep: how many of the latest to keep.
          keep_every: also keep each at a multiple of this step; 0: none.
          is_chief: whether this process leaves its files; the other workers of a strategy have to
            take part in saving, but write into a scratch folder that is removed.
        """
        self.model_dir, self.state = model_dir, state
        self.keep, self.keep_every, self.is_chief = keep, keep_every, is_chief

    def save(self, step: int, examples_seen: int) -> None:
        """Writes the checkpoint of `step`, then drops those that are no longer to be kept.

        Raises:
          UsageError: it cannot be written (disk full, no permission); the earlier ones are whole.
        """
        final = _folder(self.model_dir, step)
        if step in completed_steps(self.model_dir):
            return
        scratch = os.path.join(
            self.model_dir, "checkpoints", f".writing-{os.getpid()}-{os.path.basename(final)}")
        try:
            tf.io.gfile.makedirs(scratch)
            self.state.write(os.path.join(scratch, "ckpt"))
            if not self.is_chief:
                tf.io.gfile.rmtree(scratch)
                return
            if tf.io.gfile.exists(final):  # without its marker: left by a crash
                tf.io.gfile.rmtree(final)
            tf.io.gfile.rename(scratch, final)
            marker = {"step": step, "examples_seen": examples_seen}
            with tf.io.gfile.GFile(os.path.join(final, _MARKER), "w") as file:
                file.write(json.dumps(marker) + "\n")
        except (tf.errors.OpError, OSError) as error:
            if tf.io.gfile.exists(scratch):
                tf.io.gfile.rmtree(scratch)
            raise UsageError(f"{final}: the checkpoint cannot be written "
                             f"({str(error).splitlines()[0]}); earlier checkpoints are whole") from None
        self._drop_old()

    def restore_latest(self) -> tuple[int, int]:
        """Restores the newest checkpoint that can be read.

        Returns:
          its step and the number of examples seen; (0, 0) if there is none.

        Raises:
          UsageError: there are checkpoints, but none can be read.
        """
        steps = completed_steps(self.model_dir)
        for step in reversed(steps):
            try:
                with tf.io.gfile.GFile(os.path.join(_folder(self.model_dir, step), _MARKER)) as file:
                    marker = json.loads(file.read())
                self.state.read(checkpoint_path(self.model_dir, step)).assert_consumed()
                return marker["step"], marker["examples_seen"]
            except (tf.errors.OpError, ValueError, KeyError, AssertionError) as error:
                logging.warning("checkpoint of step %d cannot be read (%s); trying the one before",
                                step, str(error).splitlines()[0])
        if steps:
            raise UsageError(
                f"{self.model_dir}/checkpoints: none of the {len(steps)} checkpoints can be read")
        return 0, 0

    def restore_weights(self) -> int:
        """Restores what `state` holds of the newest checkpoint, which may hold more.

        Returns:
          its step.

        Raises:
          UsageError: there is none.
        """
        steps = completed_steps(self.model_dir)
        if not steps:
            raise UsageError(f"{self.model_dir}/checkpoints: expected at least one whole checkpoint")
        status = self.state.read(checkpoint_path(self.model_dir, steps[-1]))
        status.assert_existing_objects_matched().expect_partial()
        return steps[-1]

    def _drop_old(self) -> None:
        steps = completed_steps(self.model_dir)
        for step in steps[:-self.keep]:
            if not (self.keep_every and step % self.keep_every == 0):
                tf.io.gfile.rmtree(_folder(self.model_dir, step))


def _folder(model_dir: str, step: int) -> str:
    return os.path.join(model_dir, "checkpoints", f"step-{step:08d}")
