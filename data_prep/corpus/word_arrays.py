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
_FIRST_WORDS = 64


class Batch:
    """Texts as one array of code points, a line end after each text.

    Attributes:
      codes: int64 [n]; NumPy looks others up half as fast.
      starts, ends, lengths: int64 [texts], in `codes`.
      classes: uint8 [n].
      marks: int64 [k], where line ends, ellipses and marks that may join a word stand.
      joins: int64, those of them that may join a word.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        self.ends = np.cumsum(self.lengths + 1) - 1
        self.starts = self.ends - self.lengths
        self.codes = np.frombuffer(
            "\n".join([*texts, ""]).encode("utf-32-le", "replace"), np.uint32).astype(np.int64)
        kinds = tables().kinds.take(self.codes)
        self.classes = kinds & _CLASS
        self.marks = np.flatnonzero(kinds > _CLASS)
        self.joins = self.marks[kinds[self.marks] & _JOINS > 0]
        self._mark_codes = self.codes[self.marks]

    @functools.cached_property
    def hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """Sums of mixed code points times powers of the base, uint64 [n + 1]; the inverse powers, [n]."""
        powers, inverses = _powers(len(self.codes))
        sums = np.zeros(len(self.codes) + 1, np.uint64)
        mixed = tables().mixed.take(self.codes)
        mixed *= powers
        np.cumsum(mixed, out=sums[1:])
        return sums, inverses

    def hash(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Hashes of substrings, wherever they stand, with the number of the text in the high bits."""
        sums, inverses = self.hashes
        found = sums.take(ends)
        found -= sums.take(starts)
        found *= inverses.take(starts)
        return found

    def text_of(self, positions: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.ends, positions)

    def keyed(self, hashes: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """Keys that are equal only within one text: its number, then 44 bits of the hash."""
        return (texts.astype(np.uint64) << np.uint64(44)) | (hashes >> np.uint64(20))

    def places(self, mark: str) -> np.ndarray:
        """Where this one of the `marks` stands: int64."""
        return self.marks[self._mark_codes == ord(mark)]

    def counts(self, mark: str) -> np.ndarray:
        return self.per_text(self.text_of(self.places(mark)))

    def per_text(self, texts: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Numbers of the entries of each text, or sums of their weights: int64 [texts]."""
        return np.bincount(texts, weights, len(self.texts)).astype(np.int64)


class Words:
    """The words of all texts, and figures of each text.

    Attributes:
      starts, ends, of: int64 [words], place and text of each.
      symbols: int64 [symbols], which words are symbols; all other words are proper ones.
      number, proper, proper_chars, alphabetic: int64 [texts]: words; those that are no symbol, and their
        characters; those with a letter.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        inside = batch.classes >= DIGIT
        # A mark at the very start has no letter before it; the last character is a line end.
        joins = batch.joins[batch.joins > 0]
        inside[joins[inside[joins - 1] & inside[joins + 1]]] = True
        alone = (batch.classes == VISIBLE) > inside  # for bool: and not
        begins, ends = inside.copy(), inside.copy()
        begins[1:] = inside[1:] > inside[:-1]
        ends[:-1] = inside[:-1] > inside[1:]
        self.starts = np.flatnonzero(begins | alone)
        self.ends = np.flatnonzero(ends | alone) + 1
        self.bounds = np.searchsorted(self.starts, np.append(batch.starts, len(batch.codes)))
        self.number = np.diff(self.bounds)
        self.of = np.repeat(np.arange(len(batch.texts)), self.number)
        self.sums = _sums(self.ends - self.starts)
        first = batch.classes.take(self.starts)
        marks = np.flatnonzero(first < DIGIT)  # of one character each
        self.symbols = marks[tables().symbol[batch.codes[self.starts[marks]]]]
        symbols = batch.per_text(self.of[self.symbols])
        self.proper = self.number - symbols
        self.proper_chars = np.diff(self.sums[self.bounds]) - symbols
        self.alphabetic = (self.number - batch.per_text(self.of[marks])
                           - batch.per_text(self.of[self._without_letter(first)]))
        self.hashes = batch.hash(self.starts, self.ends)

    def _without_letter(self, first: np.ndarray) -> np.ndarray:
        """Which words that begin with a digit or the like have no letter; `first` is the class of the
        first character of each word."""
        unsure = np.flatnonzero(first == DIGIT)
        if not len(unsure):
            return unsure
        # Every second result is of what stands between two of these words.
        edges = np.stack([self.starts[unsure], self.ends[unsure]], axis=1).ravel()
        return unsure[np.maximum.reduceat(self.batch.classes, edges)[::2] != LETTER]

    def lack(self, wanted: tuple[str, ...], number: int, texts: np.ndarray) -> np.ndarray:
        """Which of these texts have fewer than `number` of the wanted words: bool [all texts].

        Nearly every text has them among its first words, so that the others are looked at only where they
        have to be.
        """
        lacking = np.zeros(len(self.number), bool)
        lacking[texts] = True
        for most in (_FIRST_WORDS, len(self.starts)):
            texts = np.flatnonzero(lacking)
            lacking[texts] = self._different(wanted, texts, most)[texts] < number
        return lacking

    def _different(self, wanted: tuple[str, ...], texts: np.ndarray, most: int) -> np.ndarray:
        """How many of the wanted words are among the first words of each of these texts, `most` of it."""
        counts = np.minimum(self.number[texts], most)
        among = (np.repeat(self.bounds[texts] - (np.cumsum(counts) - counts), counts)
                 + np.arange(counts.sum()))
        hashes, places, shift = _looked_up(wanted)
        found = self.hashes[among]
        number = places[found >> shift]
        same = np.flatnonzero(hashes[number] == found)
        has = np.zeros((len(self.number), len(hashes)), bool)
        has[self.of[among[same]], number[same]] = True
        return has.sum(axis=1)

    def runs(self, n: int, among: np.ndarray | slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """The runs of `n` words among those words, the numbers of all words of some texts.

        Returns:
          where they begin, int64 [runs], and keys of their words, uint64 [runs], equal within one text.
        """
        hashes, of = self.hashes[among], self.of[among]
        count = max(0, len(hashes) - n + 1)
        keys = keys_of_runs(hashes[k:k + count] for k in range(n))
        inside = np.flatnonzero(of[:count] == of[len(of) - count:])
        at = inside if isinstance(among, slice) else among[inside]
        return at, self.batch.keyed(keys.take(inside), of.take(inside))

    def proper_runs(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """The runs of `n` words that are no symbols: keys, equal in all texts, and the text of each."""
        hashes, of = np.delete(self.hashes, self.symbols), np.delete(self.of, self.symbols)
        count = max(0, len(hashes) - n + 1)
        keys = keys_of_runs(hashes[k:k + count] for k in range(n))
        inside = of[:count] == of[len(of) - count:]
        return keys[inside], of[:count][inside]

    def characters(self, at: np.ndarray, n: int) -> np.ndarray:
        """Of the runs of `n` words that begin at `at`, without what stands between the words."""
        return self.sums[at + n] - self.sums[at]


def keys_of_runs(hashes: Iterable[np.ndarray]) -> np.ndarray:
    """Keys of runs, uint64, from the hashes of their first words, their second words and so on."""
    first, *others = hashes
    keys = first.copy()
    for each in others:
        keys *= np.uint64(_BASE)
        keys += each
    return keys


def _sums(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, 2, ... values: int64 [n + 1]."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


@functools.cache
def _looked_up(wanted: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.uint64]:
    """Hashes of the words, and by the first bits of a hash which of them it may be; the rest of bits."""
    hashes = np.array([hash_of(word) for word in wanted])
    bits = next(bits for bits in range(8, 24) if len(set((hashes >> np.uint64(64 - bits)).tolist()))
                == len(set(wanted)))
    places = np.zeros(1 << bits, np.uint8)
    places[hashes >> np.uint64(64 - bits)] = np.arange(len(wanted))
    return hashes, places, np.uint64(64 - bits)


# Bits of `Tables.kinds`.
_CLASS, _JOINS, _OTHER_MARK = 3, 4, 8


class Tables(NamedTuple):
    """By code point: class, class and which mark it is, 64 random bits, whether it ends a sentence, is a
    symbol."""

    classes: np.ndarray
    kinds: np.ndarray
    mixed: np.ndarray
    terminal: np.ndarray
    symbol: np.ndarray


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
    terminal, symbol = np.zeros(size, bool), np.zeros(size, bool)
    kinds = classes.copy()
    kinds[[ord(mark) for mark in JOINS]] |= _JOINS
    kinds[[ord(mark) for mark in "\n…"]] |= _OTHER_MARK
    terminal[[ord(mark) for mark in TERMINAL]] = True
    symbol[[ord(mark) for mark in SYMBOLS]] = True
    return Tables(classes, kinds, mixed ^ (mixed >> np.uint64(29)), terminal, symbol)


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
