"""Rules on repetition and quality, with the thresholds that FineWeb-2 publishes for Spanish.

Definitions are those of Gopher (Rae et al. 2021, table A1 and section A.1.1) and of FineWeb as
datatrove has them. The words are ours: runs of letters, digits and marks, with a dot and the like inside,
and each other visible character alone; datatrove's are spaCy's. Penedo et al. 2025, "FineWeb2", describes
how the thresholds were found.

Everything that every document needs is computed for many documents at once: one array of code
points, the hash of a word as a difference of two sums. Repeated runs of words are walked through one by
one only where a bound that is quick to compute does not exclude the rule.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.corpus.word_arrays import Batch, Words, keys_of_runs, tables

PREFIX = "quality_"
_NEW_LINE, _DOT, _ELLIPSIS = 10, ord("."), ord("…")
_MULTIPLIER = 0x9E3779B97F4A7C15
_TEXT_MULTIPLIER = 0xC2B2AE3D27D4EB4F


@dataclass(frozen=True)
class Thresholds:
    """When a document is dropped; the order is that of the rules.

    Attributes:
      duplicate_lines: share of lines that repeat an earlier one: above.
      top_runs: (n, share of characters) of the most frequent run of n words: above.
      duplicate_runs: (n, share of characters) in runs of n words that repeat an earlier one: above.
      line_punctuation: share of lines that end with a sentence: below.
      duplicate_line_characters: share of characters in repeated lines: above.
      new_lines: line ends per word: above.
      words: outside; symbols do not count.
      word_length: mean, outside.
      symbols: "#" or ellipses per word: above.
      bullets, ellipsis_lines: share of lines that begin with a bullet, end with an ellipsis: above.
      alphabetic_words: share of words with a letter: below.
      stop_words: of which two different ones are needed.
    """

    duplicate_lines: float
    top_runs: tuple[tuple[int, float], ...]
    duplicate_runs: tuple[tuple[int, float], ...]
    line_punctuation: float
    duplicate_line_characters: float
    new_lines: float
    words: tuple[int, int]
    word_length: tuple[float, float]
    symbols: float
    bullets: float
    ellipsis_lines: float
    alphabetic_words: float
    stop_words: tuple[str, ...]


# The file for spa_Latn in FineWeb-2's repository, and Gopher's values where it has none.
THRESHOLDS = {"fineweb2_es": Thresholds(
    duplicate_lines=0.252,
    top_runs=((2, 0.156), (3, 0.14), (4, 0.125)),
    duplicate_runs=((5, 0.145), (6, 0.136), (7, 0.127), (8, 0.117), (9, 0.108), (10, 0.099)),
    line_punctuation=0.182, duplicate_line_characters=0.1, new_lines=0.138,
    words=(50, 100_000), word_length=(3, 14), symbols=0.1, bullets=0.9, ellipsis_lines=0.3,
    alphabetic_words=0.825,
    stop_words=("de", "la", "en", "el", "y", "a", "que", "del", "los", "se", "por", "un", "con", "una",
                "las", "su"))}


def reasons(texts: Sequence[str], thresholds: Thresholds) -> list[str | None]:
    """For each text the first rule that drops it, or None; give it about 256 KB of text a call."""
    if not texts:
        return []
    batch = Batch(texts)
    words = Words(batch)
    lines = _Lines(batch, words)
    chars = np.maximum(batch.lengths, 1)
    t = thresholds
    found: list[str | None] = [None] * len(texts)
    kept = np.ones(len(texts), bool)  # so far

    def drop(name: str, dropped: np.ndarray) -> None:
        for i in np.flatnonzero(dropped & kept):
            found[i] = PREFIX + name
        kept[dropped] = False

    drop("duplicate_lines", lines.repeated / np.maximum(lines.number, 1) > t.duplicate_lines)
    for name, dropped in _repeated_runs(words, kept, t):
        drop(name, dropped)
    drop("line_punctuation", lines.ending / np.maximum(lines.visible, 1) < t.line_punctuation)
    without_line_ends = np.maximum(chars - lines.line_ends, 1)
    drop("duplicate_line_characters",
         lines.repeated_chars / without_line_ends > t.duplicate_line_characters)
    number = np.maximum(words.number, 1)
    drop("new_lines", lines.line_ends / number > t.new_lines)
    drop("few_words", words.proper < t.words[0])
    drop("many_words", words.proper > t.words[1])
    length = words.proper_chars / np.maximum(words.proper, 1)
    drop("word_length", (length < t.word_length[0]) | (length > t.word_length[1]))
    drop("hashes", batch.counts("#") / number > t.symbols)
    drop("ellipses", (_three_dots(batch) + batch.counts("…")) / number > t.symbols)
    drop("bullets", lines.bullets / np.maximum(lines.all, 1) > t.bullets)
    drop("ellipsis_lines", lines.ellipses / np.maximum(lines.all, 1) > t.ellipsis_lines)
    drop("alphabetic_words", words.alphabetic / number < t.alphabetic_words)
    drop("stop_words", words.lack(t.stop_words, 2, np.flatnonzero(kept)))
    return found


class _Lines:
    """Figures of the lines of each text, int64 [texts].

    Attributes:
      number, repeated: lines that are not empty; those that repeat an earlier one.
      visible, repeated_chars, ending: lines with something visible; characters of those that repeat an
        earlier one; those that end with a terminal mark.
      all, bullets, ellipses: all lines; those that begin with a bullet; that end with an ellipsis.
      line_ends: inside the text.
    """

    def __init__(self, batch: Batch, words: Words) -> None:
        ends = batch.places("\n")
        starts = np.concatenate(([0], ends[:-1] + 1))
        of = batch.text_of(starts)
        self.line_ends = batch.per_text(of) - 1
        # The last line of a text is none if it is empty, as after a line end.
        exists = (ends < batch.ends[of]) | (ends > starts)
        self.all = batch.per_text(of[exists])
        full = ends > starts
        starts, ends, of = starts[full], ends[full], of[full]
        keys = batch.keyed(batch.hash(starts, ends), of)
        repeats, _ = _repeats(keys)
        # Splitting at line ends makes an empty line of one at the start or the end of a text.
        first = batch.codes[batch.starts] == _NEW_LINE
        last = (batch.codes[np.maximum(batch.ends - 1, 0)] == _NEW_LINE) & (batch.lengths > 0)
        edges = first.astype(np.int64) + last
        self.number = batch.per_text(of) + edges
        self.repeated = batch.per_text(of[repeats]) + (edges == 2)
        # Whatever can be seen is in a word, and no word goes beyond its line.
        begin = np.append(words.starts, len(batch.codes))[np.searchsorted(words.starts, starts)]
        seen = begin < ends
        self.visible = batch.per_text(of[seen])
        counted = repeats & seen
        self.repeated_chars = batch.per_text(of[counted], (ends - starts)[counted])
        self.ending = batch.per_text(of[seen & tables().terminal[batch.codes[ends - 1]]])
        starts, ends, of, begin = starts[seen], ends[seen], of[seen], begin[seen]
        self.bullets = batch.per_text(of[np.isin(batch.codes[begin], (ord("•"), ord("-")))])
        tail = words.ends[np.searchsorted(words.starts, ends) - 1] - 1
        dots = batch.codes[tail] == _DOT
        for back in (1, 2):
            dots &= (tail - back >= starts) & (batch.codes[np.maximum(tail - back, 0)] == _DOT)
        self.ellipses = batch.per_text(of[dots | (batch.codes[tail] == _ELLIPSIS)])


def _three_dots(batch: Batch) -> np.ndarray:
    """How often each text has "...": int64 [texts]; a longer row of dots has it several times."""
    dots = batch.places(".")
    first = np.flatnonzero(np.diff(dots, prepend=-2) > 1)
    return batch.per_text(batch.text_of(dots[first]), np.diff(np.append(first, len(dots))) // 3)


def _repeated_runs(words: Words, kept: np.ndarray, t: Thresholds) -> Iterator[tuple[str, np.ndarray]]:
    """(rule, which texts it drops) for the rules on runs of words; what takes long is done only for texts
    that a bound does not exclude.

    Args:
      kept: bool [texts], which the caller takes every dropped text out of: it is not looked at again.
    """
    chars = np.maximum(words.batch.lengths, 1)
    texts = kept & _repeat_pairs(words, chars, t)
    for n, share in t.top_runs:
        texts &= kept
        at, keys = words.runs(n, np.flatnonzero(texts[words.of]))
        suspicious = (_characters_at_most(words, n, at, keys) > share * chars)[words.of[at]]
        most_frequent = _top_characters(words, n, at[suspicious], keys[suspicious])
        yield f"top_{n}_words", most_frequent > share * chars
    texts = kept.copy()
    for i, (n, share) in enumerate(t.duplicate_runs):
        at, keys = words.runs(n, np.flatnonzero(texts[words.of]))
        repeats, shared = _repeats(keys)
        covered = _characters_covered(words, n, at[repeats])
        repeated = np.zeros(len(chars), np.int64)
        for text in np.flatnonzero(covered > share * chars):
            of = slice(*np.searchsorted(at, words.bounds[text:text + 2]))
            repeated[text] = _repeated_characters(
                at[of][shared[of]], keys[of][shared[of]], words, n)
        yield f"duplicate_{n}_words", repeated > share * chars
        # A run that repeats an earlier one consists of shorter ones that do.
        texts = kept & (covered > min(share for _, share in t.duplicate_runs[i:]) * chars)


def _repeat_pairs(words: Words, chars: np.ndarray, t: Thresholds) -> np.ndarray:
    """Which texts may have too many of a run of n words: those with many of a pair of words.

    The run consists of n / 2 pairs, and each of them is there as often; the spaces between pairs are at
    most a third of each. Pairs of the last word of a text and the first of the next are left in: a bound
    may be too high.
    """
    count = max(0, len(words.starts) - 1)
    keys = keys_of_runs([words.hashes[:count], words.hashes[1:]])
    keys += words.of[:count].view(np.uint64) * np.uint64(_TEXT_MULTIPLIER)
    characters = words.sums[2:] - words.sums[:-2] + 1
    most = _most_characters(characters, words.of[:count], keys, len(chars))
    suspects = np.zeros(len(chars), bool)
    for n, share in t.top_runs:
        pairs = -(-n // 2)
        suspects |= most * (pairs + max(0, n - 1 - pairs) / 3) > share * chars
    return suspects


def _characters_at_most(words: Words, n: int, at: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """How many characters any of the runs at `at` has in its text at most, all times together, with one
    space between words: int64 [texts]."""
    return _most_characters(words.characters(at, n) + n - 1, words.of[at], keys, len(words.number))


def _most_characters(characters: np.ndarray, of: np.ndarray, keys: np.ndarray, texts: int) -> np.ndarray:
    """The largest product of a run's characters and how often its key is there, or more: int64 [texts].

    Keys are counted in buckets, where another key may count too.
    """
    most = np.zeros(texts, np.int64)
    if len(keys):
        buckets = _buckets(keys)
        characters = characters * np.bincount(buckets).take(buckets)
        first = np.flatnonzero(np.diff(of, prepend=-1))
        most[of[first]] = np.maximum.reduceat(characters, first)
    return most


def _top_characters(words: Words, n: int, at: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Characters of the most frequent run of `n` words, all times together; of equally frequent ones the
    first. `at`, `keys`: all runs of the texts that are asked for; 0 for others."""
    found = np.zeros(len(words.number), np.int64)
    if not len(at):
        return found
    order = np.argsort(keys, kind="stable")
    begins = np.flatnonzero(np.append(True, keys[order[1:]] != keys[order[:-1]]))
    counts, firsts = np.diff(np.append(begins, len(order))), at[order[begins]]
    best = np.lexsort((firsts, -counts, words.of[firsts]))
    texts, chosen = np.unique(words.of[firsts[best]], return_index=True)
    best = best[chosen]
    found[texts] = (words.characters(firsts[best], n) + n - 1) * counts[best]
    return found


