"""The trials of a run: each is trained and scored, or only what of it is not done yet."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from electra_es.finetuning.batches import num_batches
from electra_es.finetuning.data import TaskData
from electra_es.finetuning.finetuner import Finetuner, TrialKeys
from electra_es.finetuning.model import Pretrained
from electra_es.finetuning.predictions import json_lines
from electra_es.finetuning.results import (
    TRIAL_FILE,
    predictions_file,
    read_json,
    write_json,
    write_text,
)
from electra_es.finetuning.scores import score_split
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.trial import EPOCHS_FILE, TRAINED_FILE, train_trial
from electra_es.training.interruption import Interrupted, StopSignal

Trial = dict[str, Any]


class Run(NamedTuple):
    """What the trials of a run have in common."""

    output: str
    pretrained: Pretrained
    data: TaskData
    strategy: tf.distribute.Strategy
    stop: StopSignal


def one_at_a_time(run: Run) -> Callable[[FinetuningConfig], Finetuner]:
    """Returns what gives the Finetuner of settings; it is made when asked for, and kept until
    others are asked for."""
    kept: list[tuple[FinetuningConfig, Finetuner]] = []

    def finetuner_for(config: FinetuningConfig) -> Finetuner:
        if not kept or kept[0][0] != config:
            kept.clear()
            steps = config.epochs * num_batches(len(run.data.features["train"]),
                                                config.train_batch_size)
            kept.append((config, Finetuner(run.pretrained, run.data.task, config, steps,
                                           run.strategy)))
        return kept[0][1]

    return finetuner_for


def run_trial(run: Run, finetuner_for: Callable[[FinetuningConfig], Finetuner],
              config: FinetuningConfig, folder: str, number: int, splits: Sequence[str]) -> Trial:
    """Trains and scores a trial, or only what of it is not done yet.

    Args:
      folder: of the trial, in the run's directory.
      splits: to score, dev before test; no other split is looked at.

    Returns:
      what its `trial.json` holds.

    Raises:
      Interrupted: a signal came; everything is saved, or is done again by the next call.
    """
    directory = os.path.join(run.output, folder)
    path = os.path.join(directory, TRIAL_FILE)
    trial = read_json(path) if os.path.exists(path) else None
    if trial is not None and all(split in trial["predictions"] for split in splits):
        return trial
    os.makedirs(directory, exist_ok=True)
    finetuner = finetuner_for(config)
    if not train_trial(finetuner, run.data, directory, number, run.stop):
        raise Interrupted
    if trial is None:
        trial = {**read_json(os.path.join(directory, TRAINED_FILE)), "seed": config.seed,
                 "head_seed": TrialKeys(config.seed, number).head,
                 "epochs": read_json(os.path.join(directory, EPOCHS_FILE)), "metrics": {},
                 "one_class": [], "predictions": {}, "threshold": None}
    for split in splits:
        if split in trial["predictions"]:
            continue
        threshold = trial["threshold"]
        if threshold is None and split != config.watched_split:
            threshold = 0.0  # never looked for on test
        found = score_split(run.data, split, finetuner.scoring_forward(split, run.stop), config,
                            threshold)
        name = predictions_file(split)
        write_text(os.path.join(directory, name), json_lines(
            run.data.task, run.data.splits[split].examples, found.outputs, found.predictions))
        trial["metrics"] |= found.metrics
        trial["one_class"] += [split] if found.one_class else []
        trial["predictions"][split] = f"{folder}/{name}"
        trial["threshold"] = found.threshold
        print(trial_line(number, found.metrics, found.one_class), flush=True)
    write_json(path, trial)
    return trial


def trial_line(number: int, metrics: dict[str, float], one_class: bool) -> str:
    """The metrics of a scored split, and a word if they are those of a single class."""
    figures = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    return f"trial {number}: {figures}" + ("  (it predicts one class only)" if one_class else "")
