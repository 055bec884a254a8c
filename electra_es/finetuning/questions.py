"""Questions about texts: windows over the text, and answers out of logits."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from electra_es.finetuning.examples import Question
from electra_es.finetuning.features import NONE, Features
from electra_es.text.offsets import Placed, tokenize_in_place
from electra_es.text.tokenizer import Tokenizer

_TEXTS_A_CALL = 500


class Answer(NamedTuple):
    """What a model answers.

    Attributes:
      text: a part of the context as it was given.
      start: character of the context where it begins.
      score: sum of the two logits.
      null_difference: by how much the score of having no answer is higher; the question is taken
        for unanswerable if it is above a threshold.
    """

    text: str
    start: int
    score: float
    null_difference: float


def question_features(tokenizer: Tokenizer, questions: Sequence[Question], max_length: int, *,
                      stride: int = 128, max_question_length: int = 64) -> list[Features]:
    """`[CLS] question [SEP] part of the context [SEP]`, one feature a window, in order.

    The answer that is learnt is the first of `answers`. In a window that does not hold the whole
    of it, and for questions without answer, both labels are 0.

    Args:
      tokenizer: of the model.
      max_length: L.
      stride: pieces from the start of a window to that of the next one.
      max_question_length: pieces of the question that are read.

    Raises:
      ValueError: so short a window, or so long a stride, that some pieces would never be read.
    """
    if not 0 < stride <= max_length - max_question_length - 3:
        raise ValueError(f"stride={stride}: expected 1 to max_length - max_question_length - 3 = "
                         f"{max_length - max_question_length - 3}")
    features = []
    for start in range(0, len(questions), _TEXTS_A_CALL):
        some = questions[start:start + _TEXTS_A_CALL]
        contexts = list(dict.fromkeys(q.context for q in some))
        placed = dict(zip(contexts, tokenize_in_place(tokenizer, contexts), strict=True))
        asked = tokenizer.encode_batch([q.question for q in some])
        for number, (question, ids) in enumerate(zip(some, asked, strict=True), start):
            features += _windows(tokenizer, question, number, ids[:max_question_length],
                                 placed[question.context], max_length, stride)
    return features


def _windows(tokenizer: Tokenizer, question: Question, number: int, asked: np.ndarray,
             context: Placed, max_length: int, stride: int) -> list[Features]:
    offset = len(asked) + 2
    budget = max_length - offset - 1
    starts = [0]
    while starts[-1] + budget < len(context.ids):
        starts.append(starts[-1] + stride)
    answer = answer_pieces(context.spans, question)
    owners = _owners(len(context.ids), starts, budget)
    features = []
    for window, start in enumerate(starts):
        end = min(start + budget, len(context.ids))
        ids = np.concatenate([[tokenizer.cls_id], asked, [tokenizer.sep_id],
                              context.ids[start:end], [tokenizer.sep_id]]).astype(np.int32)
        segments = np.zeros(len(ids), np.int32)
        segments[offset:] = 1
        spans = np.full((len(ids), 2), NONE, np.int32)
        spans[offset:-1] = context.spans[start:end]
        max_context = np.zeros(len(ids), bool)
        max_context[offset:-1] = owners[start:end] == window
        labels = np.zeros(2, np.int32)
        if answer is not None and start <= answer[0] and answer[1] < end:
            labels[:] = answer[0] - start + offset, answer[1] - start + offset
        features.append(Features(ids, segments, number, labels, spans=spans,
                                 max_context=max_context))
    return features


def _owners(length: int, starts: Sequence[int], budget: int) -> np.ndarray:
    """int32 [length]: the window with most context around each piece, the first of equal ones.

    Context is the smaller of what is left and right of a piece, plus a hundredth of the window's
    length (the published rule), which decides between equal ones.
    """
    best = np.full(length, -np.inf)
    owners = np.zeros(length, np.int32)
    for window, start in enumerate(starts):
        end = min(start + budget, length)
        places = np.arange(start, end)
        context = np.minimum(places - start, end - 1 - places) + 0.01 * (end - start)
        better = context > best[start:end]
        best[start:end][better] = context[better]
        owners[start:end][better] = window
    return owners


def answer_pieces(spans: np.ndarray, question: Question) -> tuple[int, int] | None:
    """First and last piece that overlap the first answer; None: there is none.

    Args:
      spans: int32 [n, 2], characters of each piece of the context.
    """
    if question.is_impossible or not question.answers:
        return None
    text, start = question.answers[0]
    inside = np.flatnonzero((spans[:, 1] > start) & (spans[:, 0] < start + len(text)))
    return (int(inside[0]), int(inside[-1])) if len(inside) else None


def find_answers(questions: Sequence[Question], features: Sequence[Features],
                 starts: Sequence[np.ndarray], ends: Sequence[np.ndarray], *,
                 max_answer_length: int = 30) -> dict[str, Answer]:
    """The best answer to each question over its windows.

    An answer begins at a piece of the context that has its maximum context in this window, and has
    1 to `max_answer_length` pieces.

    Args:
      questions: what was asked.
      features: those of `question_features`, in any order.
      starts, ends: float [n or more] logits of each feature.

    Returns:
      id -> answer; an empty text with score -inf where no window allows any.
    """
    best = {number: Answer("", 0, -np.inf, np.inf) for number in range(len(questions))}
    null = np.full(len(questions), np.inf)
    for feature, start_row, end_row in zip(features, starts, ends, strict=True):
        assert feature.spans is not None and feature.max_context is not None
        null[feature.example] = min(null[feature.example], float(start_row[0]) + float(end_row[0]))
        size = len(feature)
        if not feature.max_context.any():
            continue
        inside = np.where(feature.spans[:, 0] != NONE, end_row[:size], -np.inf)
        reach = np.lib.stride_tricks.sliding_window_view(
            np.concatenate([inside, np.full(max_answer_length - 1, -np.inf)]), max_answer_length)
        scores = np.where(feature.max_context, start_row[:size] + reach.max(axis=1), -np.inf)
        first = int(np.argmax(scores))
        if scores[first] > best[feature.example].score:
            last = first + int(np.argmax(reach[first]))
            begin, end = int(feature.spans[first, 0]), int(feature.spans[last, 1])
            best[feature.example] = Answer(questions[feature.example].context[begin:end], begin,
                                           float(scores[first]), 0.0)
    return {question.id: best[i]._replace(null_difference=float(null[i] - best[i].score))
            for i, question in enumerate(questions)}


def with_threshold(answers: dict[str, Answer], threshold: float) -> dict[str, str]:
    """id -> text, empty where having no answer is better by more than `threshold`."""
    return {id: "" if answer.null_difference > threshold else answer.text
            for id, answer in answers.items()}
