"""What TensorBoard shows of a run: `summaries/`, which TensorBoard reads as several runs.

    summaries/              settings, for the HPARAMS page, where runs are compared
    summaries/train/        scalars of training, configuration
    summaries/validation/   the same tags, of the validation examples; samples
    summaries/floor/        the same tags, of counting tokens on the validation examples

A metric has the same tag in each, so that TensorBoard draws their curves in one chart.
"""

import dataclasses
import os
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.hparams import api as hparams_api
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from electra_es.run_config import Run

_FOLDERS = {"settings": "", "train": "train", "evaluation": "validation", "floor": "floor"}


class TensorBoardLog:
    """Writes event files; each is created with its first event."""

    def __init__(self, model_dir: str):
        self._folder = os.path.join(model_dir, "summaries")
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def configuration(self, step: int, run: Run) -> None:
        """Writes the settings of a run that begins after `step`."""
        with self._writer("settings").as_default():
            hparams_api.hparams(hyperparameters(run))
        self.text("train", "configuration", configuration_markdown(run), step)
        self._writers["settings"].flush()

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Args:
          kind: "train" or "evaluation". The floor of an evaluation gets its own folder.
        """
        if floor := {name.removeprefix("floor_"): value for name, value in values.items()
                     if "floor" in name and kind == "evaluation"}:
            self.scalars("floor", step, floor)
            values = {name: value for name, value in values.items() if "floor" not in name}
        with self._writer(kind).as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step=step)
        self._writers[kind].flush()

    def text(self, kind: str, name: str, markdown: str | list[str], step: int) -> None:
        with self._writer(kind).as_default():
            tf.summary.text(name, markdown, step=step)
        self._writers[kind].flush()

    def _writer(self, kind: str) -> tf.summary.SummaryWriter:
        if kind not in self._writers:
            self._writers[kind] = tf.summary.create_file_writer(
                os.path.join(self._folder, _FOLDERS[kind]))
        return self._writers[kind]

    def forget_steps_after(self, step: int) -> None:
        """Makes TensorBoard drop events of later steps.

        An event file is added that says: a session begins after `step`. TensorFlow 2's writers cannot
        write this event. TensorBoard treats the first one of a folder as the beginning and each later
        one as a restart, so a new run needs one too. It reads files in the order of their names, so
        this file has to be created before the writer of this start.
        """
        for kind in ("train", "evaluation", "floor"):
            writer = EventFileWriter(os.path.join(self._folder, _FOLDERS[kind]),
                                     filename_suffix=".start")
            writer.add_event(Event(wall_time=time.time(), step=step + 1,
                                   session_log=SessionLog(status=SessionLog.START)))
            writer.close()


def hyperparameters(run: Run) -> dict[str, bool | int | float | str]:
    """The settings of a run, without those that may change between its starts."""
    values = {field.name: getattr(part, field.name) for part in run
              for field in dataclasses.fields(part) if not field.metadata["may_change"]}
    return {name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in values.items()}


def configuration_markdown(run: Run) -> str:
    """Tables of all settings of each part."""
    lines: list[str] = []
    for name, part in run._asdict().items():
        values: Mapping[str, Any] = vars(part)
        lines += [f"### {name}", "", "| setting | value |", "|---|---|",
                  *(f"| {key} | {value} |" for key, value in values.items()), ""]
    return "\n".join(lines)
