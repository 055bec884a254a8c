"""Results of the exam: which word of each pair an examinee prefers, and shares with intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from electra_es.minimal_pairs.pairs import Pair

Examinee = Literal["discriminator", "generator", "frequency"]
EXAMINEES: tuple[Examinee, ...] = get_args(Examinee)
# What people read. Counting takes the word that is more frequent in the records for the right one.
LABELS: dict[Examinee, str] = {
    "discriminator": "discriminator", "generator": "generator", "frequency": "counting"}
_Z = 1.959964  # 95 % of a normal distribution lie within so many standard deviations


class Preference(NamedTuple):
    """Log probabilities that an examinee gives to the two words of a pair.

    Both are 0 where it cannot tell them apart: the words are the same to it, or cut off.
    """

    right: float
    wrong: float

    @property
    def points(self) -> float:
        """1 for preferring the right word, 0 for the wrong one, one half for a tie."""
        return 0.5 if self.right == self.wrong else float(self.right > self.wrong)


@dataclass(frozen=True)
class Answer:
    """What the examinees say about a pair; an examinee that took no part is missing."""

    pair: Pair
    preferences: dict[Examinee, Preference]


@dataclass(frozen=True)
class Score:
    """Points of an examinee over some pairs, and their share with Wilson's interval of 95 %."""

    right: float  # a tie counts one half
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """Results over the pairs of a phenomenon, or over all; None: took no part."""

    name: str
    pairs: int
    discriminator: Score | None
    generator: Score | None
    frequency: Score | None

    def of(self, examinee: Examinee) -> Score | None:
        return {"discriminator": self.discriminator, "generator": self.generator,
                "frequency": self.frequency}[examinee]


@dataclass(frozen=True)
class ExamResult:
    """Results by phenomenon and over all pairs.

    Attributes:
      answers: for each pair, in the order of the pairs; not in the JSON form.
    """

    phenomena: tuple[Result, ...]
    all: Result
    answers: tuple[Answer, ...] = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """{"phenomena": [{"name", "pairs", "discriminator": {"right", "accuracy", "low", "high"},
        "generator": … or null, "frequency": … or null}, …], "all": {…}}"""
        return {"phenomena": [_json(result) for result in self.phenomena], "all": _json(self.all)}

    def wrong(self, examinee: Examinee) -> list[Answer]:
        """Answers without a full point, those first where it is surest of the wrong word."""
        found = [(preference.right - preference.wrong, i, answer)
                 for i, answer in enumerate(self.answers)
                 if (preference := answer.preferences.get(examinee)) and preference.points < 1]
        return [answer for _, _, answer in sorted(found, key=lambda each: each[:2])]


def summarise(answers: Sequence[Answer]) -> ExamResult:
    """Counts the points, by phenomenon in the order in which these first occur."""
    names = dict.fromkeys(answer.pair.phenomenon for answer in answers)
    return ExamResult(
        tuple(_result(name, [answer for answer in answers if answer.pair.phenomenon == name])
              for name in names),
        _result("all", answers), tuple(answers))


def collect(pairs: Sequence[Pair], **preferences: Sequence[Preference] | None) -> list[Answer]:
    """Answers from the preferences of each examinee, by its name; None: took no part."""
    taken = {name: given for name in EXAMINEES if (given := preferences.get(name)) is not None}
    return [Answer(pair, {name: given[i] for name, given in taken.items()})
            for i, pair in enumerate(pairs)]


def _result(name: str, answers: Sequence[Answer]) -> Result:
    scores: dict[Examinee, Score | None] = {}
    for examinee in EXAMINEES:
        points = [answer.preferences[examinee].points for answer in answers
                  if examinee in answer.preferences]
        scores[examinee] = score(sum(points), len(points)) if points else None
    return Result(name, len(answers), **scores)


def score(right: float, pairs: int) -> Score:
    """Wilson's interval: it stays within 0 and 1, and holds for shares near them too.

    Example:

        >>> score(45, 50)
        Score(right=45, accuracy=0.9, low=0.7863..., high=0.9565...)
    """
    share = right / pairs
    centre = (share + _Z**2 / (2 * pairs)) / (1 + _Z**2 / pairs)
    half = _Z / (1 + _Z**2 / pairs) * math.sqrt(
        share * (1 - share) / pairs + _Z**2 / (4 * pairs**2))
    return Score(right, share, max(0.0, centre - half), min(1.0, centre + half))


def _json(result: Result) -> dict[str, Any]:
    scores = {examinee: result.of(examinee) for examinee in EXAMINEES}
    return {"name": result.name, "pairs": result.pairs,
            **{name: vars(each) if each else None for name, each in scores.items()}}
