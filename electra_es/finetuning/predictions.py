"""From the model's outputs to answers for each example, and these as lines of JSON.

An *output* is what the trials of an ensemble are averaged in:

    tagging               float32 [words, C], probabilities
    classification        float32 [C], probabilities
    regression            float, in the range of the task
    question_answering    Answer
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from electra_es.finetuning.alignment import collect_words
from electra_es.finetuning.batches import Batch, lengths_of, make_batch, scoring_plan
from electra_es.finetuning.examples import Question
from electra_es.finetuning.features import Features
from electra_es.finetuning.questions import Answer, find_answers, with_threshold
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.tasks import Task

_DIGITS = 6  # of a probability in a file


def predict(task: Task, examples: Sequence[Any], features: Sequence[Features],
            forward: Callable[[Batch], np.ndarray], config: FinetuningConfig) -> list[Any]:
    """The output for each example; batches are sorted by length."""
    values = run_forward(task, features, forward, config)
    if task.kind == "tagging":
        return collect_words(examples, features, values)
    if task.kind == "regression":
        low, high = task.score_range
        return [low + (high - low) * float(value[0]) for value in values]
    if task.kind == "classification":
        return values
    answers = find_answers(examples, features, [v[:, 0] for v in values], [v[:, 1] for v in values],
                           max_answer_length=config.max_answer_length)
    return [answers[question.id] for question in examples]


def run_forward(task: Task, features: Sequence[Features], forward: Callable[[Batch], np.ndarray],
                config: FinetuningConfig) -> list[np.ndarray]:
    """The model's array for each of the features, in their order."""
    values: list[np.ndarray] = [np.zeros(0)] * len(features)
    for planned in scoring_plan(lengths_of(features), config.eval_batch_size):
        found = forward(make_batch(features, planned, config.eval_batch_size, task))
        for row, number in enumerate(planned.rows):
            values[number] = found[row]
    return values


def references(task: Task, examples: Sequence[Any]) -> list[Any]:
    """What predictions are compared with (`scoring.score`)."""
    if task.kind == "question_answering":
        return list(examples)
    return [example.labels if task.kind == "tagging" else example.label for example in examples]


def decode(task: Task, examples: Sequence[Any], outputs: Sequence[Any], threshold: float = np.inf
           ) -> Any:
    """Predictions out of outputs, as `scoring.score` takes them.

    Args:
      threshold: questions: above which difference "no answer" is the answer.
    """
    if task.kind == "tagging":
        return [[task.labels[i] for i in np.argmax(output, axis=-1)] for output in outputs]
    if task.kind == "classification":
        return [task.labels[int(np.argmax(output))] for output in outputs]
    if task.kind == "regression":
        return list(outputs)
    answers = {question.id: answer for question, answer in zip(examples, outputs, strict=True)}
    return with_threshold(answers, threshold)


def json_lines(task: Task, examples: Sequence[Any], outputs: Sequence[Any], predictions: Any
               ) -> Iterator[str]:
    """A line of JSON for each example: input, label, prediction, probabilities in the order of the
    task's labels."""
    for number, (example, output) in enumerate(zip(examples, outputs, strict=True)):
        if isinstance(example, Question):
            row = {"id": example.id, "question": example.question,
                   "answers": [text for text, _ in example.answers],
                   "predicted": predictions[example.id], "text": output.text, "start": output.start,
                   "score": _finite(output.score), "null_difference": _finite(output.null_difference),
                   "probability": round(_answered(output), _DIGITS)}
        elif task.kind == "tagging":
            row = {"words": example.words, "labels": example.labels, "predicted": predictions[number],
                   "probabilities": [_rounded(word) for word in output]}
        else:
            row = {"texts": example.texts, "label": example.label, "predicted": predictions[number]}
            if task.kind == "classification":
                row["probabilities"] = _rounded(output)
        yield json.dumps({"example": number, **row}, ensure_ascii=False) + "\n"


def output_of(task: Task, row: dict[str, Any]) -> Any:
    """The output in a line that `json_lines` made."""
    if task.kind == "regression":
        return float(row["predicted"])
    if task.kind == "question_answering":
        return Answer(row["text"], row["start"], row["score"], row["null_difference"])
    return np.array(row["probabilities"], np.float64)


def ensemble(task: Task, outputs: Sequence[Sequence[Any]]) -> list[Any]:
    """The mean of the trials' outputs, for each example. For questions: the answer that has the
    most probability over the trials, and the mean difference to having none."""
    if task.kind != "question_answering":
        return [np.mean(trials, axis=0) for trials in zip(*outputs, strict=True)]
    chosen = []
    for answers in zip(*outputs, strict=True):
        weight: dict[str, float] = defaultdict(float)
        for answer in answers:
            weight[answer.text] += _answered(answer)
        best = max(answers, key=lambda answer: (weight[answer.text], answer.score))
        chosen.append(best._replace(
            null_difference=float(np.mean([answer.null_difference for answer in answers]))))
    return chosen


def _answered(answer: Answer) -> float:
    """Probability of the answer against that of having none."""
    return float(1 / (1 + np.exp(np.clip(answer.null_difference, -50, 50))))


def _finite(value: float) -> float:
    """JSON has no infinite numbers."""
    return float(np.clip(value, -1e9, 1e9))


def _rounded(probabilities: np.ndarray) -> list[float]:
    return [round(p, _DIGITS) for p in probabilities.tolist()]
