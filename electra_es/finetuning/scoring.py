"""Scores, each by the name of what it computes. All but the correlations are shares from 0 to 1.

    accuracy            share of right labels; tagging: of all words
    entity_f1           seqeval's micro F1 of entities, lenient as the published results are: an
                        entity may begin with I-
    entity_f1_strict    seqeval's strict mode, by the rules of the task's scheme
    seqeval_f1_untyped  seqeval on tags that are no entities ("NOUN"), which EvalES and BERTIN print
                        as the F1 of POS: neighbours with one tag count as one
    macro_f1            mean of the F1 of each class that is in references or predictions
    binary_f1           F1 of the second of two classes ("F1" of PAWS-X in EvalES)
    mcc                 Matthews' correlation
    pearson, spearman, combined     correlations, and the mean of both; 0 where all predictions
                        are the same
    exact_match, f1     SQuAD's official script: 1.1, or 2.0 with unanswerable questions

SQuAD's script compares lower-cased answers without ASCII punctuation and without the *English*
articles a, an and the; EvalES scores SQAC with it as it is. So the Spanish preposition "a" does not
count, and "el", "la", "¿" and "¡" do.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats
import seqeval.metrics
import seqeval.scheme
import sklearn.metrics
from official.nlp.tools import squad_evaluate_v1_1, squad_evaluate_v2_0

from electra_es.finetuning.examples import Question
from electra_es.finetuning.tasks import Task


def score(task: Task, split: str, references: Sequence[Any], predictions: Any) -> dict[str, float]:
    """All metrics of the task, the headline first.

    Args:
      task: gives the metrics.
      split: part of every name, so that dev is never taken for test.
      references: tagging: label sequences; classification: labels; regression: scores; question
        answering: the questions.
      predictions: the same of the model; question answering: id -> text, empty for no answer.

    Returns:
      "dev/accuracy" -> value, and so on.

    Raises:
      ValueError: not as many predictions as references.
    """
    if len(references) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
    return {f"{split}/{name}": metric(name, task, references, predictions)
            for name in task.all_metrics}


def metric(name: str, task: Task, references: Sequence[Any], predictions: Any) -> float:
    """One metric; arguments as for `score`."""
    if name in ("exact_match", "f1"):
        return squad_scores(references, predictions, unanswerable=task.unanswerable)[name]
    if name in ("pearson", "spearman", "combined"):
        return correlation(name, references, predictions)
    if name in ("entity_f1", "seqeval_f1_untyped"):
        return entity_f1(references, predictions)
    if name == "entity_f1_strict":
        return entity_f1(references, predictions, scheme=task.scheme)
    if task.kind == "tagging":
        references, predictions = flat(references), flat(predictions)
    if name == "accuracy":
        return float(sklearn.metrics.accuracy_score(references, predictions))
    if name == "mcc":
        return float(sklearn.metrics.matthews_corrcoef(references, predictions))
    if name == "binary_f1":
        return float(sklearn.metrics.f1_score(references, predictions, labels=[task.labels[1]],
                                              average="macro", zero_division=0))
    assert name == "macro_f1", name
    return float(sklearn.metrics.f1_score(references, predictions, average="macro", zero_division=0))


def entity_f1(references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]],
              scheme: str = "") -> float:
    """seqeval's micro F1: lenient, or strict by the rules of `scheme` (IOB2 or IOBES)."""
    options: dict[str, Any] = {"zero_division": 0}
    if scheme:
        options |= {"mode": "strict", "scheme": getattr(seqeval.scheme, scheme)}
    with warnings.catch_warnings():
        # seqeval warns of every tag that is not written as an entity, and of arrays of its own.
        warnings.simplefilter("ignore")
        return float(seqeval.metrics.f1_score([list(row) for row in references],
                                              [list(row) for row in predictions], **options))


def correlation(name: str, references: Sequence[float], predictions: Sequence[float]) -> float:
    """`pearson`, `spearman`, or `combined`: the mean of both, as EvalES scores STS."""
    if is_constant(predictions) or is_constant(references):
        return 0.0
    found = {"pearson": scipy.stats.pearsonr, "spearman": scipy.stats.spearmanr}
    wanted = found if name == "combined" else {name: found[name]}
    return float(np.mean([function(references, predictions).statistic
                          for function in wanted.values()]))


def squad_scores(questions: Sequence[Question], predictions: Mapping[str, str], *,
                 unanswerable: bool) -> dict[str, float]:
    """`exact_match` and `f1` of SQuAD's script, 1.1 or (with unanswerable questions) 2.0.

    Raises:
      ValueError: a question without a prediction.
    """
    missing = [q.id for q in questions if q.id not in predictions]
    if missing:
        raise ValueError(f"no prediction for question {missing[0]} ({len(missing)} in all)")
    data = _as_squad(questions)
    predictions = {q.id: predictions[q.id] for q in questions}
    if not unanswerable:
        found = squad_evaluate_v1_1.evaluate(data, predictions)
        return {"exact_match": float(found["exact_match"]), "f1": float(found["final_f1"])}
    found = squad_evaluate_v2_0.evaluate(data, predictions)
    return {"exact_match": found["exact"] / 100, "f1": found["f1"] / 100}


def best_null_threshold(questions: Sequence[Question], answers: Mapping[str, str],
                        null_differences: Mapping[str, float]) -> tuple[float, float]:
    """Finds the threshold above which "no answer" scores best; look for it on dev only.

    Args:
      questions: of dev.
      answers: id -> best text, never empty where there is any.
      null_differences: id -> by how much "no answer" is better.

    Returns:
      The threshold (-inf: never answer) and the f1 with it.
    """
    gains = {}
    for question in questions:
        answered = squad_scores([question], answers, unanswerable=True)["f1"]
        gains[question.id] = answered - (0.0 if question.answers else 1.0)
    total = float(sum(not question.answers for question in questions))
    best, threshold = total, -np.inf
    # Questions with the same difference are answered together.
    order = sorted(gains, key=lambda id: null_differences[id])
    for i, id in enumerate(order):
        total += gains[id]
        last = i + 1 == len(order) or null_differences[order[i + 1]] > null_differences[id]
        if last and total > best + 1e-9:
            best, threshold = total, null_differences[id]
    return float(threshold), best / len(questions)


def is_constant(predictions: Any) -> bool:
    """Whether a model says the same of everything; tables mark such results.

    Args:
      predictions: labels, scores, id -> text, or sequences of labels.
    """
    values = list(predictions.values() if isinstance(predictions, Mapping) else predictions)
    if values and isinstance(values[0], (list, tuple, np.ndarray)):
        values = flat(values)
    return len(set(values)) <= 1


def flat(sequences: Sequence[Sequence[Any]]) -> list[Any]:
    """The elements of sequences of labels, in order."""
    return [value for sequence in sequences for value in sequence]


def _as_squad(questions: Sequence[Question]) -> list[dict[str, Any]]:
    return [{"paragraphs": [{"qas": [
        {"id": q.id, "answers": [{"text": text} for text, _ in q.answers]} for q in questions]}]}]
