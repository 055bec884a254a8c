"""The original's way from text to records, re-implemented as the peer of `benchmarks.data_prep`.

Behaviour, and the amount of work per character, of google-research/electra's
`model/tokenization.py` and `build_pretraining_dataset.py`: pure Python, one line at a time,
examples of fixed length with three features, TensorFlow's own writer. Written from their
behaviour, which the golden file `tokenization.json` pins; no line of theirs is here.
"""

import random
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

MAX_WORD_CHARACTERS = 200


class OriginalTokenizer:
    """`FullTokenizer`: clean, split at whitespace and punctuation, greedy longest match."""

    def __init__(self, vocab: Sequence[str], lower_case: bool) -> None:
        self._ids = {piece: i for i, piece in enumerate(vocab)}
        self._lower_case = lower_case

    def ids(self, text: str) -> list[int]:
        return [self._ids[piece] for word in self._words(text) for piece in self._pieces(word)]

    def _words(self, text: str) -> Iterator[str]:
        for word in _spaced(text).split():
            if self._lower_case:
                decomposed = unicodedata.normalize("NFD", word.lower())
                word = "".join(c for c in decomposed if unicodedata.category(c) != "Mn")
            yield from _at_punctuation(word)

    def _pieces(self, word: str) -> list[str]:
        if len(word) > MAX_WORD_CHARACTERS:
            return ["[UNK]"]
        pieces, start = [], 0
        while start < len(word):
            end = len(word)
            while end > start:
                piece = ("##" if start else "") + word[start:end]
                if piece in self._ids:
                    break
                end -= 1
            if end == start:
                return ["[UNK]"]
            pieces.append(piece)
            start = end
        return pieces


def _spaced(text: str) -> str:
    """Control characters dropped, whitespace to a space, spaces around CJK ideographs."""
    output = []
    for character in text:
        category = unicodedata.category(character)
        if character in "\t\n\r" or category == "Zs":
            output.append(" ")
        elif character in "\0\ufffd" or category.startswith("C"):
            continue
        elif _is_cjk(ord(character)):
            output.append(f" {character} ")
        else:
            output.append(character)
    return "".join(output)


def _is_cjk(code: int) -> bool:
    return any(first <= code <= last for first, last in (
        (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
        (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)))


def _at_punctuation(word: str) -> list[str]:
    parts: list[list[str]] = []
    joins = False
    for character in word:
        code = ord(character)
        if (33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
                or unicodedata.category(character).startswith("P")):
            parts.append([character])
            joins = False
        else:
            if not joins:
                parts.append([])
            joins = True
            parts[-1].append(character)
    return ["".join(part) for part in parts]


class OriginalExampleBuilder:
    """`ExampleBuilder`: lines in, (first segment, second segment) out; an empty line ends a document."""

    def __init__(self, tokenize: Callable[[str], list[int]], max_length: int,
                 draws: random.Random) -> None:
        self._tokenize = tokenize
        self._max_length = max_length
        self._draws = draws
        self._lines: list[list[int]] = []
        self._length = 0
        self._target = max_length

    def add_line(self, line: str) -> tuple[list[int], list[int]] | None:
        line = line.strip().replace("\n", " ")
        if not line and self._length != 0:
            return self._finish()
        ids = self._tokenize(line)
        self._lines.append(ids)
        self._length += len(ids)
        return self._finish() if self._length >= self._target else None

    def _finish(self) -> tuple[list[int], list[int]]:
        first_target = 100_000 if self._draws.random() < 0.1 else (self._target - 3) // 2
        first: list[int] = []
        second: list[int] = []
        for line in self._lines:
            fits = len(first) + len(line) < first_target
            if not first or fits or (
                    not second and len(first) < first_target and self._draws.random() < 0.5):
                first += line
            else:
                second += line
        first = first[:self._max_length - 2]
        second = second[:max(0, self._max_length - len(first) - 3)]
        self._lines, self._length, self._target = [], 0, self._max_length
        if self._draws.random() < 0.05:
            self._target = self._draws.randint(5, self._max_length)
        return first, second


def original_examples(lines: Iterable[str], builder: OriginalExampleBuilder
                      ) -> Iterator[tuple[list[int], list[int]]]:
    """All examples of one file; its end ends the last document."""
    for line in lines:
        if example := builder.add_line(line):
            yield example
    if example := builder.add_line(""):
        yield example


def original_records(segments: Iterable[tuple[list[int], list[int]]], max_length: int,
                     cls_id: int, sep_id: int) -> Iterator[bytes]:
    """Serialised examples of the original's layout, padded to `max_length`."""
    import tensorflow as tf
    for first, second in segments:
        ids = [cls_id, *first, sep_id]
        segment_ids = [0] * len(ids)
        if second:
            ids += [*second, sep_id]
            segment_ids += [1] * (len(second) + 1)
        padding = [0] * (max_length - len(ids))
        features = {"input_ids": ids + padding, "input_mask": [1] * len(ids) + padding,
                    "segment_ids": segment_ids + padding}
        yield tf.train.Example(features=tf.train.Features(feature={
            name: tf.train.Feature(int64_list=tf.train.Int64List(value=values))
            for name, values in features.items()})).SerializeToString()
