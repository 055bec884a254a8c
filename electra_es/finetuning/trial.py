"""One trial from beginning to end, in the order in which it happens.

    trial-2/
      checkpoints/        state to go on from; removed once the trial is trained
      epochs.json         what each epoch's end gave on the watched split
      model/              the weights that are scored: a fine-tuned model directory
      trained.json        training is over; what was kept
      predictions-*.jsonl, trial.json    see results.py
      metrics.jsonl, summaries/
"""

import dataclasses
import os
import time
from typing import Any

import tensorflow as tf

from electra_es.errors import CheckFailed
from electra_es.finetuning.batches import lengths_of, make_batch, num_batches, training_plan
from electra_es.finetuning.data import TaskData
from electra_es.finetuning.finetuner import Finetuner, TrialKeys
from electra_es.finetuning.results import read_json, write_json
from electra_es.finetuning.saved import prepare_finetuned_dir
from electra_es.finetuning.scores import score_split
from electra_es.monitoring.progress import ProgressLog
from electra_es.training.checkpoints import Checkpoints, restore_weights
from electra_es.training.interruption import StopSignal
from electra_es.training.optimization import learning_rate
from electra_es.training.steps import Sums

TRAINED_FILE, EPOCHS_FILE, MODEL_DIR = "trained.json", "epochs.json", "model"


def train_trial(finetuner: Finetuner, data: TaskData, directory: str, number: int,
                stop: StopSignal) -> bool:
    """Trains trial `number` in `directory`, from its latest checkpoint if it has one.

    At the end the model holds the weights that are to be scored, and `trained.json` is there.

    Args:
      finetuner: whose model is trained.
      data: the features of the training split and of the watched one.
      directory: of the trial.
      number: from 1; with the run's seed, what the trial draws depends on it.
      stop: ends the trial early, after saving.

    Returns:
      whether the trial is trained; False if a signal ended it.

    Raises:
      Interrupted: a signal came while the watched split was scored.
      UsageError: something cannot be read or written.
      CheckFailed: max_bad_steps non-finite steps in a row.
    """
    config, engine = finetuner.config, finetuner.engine
    kept_dir = os.path.join(directory, MODEL_DIR)
    if os.path.exists(os.path.join(directory, TRAINED_FILE)):
        restore_weights(kept_dir, finetuner.model)
        return True

    # ---- The start of the trial, then the state of its latest checkpoint over it.
    keys = TrialKeys(config.seed, number)
    finetuner.begin(keys)
    prepare_finetuned_dir(kept_dir, finetuner.pretrained, data.task, config)
    checkpoints = Checkpoints(directory, finetuner.state, keep=2, keep_every=0)
    kept = Checkpoints(kept_dir, tf.train.Checkpoint(model=finetuner.model), keep=2, keep_every=0)
    step, _ = checkpoints.restore_latest()

    features = data.features["train"]
    lengths = lengths_of(features)
    # Tokens per second are those of the text, not of the padding.
    log = ProgressLog(directory, dataclasses.replace(
        engine, max_seq_length=max(8, round(float(lengths.mean())))))
    log.go_on_from(step)
    log.show(f"trial {number} of {config.num_trials}: step {step} of {engine.num_train_steps}")
    epochs = _read_epochs(directory)
    per_epoch = num_batches(len(features), config.train_batch_size)
    watched = config.watched_split
    headline = f"{watched}/{data.task.metric}"
    stretch = Stretch()

    while True:
        # ---- An epoch's end: the watched split is scored, in the state of the checkpoint.
        epoch, position = divmod(step, per_epoch)
        if position == 0 and len(epochs) < epoch:
            checkpoints.save(step, step * config.train_batch_size)
            epochs.append({"epoch": epoch, "step": step})
            if watched in data.splits:
                forward = finetuner.scoring_forward(watched, stop)
                metrics = score_split(data, watched, forward, config).metrics
                epochs[-1] |= metrics
                log.evaluation(step, metrics)
            if config.keep == "best" and best_epoch(epochs, headline)["step"] == step:
                kept.save(step, step * config.train_batch_size)
            write_json(os.path.join(directory, EPOCHS_FILE), epochs)
        if step == engine.num_train_steps or stops_early(epochs, headline, config.early_stopping):
            break

        # ---- The batches of the epoch that are left.
        for planned in training_plan(lengths, config.train_batch_size, keys.order(epoch + 1))[position:]:
            batch = make_batch(features, planned, config.train_batch_size, data.task)
            stretch.begin()
            stretch.add(finetuner.train(batch, keys.dropout))
            step += 1
            stopping = stop.requested()
            ends_epoch = step % per_epoch == 0
            if step % config.log_every == 0 or ends_epoch or stopping:
                metrics = stretch.settle(finetuner, log, step)
                if not log.is_counting:
                    log.count_from(step)
                log.train(step, {**metrics, "learning_rate": float(
                    learning_rate(tf.constant(step), engine))})
            else:
                log.while_training(step, {})
            if step % config.save_every == 0 or stopping:
                stretch.settle(finetuner, log, step)
                checkpoints.save(step, step * config.train_batch_size)
            if stopping:
                log.show(f"stopped by a signal at step {step} of trial {number}; saved. The same "
                        "command goes on")
                return False

    # ---- The weights that are scored, apart from the state of training.
    if config.keep == "best":
        best = best_epoch(epochs, headline)
        restore_weights(kept_dir, finetuner.model)
    else:
        best = epochs[-1]
        kept.save(step, step * config.train_batch_size)
    write_json(os.path.join(directory, TRAINED_FILE), {
        "trial": number, "steps": step, "kept_step": best["step"], "kept_epoch": best["epoch"],
        "seconds": round(float(finetuner.seconds.numpy()), 3)})
    tf.io.gfile.rmtree(os.path.join(directory, "checkpoints"))
    return True