def _characters_covered(words: Words, n: int, at: np.ndarray) -> np.ndarray:
    """Characters of each text that are in the runs that begin at `at`, each once."""
    covered = np.zeros(len(words.starts), bool)
    for k in range(n):
        covered[at + k] = True
    found = np.flatnonzero(covered)
    return words.batch.per_text(words.of[found], (words.ends - words.starts)[found])


def _repeated_characters(at: np.ndarray, keys: np.ndarray, words: Words, n: int) -> int:
    """Characters in runs of `n` words that repeat an earlier one; runs that are counted do not overlap,
    and what they cover counts for no earlier run."""
    seen, characters, free = set(), 0, 0
    for place, key, size in zip(at.tolist(), keys.tolist(), words.characters(at, n).tolist(),
                                strict=True):
        if place < free:
            continue
        if key in seen:
            characters += size
            free = place + n
        else:
            seen.add(key)
    return characters


def _repeats(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which keys are equal to an earlier one, and which are equal to any other one: both bool [keys].

    Each key goes to a bucket, whose first key is noted. Equal to it: a repeat. Another one: the same
    with other buckets, for the few that are left. That takes a third of the time of sorting.
    """
    again, shared = np.zeros(len(keys), bool), np.zeros(len(keys), bool)
    left, seed = np.arange(len(keys), dtype=np.int32), 0  # half as many bytes to look up
    while len(left):
        of_left = keys.take(left)
        buckets, seed = _buckets(of_left, seed), seed + 1
        first = np.empty(_size_of(len(left)), np.int32)
        first[buckets[::-1]] = left[::-1]  # of several the last that is written stays
        noted = first.take(buckets)
        same = keys.take(noted) == of_left
        repeats = np.flatnonzero(same & (noted != left))
        again[left[repeats]] = shared[left[repeats]] = shared[noted[repeats]] = True
        left = left[~same]
    return again, shared


def _buckets(keys: np.ndarray, seed: int = 0) -> np.ndarray:
    """A number below `_size_of(len(keys))` for each key: int64 [keys]."""
    bits = _size_of(len(keys)).bit_length() - 1
    return ((keys * np.uint64(_MULTIPLIER + 2 * seed)) >> np.uint64(64 - bits)).view(np.int64)


def _size_of(number: int) -> int:
    """How many buckets keep most of so many keys apart: a power of two."""
    return 1 << max(4, (4 * number).bit_length())
