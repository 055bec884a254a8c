"""Minimal pairs: a right sentence and a wrong one that differ in one word; their files.

    # Lines that begin with a hash are comments.
    No sé dónde [está|esta] mi hermano.

A line is a sentence; the brackets hold the right word, then the wrong one. A file is a phenomenon, with
the name of the file. So nothing but this word can differ by mistake.
"""

import pathlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from electra_es import files
from electra_es.errors import UsageError, nearest_hint

FOLDER = pathlib.Path(__file__).parent / "spanish"
ENDING = ".txt"

_CHOICE = re.compile(r"\[([^\[\]|]+)\|([^\[\]|]+)\]")
_WORD = re.compile(r"\w+")
_EXPECTED = "expected a sentence with one [right|wrong], each a word of letters"


class Span(NamedTuple):
    """Where a word stands in a text; the end is exclusive."""

    start: int
    end: int


@dataclass(frozen=True)
class Pair:
    """A right and a wrong sentence. `place` is the number of the word that differs, counted from 0
    between spaces: unlike its characters, it stays the same when text is normalised."""

    phenomenon: str
    right: str
    wrong: str
    place: int

    @property
    def right_word(self) -> str:
        span = span_of_word(self.right, self.place)
        return self.right[span.start:span.end]

    @property
    def wrong_word(self) -> str:
        span = span_of_word(self.wrong, self.place)
        return self.wrong[span.start:span.end]


def load_pairs(path: str = "", phenomena: Sequence[str] = ()) -> list[Pair]:
    """Reads minimal pairs.

    Args:
      path: a file, or a folder of files that end in `.txt`; empty: the pairs of this package.
      phenomena: which of them; empty: all.

    Raises:
      UsageError: no such file, a line that is not a pair, no pair at all, or an unknown phenomenon.
    """
    where = path or str(FOLDER)
    paths = [where]
    if files.is_directory(where):
        paths = [files.join(where, name) for name in files.names_in(where) if name.endswith(ENDING)]
    pairs = [pair for each in paths for pair in _read(each)]
    known = list(dict.fromkeys(pair.phenomenon for pair in pairs))
    for name in phenomena:
        if name not in known:
            raise UsageError(f"--phenomenon={name}: expected one of {', '.join(known)}"
                             f"{nearest_hint(name, known)}")
    if not pairs:
        raise UsageError(f"--pairs={where}: no pairs: {_EXPECTED}, a line")
    return [pair for pair in pairs if not phenomena or pair.phenomenon in phenomena]


def _read(path: str) -> list[Pair]:
    phenomenon = pathlib.PurePosixPath(path).name.removesuffix(ENDING)
    try:
        lines = files.read_bytes(path).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8: expected UTF-8 text") from None
    return [parse_pair(line.strip(), phenomenon, f"{path}:{number}")
            for number, line in enumerate(lines, start=1)
            if line.strip() and not line.startswith("#")]


def parse_pair(line: str, phenomenon: str, where: str = "pair") -> Pair:
    """The pair of a line; UsageError, which begins with `where`, if there is none in it."""
    line = " ".join(unicodedata.normalize("NFC", line).split())
    choices = list(_CHOICE.finditer(line))
    if len(choices) != 1:
        raise UsageError(f"{where}: {line!r} has {len(choices)} brackets: {_EXPECTED}")
    choice = choices[0]
    right, wrong = choice.groups()
    before, after = line[:choice.start()], line[choice.end():]
    place = len(f"{before}x".split()) - 1
    pair = Pair(phenomenon, f"{before}{right}{after}", f"{before}{wrong}{after}", place)
    if right == wrong or (pair.right_word, pair.wrong_word) != (right, wrong):
        raise UsageError(f"{where}: [{right}|{wrong}]: {_EXPECTED}, and no letters beside the brackets")
    return pair


def span_of_word(text: str, place: int) -> Span:
    """The letters of word number `place` (between spaces), without the punctuation at it.

    Args:
      text: of any normalisation, as long as it keeps spaces.
      place: see `Pair`.
    """
    word = list(re.finditer(r"\S+", text))[place]
    letters = max(_WORD.finditer(word[0]), key=lambda found: len(found[0]), default=None)
    if letters is None:  # a normalisation left no letter of it
        return Span(word.start(), word.end())
    return Span(word.start() + letters.start(), word.start() + letters.end())
