"""Many texts as one array of code points, and their words as hashes: what rules on words compute with.

A word is a run of letters, digits and marks, with a dot and the like inside; each other visible character
is a word alone. The hash of a substring is a difference of two sums, so that words and lines of a
megabyte of text take some milliseconds.
"""

import functools
import itertools
import string
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

SPACE, VISIBLE, DIGIT, LETTER = range(4)  # classes of characters; a word has classes from DIGIT on
# An odd number, so that it has an inverse modulo 2^64.
_BASE = 0x9E3779B97F4A7C15


class Batch:
    """Texts as one array of code points, a line end after each text.

    Attributes:
      codes: uint32 [n].
      starts, ends, lengths: int64 [texts], in `codes`.
      classes: uint8 [n].
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        self.ends = np.cumsum(self.lengths + 1) - 1
        self.starts = self.ends - self.lengths
        self.codes = np.frombuffer("\n".join([*texts, ""]).encode("utf-32-le", "replace"), np.uint32)
        self.classes = tables().classes[self.codes]

    @functools.cached_property
    def hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """Sums of mixed code points times powers of the base, uint64 [n + 1]; the inverse powers, [n]."""
        powers, inverses = _powers(len(self.codes))
        sums = np.zeros(len(self.codes) + 1, np.uint64)
        np.cumsum(tables().mixed[self.codes] * powers, out=sums[1:])
        return sums, inverses

    def hash(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Hashes of substrings, wherever they stand, with the number of the text in the high bits."""
        sums, inverses = self.hashes
        return (sums[ends] - sums[starts]) * inverses[starts]

    def text_of(self, positions: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.ends, positions)

    def keyed(self, hashes: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """Keys that are equal only within one text: its number, then 44 bits of the hash."""
        return (texts.astype(np.uint64) << np.uint64(44)) | (hashes >> np.uint64(20))

    def counts(self, part: str) -> np.ndarray:
        return np.fromiter((text.count(part) for text in self.texts), np.int64, len(self.texts))

    def per_text(self, texts: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Numbers of the entries of each text, or sums of their weights: int64 [texts]."""
        return np.bincount(texts, weights, len(self.texts)).astype(np.int64)


class Words:
    """The words of all texts, and figures of each text.

    Attributes:
      starts, ends, of: int64 [words], place and text of each.
      number, proper, proper_chars, alphabetic: int64 [texts]: words; those that are no symbol, and their
        characters; those with a letter.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        inside = batch.classes >= DIGIT
        joins = np.flatnonzero(tables().joins[batch.codes[1:-1]]) + 1
        joins = joins[inside[joins - 1] & inside[joins + 1]]
        inside[joins] = True
        before = np.concatenate(([False], inside[:-1]))
        alone = (batch.classes == VISIBLE) & ~inside
        self.starts = np.flatnonzero((inside & ~before) | alone)
        after = np.concatenate((inside[1:], [False]))
        self.ends = np.flatnonzero((inside & ~after) | alone) + 1
        self.bounds = np.searchsorted(self.starts, np.append(batch.starts, len(batch.codes)))
        self.of = np.repeat(np.arange(len(batch.texts)), np.diff(self.bounds))
        self.is_proper = proper = inside[self.starts] | ~tables().symbol[batch.codes[self.starts]]
        letters = np.concatenate(([0], np.cumsum(batch.classes == LETTER)))
        self.number = batch.per_text(self.of)
        self.proper = batch.per_text(self.of[proper])
        self.proper_chars = batch.per_text(self.of[proper], (self.ends - self.starts)[proper])
        self.alphabetic = batch.per_text(self.of[letters[self.ends] > letters[self.starts]])
        self.hashes = batch.hash(self.starts, self.ends)
        self.sums = np.concatenate(([0], np.cumsum(self.ends - self.starts)))

    def different(self, wanted: Sequence[str]) -> np.ndarray:
        """How many of the wanted words each text has."""
        number = np.zeros(len(self.batch.texts), np.int64)
        short = self.ends - self.starts <= max(map(len, wanted))
        hashes, of = self.hashes[short], self.of[short]
        for word in wanted:
            number[np.unique(of[hashes == hash_of(word)])] += 1
        return number

    def runs(self, n: int, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The runs of `n` words of one text among those that begin at the words `at`.

        Returns:
          where they begin, int64 [runs], and keys of their words, uint64 [runs].
        """
        at = at[at <= len(self.starts) - n]
        at = at[self.of[at] == self.of[at + n - 1]]
        keys = _keys_of_runs(self.hashes[at + k] for k in range(n))
        return at, self.batch.keyed(keys, self.of[at])

    def proper_runs(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The runs of `n` words that are no symbols: keys, equal in all texts, and the text of each."""
        hashes, of = self.hashes[self.is_proper], self.of[self.is_proper]
        count = max(0, len(hashes) - n + 1)
        keys = _keys_of_runs(hashes[k:k + count] for k in range(n))
        inside = of[:count] == of[len(of) - count:]
        return keys[inside], of[:count][inside]

    def characters(self, at: np.ndarray, n: int) -> np.ndarray:
        """Of the runs of `n` words that begin at `at`, without what stands between the words."""
        return self.sums[at + n] - self.sums[at]


def _keys_of_runs(hashes: Iterable[np.ndarray]) -> np.ndarray:
    """Keys of runs, uint64, from the hashes of their first words, their second words and so on."""
    return functools.reduce(lambda keys, each: keys * np.uint64(_BASE) + each, hashes)


class Tables(NamedTuple):
    """By code point: class, 64 random bits, whether it ends a sentence, is a symbol, joins a word."""

    classes: np.ndarray
    mixed: np.ndarray
    terminal: np.ndarray
    symbol: np.ndarray
    joins: np.ndarray


# Marks that end a sentence, in the scripts that a Spanish text may quote; neither quotes nor "…" count.
TERMINAL = ".!?\u0589\u203c\u203d\u2047\u2048\u2049\u2e2e\u2e3c\u2e53\u2e54\u3002\uff01\uff0e\uff1f\uff61"
# What is a symbol and no word where it stands alone; as datatrove has it, "¿", "¡" and "•" are words.
# Inside a word these belong to it: "3.14", "EE.UU", "11:30", "y/o", "físico-químico".
JOINS = ".,:'’/-_@·&=#%+~"
SYMBOLS = string.punctuation + "—–“”„’«»…´∶━►、，；：（）《》「」【】〈〉％～" + TERMINAL


@functools.cache
def tables() -> Tables:
    size = sys.maxunicode + 1
    classes = np.full(size, VISIBLE, np.uint8)
    for code in itertools.chain(range(0x30000), range(0xE0000, 0xE0200)):
        character = chr(code)
        if character.isspace():
            classes[code] = SPACE
        elif character.isalpha():
            classes[code] = LETTER
        elif character.isalnum() or unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf", "Cc"):
            classes[code] = DIGIT
    codes = np.arange(1, size + 1, dtype=np.uint64) * np.uint64(_BASE)
    mixed = (codes ^ (codes >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    terminal, symbol, joins = (np.zeros(size, bool) for _ in range(3))
    joins[[ord(mark) for mark in JOINS]] = True
    terminal[[ord(mark) for mark in TERMINAL]] = True
    symbol[[ord(mark) for mark in SYMBOLS]] = True
    return Tables(classes, mixed ^ (mixed >> np.uint64(29)), terminal, symbol, joins)


_powers_made: list[np.ndarray] = []


def _powers(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers of the base modulo 2^64 and of its inverse, made once for the longest batch so far."""
    if not _powers_made or len(_powers_made[0]) < number:
        size = max(number, 1 << 21)
        _powers_made[:] = [np.cumprod(np.full(size, value, np.uint64)) for value in (
            _BASE, pow(_BASE, -1, 1 << 64))]
    return _powers_made[0][:number], _powers_made[1][:number]


@functools.cache
def hash_of(word: str) -> np.uint64:
    batch = Batch([word])
    return batch.hash(np.array([0]), np.array([len(word)]))[0]
