"""Samples of corrupted text: the generator's replacements and the discriminator's verdicts."""

from collections.abc import Sequence
from typing import NamedTuple

from electra_es.config import SPECIAL_TOKENS
from electra_es.text.vocabulary import CONTINUATION_PREFIX, WORD_START


class SampleToken(NamedTuple):
    """A token of a sample: the original, the token that the discriminator saw, and its verdict."""

    original: str
    shown: str
    replaced_probability: float


class SamplePiece(NamedTuple):
    """A token of a sample as people read it.

    Attributes:
      original, shown: without the marks of the vocabulary (`##`, `▁`).
      follows_space: whether a space precedes it.
      is_replaced: whether the generator replaced the token. Two different tokens may look the same
        (`a` and `##a`).
      probability: the discriminator's probability that it is replaced.
    """

    original: str
    shown: str
    follows_space: bool
    is_replaced: bool
    probability: float

    @property
    def is_special(self) -> bool:
        return self.shown in SPECIAL_TOKENS


def readable(sample: Sequence[Sequence], kind: str) -> list[SamplePiece]:
    """Joins the pieces of a sample to words.

    Args:
      sample: `SampleToken`s, or their lists in JSON.
      kind: `TextConfig.tokenizer` of the run.
    """
    pieces: list[SamplePiece] = []
    for original, shown, probability in sample:
        starts_word = _starts_word(shown, kind) or bool(
            pieces and pieces[-1].is_special)
        pieces.append(SamplePiece(_plain(original, kind), _plain(shown, kind),
                                  starts_word and bool(pieces), original != shown, probability))
    return pieces


def sample_markdown(sample: Sequence[Sequence], kind: str = "wordpiece") -> str:
    """One line of Markdown: ~~original~~ **sample** where a token was replaced. The discriminator's
    probability follows each token that was replaced or has a probability above 0.5."""
    text = ""
    for piece in readable(sample, kind):
        shown = f"~~{piece.original}~~ **{piece.shown}**" if piece.is_replaced else piece.shown
        if piece.is_replaced or piece.probability > 0.5:
            shown += f" `{piece.probability:.2f}`"
        text += " " * piece.follows_space + shown
    return text


def _starts_word(piece: str, kind: str) -> bool:
    if kind == "sentencepiece" and piece not in SPECIAL_TOKENS:
        return piece.startswith(WORD_START)
    return not piece.startswith(CONTINUATION_PREFIX) or piece == CONTINUATION_PREFIX


def _plain(piece: str, kind: str) -> str:
    """The text of a piece without its mark; a mark without other text is text itself."""
    mark = WORD_START if kind == "sentencepiece" else CONTINUATION_PREFIX
    return piece.removeprefix(mark) or piece
