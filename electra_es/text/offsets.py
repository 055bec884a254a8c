"""Where in the user's own text a token stands.

The tokeniser counts bytes of the normalised text. Normalisation drops characters, composes and
decomposes them, and a lower-case letter may be longer than its capital (İ). Each step of it is
followed by itself: cut the text into segments that the step treats alone, apply the step to every
segment, and count what comes out.
"""

import functools
import itertools
import unicodedata
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf

from electra_es.config import SPECIAL_TOKENS, TextConfig
from electra_es.text.tokenizer import NormalizationStep, Tokenizer, WordPieceTokenizer

# Letters of Hangul syllables that join what stands before them; all others that do are marks (M*).
_JOINING_JAMO = range(0x1160, 0x1200)


class Placed(NamedTuple):
    """A tokenised text.

    Attributes:
      ids: int32 [n].
      spans: int32 [n, 2], first character and end (exclusive) in the text as it was given.
    """

    ids: np.ndarray
    spans: np.ndarray


def tokenize_in_place(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Placed]:
    """Tokenises Python strings; the ids are those of `Tokenizer.encode_batch`.

    A token covers all the characters that it was made of: where two of them became one, or one
    became two that stand in different tokens, those characters as a whole. Characters that the
    normalisation drops belong to a token only if they stand inside it.
    """
    if not texts:
        return []
    # "ignore": lone surrogates, which Python strings may hold, are dropped.
    data = [text.encode("utf-8", "ignore") for text in texts]
    ids, starts, ends = (part.to_list() for part in
                         tokenizer.tokenize_with_offsets(tf.constant(data, tf.string)))
    placed = []
    for row, text in enumerate(texts):
        first, last = character_map(tokenizer, text)
        spans = np.zeros((len(ids[row]), 2), np.int32)
        for i, (start, end) in enumerate(zip(starts[row], ends[row], strict=True)):
            if end > start:
                spans[i] = first[start], last[end - 1]
            else:  # SentencePiece's mark of a word's start where the text has no space.
                spans[i] = first[start] if start < len(first) else len(text)
        placed.append(Placed(np.array(ids[row], np.int32), spans))
    return placed


def find_normalizer(texts: Sequence[str], normalized: Sequence[bytes]) -> Tokenizer | None:
    """A tokeniser whose normalisation makes `normalized` of `texts`, for `character_map`; None: there is
    none. An exported model does not say how it normalises, but gives what came out.
    """
    data = tf.constant([text.encode("utf-8", "ignore") for text in texts], tf.string, [len(texts)])
    forms: tuple[Literal["NFC", "NFKC"], ...] = ("NFC", "NFKC")
    for form, lower, strip in itertools.product(forms, (False, True), (False, True)):
        tokenizer = _normalizer(TextConfig(unicode_form=form, lower_case=lower, strip_accents=strip))
        if tokenizer.normalize(data).numpy().tolist() == list(normalized):
            return tokenizer
    return None


@functools.cache
def _normalizer(config: TextConfig) -> Tokenizer:
    return WordPieceTokenizer(config, (*SPECIAL_TOKENS, "."))  # the operation wants a piece


def character_map(tokenizer: Tokenizer, text: str) -> tuple[np.ndarray, np.ndarray]:
    """For each byte of the normalised text: of which characters of `text` it was made.

    Returns:
      int32 [m] first characters, and int32 [m] ends (exclusive), for m bytes.
    """
    valid = [(i, len(c.encode("utf-8", "ignore"))) for i, c in enumerate(text)]
    first = np.repeat(np.array([i for i, _ in valid], np.int32), [size for _, size in valid])
    last = first + 1
    current = text.encode("utf-8", "ignore")
    for step in tokenizer.normalization_steps():
        after = _apply(step, [current])[0]
        if after == current:
            continue
        sizes = _segment_sizes(step, current, after)
        sources = np.cumsum([0, *(before for before, _ in sizes)])
        # The first and the last byte of the segment that each byte comes out of.
        counts = [out for _, out in sizes]
        begins = np.repeat(sources[:-1], counts)
        ends = np.repeat(sources[1:], counts) - 1
        first, last = first[begins], last[ends]
        current = after
    return first, last


def _segment_sizes(step: NormalizationStep, before: bytes, after: bytes) -> list[tuple[int, int]]:
    """Bytes of each segment before and after the step; those that do not change byte by byte."""
    text = before.decode("utf-8")
    segments = [s.encode("utf-8") for s in (text if step.by_character else _clusters(text))]
    different = list(dict.fromkeys(segments))
    become = dict(zip(different, _apply(step, different), strict=True))
    results = [become[segment] for segment in segments]
    if sum(map(len, results)) != len(after):
        # Unicode tables of Python and TensorFlow differ here: the text is one segment.
        return [(len(before), len(after))]
    return [size for segment, result in zip(segments, results, strict=True)
            for size in ([(1, 1)] * len(segment) if segment == result
                         else [(len(segment), len(result))])]


def _clusters(text: str) -> list[str]:
    """Cuts before each character that no normal form joins with what stands before it."""
    cuts = [i for i, c in enumerate(text) if i and not _joins(c)]
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _joins(character: str) -> bool:
    if character.isascii():
        return False
    first = unicodedata.normalize("NFKD", character)[0]
    # Unassigned (Cn) in Python's tables, but perhaps a mark in TensorFlow's.
    return unicodedata.category(first)[0] == "M" or ord(first) in _JOINING_JAMO or (
        unicodedata.category(first) == "Cn")


def _apply(step: NormalizationStep, texts: list[bytes]) -> list[bytes]:
    return step.apply(tf.constant(texts, tf.string, [len(texts)])).numpy().tolist()
