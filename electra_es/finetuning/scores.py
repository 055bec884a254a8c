"""Scoring a split with the model as it is; dev and test are kept apart by name."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from electra_es.finetuning import scoring
from electra_es.finetuning.batches import Batch
from electra_es.finetuning.data import TaskData
from electra_es.finetuning.predictions import decode, predict, references
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.tasks import Task


class Scored(NamedTuple):
    """A scored split."""

    metrics: dict[str, float]  # "dev/accuracy" and so on, the headline first
    outputs: list[Any]  # see predictions.py
    predictions: Any
    one_class: bool  # the model says the same of everything
    threshold: float | None  # of questions without answer; None where all have one


def score_split(data: TaskData, split: str, forward: Callable[[Batch], np.ndarray],
                config: FinetuningConfig, threshold: float | None = None) -> Scored:
    """Predicts and scores a split.

    Args:
      threshold: for tasks with unanswerable questions, the one found on dev; None: it is found on
        this split.
    """
    examples = data.splits[split].examples
    outputs = predict(data.task, examples, data.features[split], forward, config)
    return score_outputs(data.task, split, examples, outputs, threshold)


def score_outputs(task: Task, split: str, examples: list[Any], outputs: list[Any],
                  threshold: float | None = None) -> Scored:
    """As `score_split`, for outputs that are there already (an ensemble's)."""
    if task.unanswerable and threshold is None:
        answers = {question.id: answer for question, answer in zip(examples, outputs, strict=True)}
        threshold, _ = scoring.best_null_threshold(
            examples, {key: answer.text for key, answer in answers.items()},
            {key: answer.null_difference for key, answer in answers.items()})
        threshold = max(threshold, -1e9)  # JSON has no infinite numbers
    predictions = decode(task, examples, outputs, np.inf if threshold is None else threshold)
    metrics = scoring.score(task, split, references(task, examples), predictions)
    return Scored(metrics, outputs, predictions, scoring.is_constant(predictions),
                  threshold if task.unanswerable else None)
