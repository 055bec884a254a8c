"""A run like a user's: records of the real builder, and `train()` in separate processes, one of which was
killed. For tests of commands that read the files of a run."""

import pathlib
from typing import NamedTuple

import builder_helpers
from engine_helpers import LENGTH, Data, TrainingProcess

from data_prep.build.job import build_tfrecords

STEPS = 60


class RealRun(NamedTuple):
    model_dir: pathlib.Path
    data: Data
    printed: str  # by its last start


def make_real_run(directory: pathlib.Path, corpus: pathlib.Path, vocab_dir: str) -> RealRun:
    """60 steps with a line every 3, a checkpoint every 6 and evaluations at 20 and 40. It is killed after
    step 15, before the first evaluation, so that little has to be compiled twice."""
    data = Data(str(directory / "records"), vocab_dir)
    build_tfrecords(builder_helpers.config(
        corpus, vocab_dir, data.data_dir, max_seq_length=LENGTH, dedup="exact", min_chars=20))
    model_dir = directory / "runs" / "real"
    model_dir.parent.mkdir()
    settings: dict = dict(log_every=3, save_every=6, steps_per_loop=3, eval_every=20,
                          async_checkpoints=False)  # so that the kill finds step 12 on the disk
    first = TrainingProcess(data, model_dir, **settings)
    first.wait_for_step(15)
    first.process.kill()
    first.wait(expected=-9)
    second = TrainingProcess(data, model_dir, **settings)
    second.process.join(300)
    return RealRun(model_dir, data, second.wait())
