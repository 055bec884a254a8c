"""Checkpoints: one folder per step, and a marker that is written last.

    checkpoints/step-00001000/ckpt.index, ckpt.data-…   weights, moments, step
    checkpoints/step-00001000/COMPLETED                 {"step": …, "examples_seen": …}

A folder is written under a temporary name and renamed. A folder without its marker is never read. If
the files of a folder are damaged, the checkpoint before it is read instead.
`tf.train.CheckpointManager` takes the last entry of its list, damaged or not.
"""

import concurrent.futures
import os

import tensorflow as tf

from electra_es import files
from electra_es.errors import UsageError, reason
from electra_es.training.checkpoint_files import MARKER, Saved, completed_steps, folder, read_newest
from electra_es.training.workers import Workers


class Checkpoints:
    """Saves and restores the state of a run. Leaving its `with` waits for what is being written."""

    def __init__(self, model_dir: str, state: tf.train.Checkpoint, *, keep: int, keep_every: int,
                 workers: Workers | None = None, background: bool = False):
        """
        Args:
          model_dir: where `checkpoints/` is.
          state: the objects to save.
          keep: how many of the latest to keep.
          keep_every: also keep each at a multiple of this step; 0: none.
          workers: those of the strategy; all have to take part in saving, but only the files of
            worker 0 stay.
          background: whether to write during training, from a copy in the host's memory.
        """
        self.model_dir, self.state = model_dir, state
        self.keep, self.keep_every = keep, keep_every
        self.workers = workers or Workers()
        # Writing in the background adds this counter; creating it here puts it into every checkpoint.
        self.state.save_counter  # noqa: B018
        self._options = tf.train.CheckpointOptions(enable_async=background)
        self._writer = concurrent.futures.ThreadPoolExecutor(1) if background else None
        self._writing: concurrent.futures.Future | None = None
        self._damaged: set[int] = set()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.wait()

    def save(self, step: int, examples_seen: int) -> None:
        """Writes the checkpoint of `step`, then deletes the checkpoints that are no longer kept.

        In the background, an error of one save is raised by the next call.

        Raises:
          UsageError: it cannot be written (disk full, no permission); earlier checkpoints are
            complete.
        """
        self.wait()
        if step in completed_steps(self.model_dir) and step not in self._damaged:
            return
        root = os.path.join(self.model_dir, "checkpoints")
        scratch = os.path.join(root, f".writing-{self.workers.index}-step-{step:08d}")
        try:
            if self.workers.index == 0:
                self._remove_leftovers(root)
            files.make_directory(scratch)
            # In the background, this returns as soon as the variables are copied.
            self.state.write(os.path.join(scratch, "ckpt"), self._options)
        except (tf.errors.OpError, OSError, UsageError) as error:
            raise self._cannot_write(scratch, error) from None
        if self._writer is None:
            self._finish(scratch, step, examples_seen)
        else:
            self._writing = self._writer.submit(self._finish, scratch, step, examples_seen)

    def wait(self) -> None:
        """Waits for the save in the background, and raises its error if it failed."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _finish(self, scratch: str, step: int, examples_seen: int) -> None:
        """The part of a save after writing the files: rename, write the marker, delete old ones."""
        final = folder(self.model_dir, step)
        try:
            self.state.sync()
            prefix = os.path.join(scratch, "ckpt")
            if not files.exists(prefix + ".index"):
                # sync() does not raise an error of TensorFlow's thread; the next write does.
                self.state.write(prefix, self._options)
                raise OSError("TensorFlow gives no reason")
            if self.workers.index:
                files.remove(scratch)
                return
            files.remove(final)  # damaged, or left without its marker by a crash
            files.rename(scratch, final)
            files.write_json(os.path.join(final, MARKER), {"step": step, "examples_seen": examples_seen})
        except (tf.errors.OpError, OSError, UsageError) as error:
            raise self._cannot_write(scratch, error) from None
        self._damaged.discard(step)
        self._drop_old()

    def _cannot_write(self, scratch: str, error: Exception) -> UsageError:
        files.remove(scratch)
        return UsageError(f"{self.model_dir}/checkpoints: a checkpoint cannot be written "
                          f"({reason(error)}); earlier checkpoints are whole")

    def restore_latest(self) -> Saved:
        """Restores the newest checkpoint that is not damaged, the same one on every worker.

        Returns:
          its step and examples_seen; zeros if there is no checkpoint.

        Raises:
          UsageError: there are checkpoints, but none can be read, or they belong to another run; or
            the workers found different checkpoints.
        """
        with self.workers.together():
            found, damaged = read_newest(
                self.model_dir,
                lambda prefix: self.state.read(prefix).assert_consumed(),
                "the state of this run; weights alone are a start for a new --model_dir, with "
                "--init_checkpoint")
        self._damaged.update(damaged)
        saved = found or Saved(0, 0)
        of_all_workers = {Saved(*row) for row in self.workers.gather(*saved)}
        if len(of_all_workers) > 1:
            steps = ", ".join(str(each.step) for each in sorted(of_all_workers))
            raise UsageError(
                f"{self.model_dir}: the workers do not find the same checkpoint there (those of "
                f"steps {steps}): expected one --model_dir that all of them share and can read")
        return saved

    def _drop_old(self) -> None:
        # Damaged checkpoints are neither counted nor deleted: the user may want to inspect them.
        steps = [step for step in completed_steps(self.model_dir) if step not in self._damaged]
        for step in steps[:-self.keep]:
            if not (self.keep_every and step % self.keep_every == 0):
                files.remove(folder(self.model_dir, step))

    def _remove_leftovers(self, root: str) -> None:
        """Deletes what a crash left half-written."""
        for name in files.names_in(root):
            if name.startswith(".writing-0-"):
                files.remove(os.path.join(root, name))


def restore_weights(model_dir: str, model: tf.Module, step: int | None = None) -> int:
    """Restores only the weights of `model`.

    Args:
      step: of the checkpoint; None: of the newest that is not damaged.

    Returns:
      its step.

    Raises:
      UsageError: there is no checkpoint, none can be read, or they belong to another model.
    """
    def read(prefix: str) -> None:
        status = tf.train.Checkpoint(model=model).read(prefix)
        status.assert_existing_objects_matched().expect_partial()

    saved, _ = read_newest(model_dir, read, "the weights of this model", step)
    if saved is None:
        raise UsageError(f"{model_dir}/checkpoints: expected at least one whole checkpoint")
    return saved.step
