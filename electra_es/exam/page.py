"""The exam as the page of `electra_es.detect --serve` shows it."""

from typing import Any

from electra_es.exam.any_model import examine
from electra_es.minimal_pairs.pairs import load_pairs, span_of_word
from electra_es.minimal_pairs.results import Answer


def exam_of(path: str) -> dict[str, Any]:
    """Examines the model at `path` on all pairs; see `examine` for forms and errors.

    Returns:
      `step` (None: not known), the shares of `ExamResult.to_json`, and `answers`: of each pair its
      phenomenon, its sentence (`before` and `after` the word), the two words, and under `scores` what
      each examinee gives to both, the right one first.
    """
    examined, = examine(path, load_pairs())
    return {**examined.to_json(), "answers": [_answer(answer) for answer in examined.result.answers]}


def _answer(answer: Answer) -> dict[str, Any]:
    pair = answer.pair
    span = span_of_word(pair.right, pair.place)
    return {"phenomenon": pair.phenomenon, "before": pair.right[:span.start], "right": pair.right_word,
            "wrong": pair.wrong_word, "after": pair.right[span.end:],
            "scores": {name: list(preference) for name, preference in answer.preferences.items()}}