def best_epoch(epochs: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    """The first of the epochs with the greatest `metric`."""
    return max(epochs, key=lambda epoch: (epoch[metric], -epoch["epoch"]))


def stops_early(epochs: list[dict[str, Any]], metric: str, patience: int) -> bool:
    """Whether the last `patience` epochs brought nothing better than what was before them."""
    return bool(patience and epochs) and (
        epochs[-1]["epoch"] - best_epoch(epochs, metric)["epoch"] >= patience)


class Stretch:
    """The steps since the host last looked: their sums stay on the device until then."""

    def __init__(self) -> None:
        self._sums: list[Sums] = []
        self._bad_in_row = 0
        self._began = time.monotonic()

    def begin(self) -> None:
        """Takes the time before the first of the steps; scoring is not training time."""
        if not self._sums:
            self._began = time.monotonic()

    def add(self, sums: Sums) -> None:
        self._sums.append(sums)

    def settle(self, finetuner: Finetuner, log: ProgressLog, step: int) -> dict[str, float]:
        """Waits for the steps, and adds their time to the trial's.

        Returns:
          loss, gradient_norm (of the last step) and bad_steps (not applied); empty without steps.

        Raises:
          CheckFailed: max_bad_steps non-finite steps in a row.
        """
        if not self._sums:
            return {}
        rows = [{name: float(value) for name, value in sums.items()} for sums in self._sums]
        finetuner.seconds.assign_add(time.monotonic() - self._began)
        self._sums = []
        for row in rows:
            self._bad_in_row = self._bad_in_row + 1 if row["bad"] else 0
            if self._bad_in_row >= finetuner.config.max_bad_steps:
                raise CheckFailed(f"{self._bad_in_row} steps in a row, up to step {step}, had a "
                                  "non-finite loss or gradient: lower --learning_rate")
        bad = sum(row["bad"] for row in rows)
        if bad:
            log.show(f"warning: {bad:.0f} step(s) up to step {step} had a non-finite loss or gradient "
                    "and were not applied")
        weight = sum(row["weight"] for row in rows)
        return {"loss": sum(row["loss"] for row in rows) / max(weight, 1.0),
                "gradient_norm": rows[-1]["gradient_norm"], "bad_steps": bad}


def _read_epochs(directory: str) -> list[dict[str, Any]]:
    path = os.path.join(directory, EPOCHS_FILE)
    return read_json(path) if os.path.exists(path) else []
