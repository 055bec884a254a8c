"""The exam of a detector, that is of any model that scores the tokens of sentences."""

from collections.abc import Callable, Sequence
from typing import Protocol

from electra_es.minimal_pairs.pairs import Pair, span_of_word
from electra_es.minimal_pairs.results import ExamResult, Preference, collect, summarise
from electra_es.minimal_pairs.scoring import original_log_probability


class Token(Protocol):
    """What the exam needs of `electra_es.detect.scoring.ScoredToken`."""

    @property
    def token(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def logit(self) -> float: ...


class Sentence(Protocol):
    """What the exam needs of `electra_es.detect.scoring.ScoredSentence`."""

    @property
    def text(self) -> str: ...
    @property
    def tokens(self) -> Sequence[Token]: ...
    @property
    def truncated(self) -> bool: ...


def examine_detector(detector: Callable[[Sequence[str]], Sequence[Sentence]], pairs: Sequence[Pair]
                     ) -> ExamResult:
    """Examines a discriminator, such as `load_detector` returns; generator and counting take no part.

    Args:
      detector: scores the tokens of sentences.
      pairs: see `load_pairs`.
    """
    texts = [text for pair in pairs for text in (pair.right, pair.wrong)]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # batches of similar length
    scored: dict[int, Sentence] = dict(zip(order, detector([texts[i] for i in order]), strict=True))
    return summarise(collect(pairs, discriminator=[
        _preference(scored[2 * i], scored[2 * i + 1], pair.place) for i, pair in enumerate(pairs)]))


def _preference(right: Sentence, wrong: Sentence, place: int) -> Preference:
    """As in `scoring.py`: a tie where the sentences are the same to the model, or the word is cut off."""
    logits = [_logits(sentence, place) for sentence in (right, wrong)]
    same = [token.token for token in right.tokens] == [token.token for token in wrong.tokens]
    if same or not all(logits):
        return Preference(0.0, 0.0)
    return Preference(*map(original_log_probability, logits))


def _logits(sentence: Sentence, place: int) -> list[float]:
    """Of the pieces of the word; empty if it was cut off."""
    first, last = span_of_word(sentence.text, place)
    found = [token for token in sentence.tokens if token.start < last and token.end > first]
    is_whole = not sentence.truncated or (found and found[-1].end >= last)
    return [token.logit for token in found] if is_whole else []
