"""Token ids of documents -> training examples. Pure functions: no files, no tokeniser, no Beam.

There are two schemes. `carry_over` (default) loses no token: tokens that do not fit into an
example begin the next one. `OriginalBuilder` is the scheme of Google's
`build_pretraining_dataset.ExampleBuilder`. It drops tokens that do not fit (30 % of the
tokens at length 128, 10 % at 512 on the text of docs/data.md) and pads more.

Both divide an example into two segments as the original does: with probability 0.1 one
segment, else the first is about half; with probability 0.05 an example is shorter, of a
random length from 5 on.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

SINGLE_SEGMENT_PROBABILITY = 0.1
SHORT_EXAMPLE_PROBABILITY = 0.05
MIN_TARGET_LENGTH = 5


class Draws(Protocol):
    """The part of `random.Random` that is used."""

    def random(self) -> float: ...

    def randint(self, a: int, b: int) -> int: ...


class Segments(NamedTuple):
    """Ids of one example without special tokens; `second` is empty if there is one segment."""

    first: np.ndarray
    second: np.ndarray


class FlatExamples(NamedTuple):
    """Examples with special tokens, one after the other, as `tfrecord.encode_examples` takes them.

    Attributes:
      ids: int32 [tokens].
      ends: int64 [examples], where each ends in `ids`.
      second_segment_starts: per example, relative to its start.
    """

    ids: np.ndarray
    ends: np.ndarray
    second_segment_starts: list[int]


def carry_over(documents: Sequence[Sequence[np.ndarray]], max_length: int, sep_id: int,
               draws: Draws) -> Iterator[Segments]:
    """Cuts the stream of tokens of `documents` into examples; every token is in exactly one.

    A [SEP] separates consecutive documents, unless an example or a segment ends there.
    Segments end between sentences if possible.

    Args:
      documents: for each document the ids of its sentences (lines), each int32 [n].
      max_length: longest example, special tokens included.
      sep_id: must not occur in the sentences.
      draws: two numbers per example, and one for each sentence that crosses its middle.
    """
    tokens, sentence_ends = _stream(documents, sep_id)
    total, start, sentence = len(tokens), 0, 0
    while start < total:
        if tokens[start] == sep_id:
            start += 1
            continue
        target = _target_length(max_length, draws)
        single = draws.random() < SINGLE_SEGMENT_PROBABILITY
        while sentence_ends[sentence] <= start:
            sentence += 1
        middle = total if single else _middle(sentence_ends, sentence, start, target, draws)
        if middle < min(start + target - 3, total):
            end = min(start + target - 3, total)
        else:
            middle = end = min(start + target - 2, total)
        yield Segments(_without_last_separator(tokens[start:middle], sep_id),
                       _without_last_separator(tokens[middle:end], sep_id))
        start = end


def _stream(documents: Sequence[Sequence[np.ndarray]], sep_id: int) -> tuple[np.ndarray, list[int]]:
    """All tokens with a separator after each document but the last, and the ends of sentences."""
    separator = np.array([sep_id], np.int32)
    pieces: list[np.ndarray] = []
    lengths: list[int] = []
    for document in documents:
        sentences = [sentence for sentence in document if len(sentence)]
        if sentences:
            if pieces:
                pieces.append(separator)
                lengths[-1] += 1
            pieces.extend(sentences)
            lengths.extend(map(len, sentences))
    if not pieces:
        return np.zeros(0, np.int32), []
    return np.concatenate(pieces), np.cumsum(lengths).tolist()


def _target_length(max_length: int, draws: Draws) -> int:
    if draws.random() < SHORT_EXAMPLE_PROBABILITY:
        return draws.randint(MIN_TARGET_LENGTH, max_length)
    return max_length


def _middle(sentence_ends: list[int], sentence: int, start: int, target: int, draws: Draws) -> int:
    """Where the second segment begins: the first holds whole sentences up to half of `target`.

    The sentence that crosses half goes to the first segment half of the time; the very first one
    always does (original: `ExampleBuilder._create_example`).
    """
    half = (target - 3) // 2
    middle = sentence_ends[sentence]
    for end in sentence_ends[sentence + 1:sentence + 1 + target]:
        if end - start < half or (middle - start < half and draws.random() < 0.5):
            middle = end
        else:
            break
    return middle


def _without_last_separator(segment: np.ndarray, sep_id: int) -> np.ndarray:
    return segment[:-1] if len(segment) and segment[-1] == sep_id else segment


class OriginalBuilder:
    """Google's scheme, sentence by sentence; the same examples for the same random choices.

    Written from the behaviour of `build_pretraining_dataset.ExampleBuilder`. As there, the target
    length of the next example stays the same at the end of a document.
    """

    def __init__(self, max_length: int, draws: Draws) -> None:
        self._max_length = max_length
        self._draws = draws
        self._sentences: list[np.ndarray] = []
        self._length = 0
        self._target_length = max_length

    def documents(self, documents: Iterable[Sequence[np.ndarray]]) -> Iterator[Segments]:
        """The examples of whole documents (sentences as int32 [n] arrays)."""
        for document in documents:
            for sentence in document:
                self._sentences.append(sentence)
                self._length += len(sentence)
                if self._length >= self._target_length:
                    yield self._example()
            if self._length:
                yield self._example()

    def _example(self) -> Segments:
        if self._draws.random() < SINGLE_SEGMENT_PROBABILITY:
            first_target = 100_000
        else:
            first_target = (self._target_length - 3) // 2
        first: list[np.ndarray] = []
        second: list[np.ndarray] = []
        first_length = second_length = 0
        for sentence in self._sentences:
            # A short sentence may go to the first segment after the second has begun: then the original
            # changes the order of sentences.
            if (first_length == 0 or first_length + len(sentence) < first_target
                    or (second_length == 0 and first_length < first_target
                        and self._draws.random() < 0.5)):
                first.append(sentence)
                first_length += len(sentence)
            else:
                second.append(sentence)
                second_length += len(sentence)
        first_ids = _joined(first)[:self._max_length - 2]
        second_ids = _joined(second)[:max(0, self._max_length - len(first_ids) - 3)]
        self._sentences, self._length = [], 0
        self._target_length = _target_length(self._max_length, self._draws)
        return Segments(first_ids, second_ids)


def _joined(sentences: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(sentences) if sentences else np.zeros(0, np.int32)


def assemble(examples: Iterable[Segments], cls_id: int, sep_id: int) -> FlatExamples:
    """Adds the special tokens: [CLS] first [SEP], and second [SEP] if there is one."""
    cls, sep = np.array([cls_id], np.int32), np.array([sep_id], np.int32)
    pieces: list[np.ndarray] = []
    lengths, second_segment_starts = [], []
    for first, second in examples:
        pieces += [cls, first, sep, second, sep] if len(second) else [cls, first, sep]
        second_segment_starts.append(len(first) + 2)
        lengths.append(len(first) + 2 + (len(second) + 1 if len(second) else 0))
    ids = np.concatenate(pieces) if pieces else np.zeros(0, np.int32)
    return FlatExamples(ids, np.cumsum(lengths, dtype=np.int64), second_segment_starts)
