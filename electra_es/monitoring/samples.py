"""Samples of corrupted text: what the generator put in, and what the discriminator says of it."""

from collections.abc import Sequence
from typing import NamedTuple

from electra_es.config import SPECIAL_TOKENS
from electra_es.text.vocabulary import CONTINUATION_PREFIX, WORD_START


class SampleToken(NamedTuple):
    """A token of a sample: as it was, as the discriminator saw it, and its verdict."""

    original: str
    shown: str
    replaced_probability: float


class SamplePiece(NamedTuple):
    """A token of a sample as people read it.

    Attributes:
      original, shown: without the marks of the vocabulary (`##`, `▁`).
      follows_space: whether a space stands before it.
      is_replaced: whether the generator put in another token. Two tokens may read the same (`a` and
        `##a`).
      probability: that it is replaced, says the discriminator.
    """

    original: str
    shown: str
    follows_space: bool
    is_replaced: bool
    probability: float

    @property
    def is_special(self) -> bool:
        return self.shown in SPECIAL_TOKENS


def readable(sample: Sequence[Sequence], tokenizer: str) -> list[SamplePiece]:
    """Joins the pieces of a sample to words.

    Args:
      sample: `SampleToken`s, or what JSON makes of them.
      tokenizer: `TextConfig.tokenizer` of the run.
    """
    pieces: list[SamplePiece] = []
    for original, shown, probability in sample:
        starts_word = _starts_word(shown, tokenizer) or bool(
            pieces and pieces[-1].is_special)
        pieces.append(SamplePiece(_plain(original, tokenizer), _plain(shown, tokenizer),
                                  starts_word and bool(pieces), original != shown, probability))
    return pieces


def sample_markdown(sample: Sequence[Sequence], tokenizer: str = "wordpiece") -> str:
    """One line of Markdown: ~~original~~ **sample** where a token was replaced; behind each token
    that was replaced or is taken for it, the discriminator's probability."""
    text = ""
    for piece in readable(sample, tokenizer):
        shown = f"~~{piece.original}~~ **{piece.shown}**" if piece.is_replaced else piece.shown
        if piece.is_replaced or piece.probability > 0.5:
            shown += f" `{piece.probability:.2f}`"
        text += " " * piece.follows_space + shown
    return text


def _starts_word(piece: str, tokenizer: str) -> bool:
    if tokenizer == "sentencepiece" and piece not in SPECIAL_TOKENS:
        return piece.startswith(WORD_START)
    return not piece.startswith(CONTINUATION_PREFIX) or piece == CONTINUATION_PREFIX


def _plain(piece: str, tokenizer: str) -> str:
    """The text of a piece; a mark that stands alone is text itself."""
    mark = WORD_START if tokenizer == "sentencepiece" else CONTINUATION_PREFIX
    return piece.removeprefix(mark) or piece
