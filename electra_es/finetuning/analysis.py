"""What the predictions of a run's trials say beyond its figures: ensemble, classes, confusions."""

import json
import os
import warnings
from typing import Any, NamedTuple

import numpy as np
import seqeval.metrics
import sklearn.metrics

from electra_es.errors import UsageError
from electra_es.finetuning.examples import Question, TaggingExample, TextExample
from electra_es.finetuning.predictions import decode, ensemble, output_of, references
from electra_es.finetuning.scores import score_outputs
from electra_es.finetuning.scoring import flat
from electra_es.finetuning.tasks import Task, task_from_json

MOST_CLASSES = 20  # of a confusion matrix


class ClassScore(NamedTuple):
    """Precision, recall and F1 of a class, over all trials, and how often it occurs in a trial."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


class Confusion(NamedTuple):
    """How often a class (row) was taken for another (column), over all trials."""

    classes: list[str]
    counts: np.ndarray  # int64 [classes, classes]
    of: int  # classes in all; of more than MOST_CLASSES the most frequent are here


class Predictions(NamedTuple):
    """The examples of a split, and the outputs of each trial for them."""

    task: Task
    examples: list[Any]
    outputs: list[list[Any]]
    thresholds: list[float]


def read_predictions(run_dir: str, results: dict[str, Any], split: str) -> Predictions:
    """Reads what the trials predicted.

    Raises:
      UsageError: a file is not there or not whole.
    """
    task = task_from_json(results["task_settings"])
    examples: list[Any] = []
    outputs, thresholds = [], []
    for trial in results["trials"]:
        path = os.path.join(run_dir, trial["predictions"][split])
        try:
            with open(path, encoding="utf-8", errors="surrogatepass") as file:
                rows = [json.loads(line) for line in file]
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror}): expected the predictions of "
                             "the run") from None
        except ValueError as error:
            raise UsageError(f"{path}: not what a run wrote ({error})") from None
        examples = [_example_of(task, row) for row in rows]
        outputs.append([output_of(task, row) for row in rows])
        thresholds.append(np.inf if trial["threshold"] is None else trial["threshold"])
    return Predictions(task, examples, outputs, thresholds)


def _example_of(task: Task, row: dict[str, Any]) -> Any:
    if task.kind == "tagging":
        return TaggingExample(tuple(row["words"]), tuple(row["labels"]))
    if task.kind == "question_answering":
        return Question(row["id"], row["question"], "", tuple((text, 0) for text in row["answers"]),
                        is_impossible=not row["answers"])
    return TextExample(tuple(row["texts"]), row["label"])


def ensemble_metrics(run_dir: str, results: dict[str, Any]) -> dict[str, float]:
    """The metrics of the mean of the trials' probabilities, on the split of the headline."""
    split, threshold = results["split"], None
    if results["task_settings"]["unanswerable"] and split == "test" and results["protocol"] == "standard":
        threshold = 0.0
    if threshold is not None and "dev" in results["splits"]:
        dev = read_predictions(run_dir, results, "dev")
        threshold = score_outputs(
            dev.task, "dev", dev.examples, ensemble(dev.task, dev.outputs)).threshold
    found = read_predictions(run_dir, results, split)
    return score_outputs(found.task, split, found.examples, ensemble(found.task, found.outputs),
                         threshold).metrics


def label_pairs(found: Predictions) -> tuple[list[Any], list[Any]]:
    """References and predictions of all trials, one after the other."""
    truth, guess = [], []
    for outputs, threshold in zip(found.outputs, found.thresholds, strict=True):
        truth += references(found.task, found.examples)
        guess += decode(found.task, found.examples, outputs, threshold)
    return truth, guess


def class_scores(found: Predictions) -> list[ClassScore]:
    """Of each class; of each type of entity where the task has entities."""
    truth, guess = label_pairs(found)
    trials = len(found.outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are never predicted
        if found.task.scheme != "none":
            report = seqeval.metrics.classification_report(
                [list(row) for row in truth], guess, output_dict=True, zero_division=0)
            report = {name: row for name, row in report.items() if not name.endswith(" avg")}
        else:
            if found.task.kind == "tagging":
                truth, guess = flat(truth), flat(guess)
            report = sklearn.metrics.classification_report(
                truth, guess, labels=list(found.task.labels), output_dict=True, zero_division=0)
            report = {name: report[name] for name in found.task.labels}
    return [ClassScore(name, float(row["precision"]), float(row["recall"]), float(row["f1-score"]),
                       round(row["support"] / trials)) for name, row in report.items()]


def confusion(found: Predictions) -> Confusion:
    """Of labels; of types of entities, word by word, where the task has entities."""
    truth, guess = label_pairs(found)
    classes = list(found.task.labels)
    if found.task.kind == "tagging":
        truth, guess = flat(truth), flat(guess)
    if found.task.scheme != "none":
        truth, guess, classes = ([label.split("-", 1)[-1] for label in labels]
                                 for labels in (truth, guess, classes))
        classes = list(dict.fromkeys(classes))
    counts = sklearn.metrics.confusion_matrix(truth, guess, labels=classes)
    frequent = np.sort(np.argsort(-counts.sum(axis=1), kind="stable")[:MOST_CLASSES])
    return Confusion([classes[i] for i in frequent], counts[np.ix_(frequent, frequent)], len(classes))
