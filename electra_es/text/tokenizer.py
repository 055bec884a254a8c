"""Text to ids: the one normalisation and the two kinds of tokeniser.

This is the only file of the project that lower-cases, strips accents or applies
a Unicode normal form. Everything runs as TensorFlow operations, so that the builder
of the records, fine-tuning and a SavedModel share the same code.
"""

import functools
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from electra_es.config import SPECIAL_TOKENS, TextConfig
from electra_es.errors import UsageError, quiet_libraries
from electra_es.text.vocabulary import (
    CONTINUATION_PREFIX,
    VOCAB_FILES,
    WORD_START,
    load_vocabulary,
    parse_vocab,
    special_ids,
    vocab_path,
)

# The original gives up on words of more than 200 characters; the operation counts bytes. The two
# agree for ASCII; a word of 101 to 200 two-byte letters is [UNK] here and pieces there.
MAX_BYTES_PER_WORD = 200

# All characters outside the listed categories are in C*: controls, format characters, private use and
# unassigned code points, for which RE2 has no \p{Cn}. Tab, line feed and carriage return are whitespace;
# VT, FF and NEL are dropped, as in the original (`tokenization._clean_text`).
DROPPED = r"[^\t\n\r\p{L}\p{M}\p{N}\p{P}\p{S}\p{Z}]|\x{FFFD}"
# Tab, LF, CR and category Z* without the plain space: to replace it by itself would take longer than
# the rest of the normalisation.
_WHITESPACE = (
    r"[\t\n\r\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]")

# Latin letters, punctuation and currencies: no combining marks. Of these, printable ASCII never changes
# where neither case nor accents do.
_COMMON = (range(0x20, 0x300), range(0x2010, 0x2028), range(0x2030, 0x205F), range(0x20A0, 0x20C0))


def load_tokenizer(vocab_dir: str | os.PathLike) -> "Tokenizer":
    """The tokeniser of a vocabulary directory (or of a model directory, which has a copy of it).

    Raises:
      UsageError: as for `load_text_config`.

    Example, after `make demo`:

        >>> import tensorflow as tf
        >>> from electra_es import load_tokenizer
        >>> tokenizer = load_tokenizer("runs/sample/vocabulary")
        >>> len(tokenizer.vocab)
        2000
        >>> ids = tokenizer.tokenize(tf.constant(["El niño comió piña."])).to_list()[0]
        >>> [tokenizer.vocab[i] for i in ids]
        ['El', 'ni', '##ño', 'com', '##ió', 'pi', '##ña', '.']
    """
    config, data = load_vocabulary(vocab_dir)
    return make_tokenizer(data, config, vocab_path(vocab_dir, config))


def make_tokenizer(data: bytes, config: TextConfig, path: str = "vocabulary") -> "Tokenizer":
    """The tokeniser of the bytes of a vocabulary file; `path` is for messages only.

    Raises:
      UsageError: a malformed vocabulary, or one without the special tokens.
    """
    vocab = parse_vocab(data, config.tokenizer, path)
    if config.tokenizer == "sentencepiece":
        return SentencePieceTokenizer(config, vocab, data)
    try:
        return WordPieceTokenizer(config, vocab)
    except RuntimeError as error:  # Nothing but special tokens, say.
        raise UsageError(f"{path}: {error}") from None


class NormalizationStep(NamedTuple):
    """One operation of the normalisation, on a string tensor of any shape.

    Attributes:
      apply: the operation.
      by_character: whether each character becomes what it does wherever it stands (but for its
        shape at the end of a word); normal forms look at sequences of characters instead.
    """

    apply: Callable[[tf.Tensor], tf.Tensor]
    by_character: bool = True


class Tokenizer(tf.Module):
    """Normalised text to ids; the common part of both kinds.

    Attributes:
      config: the `TextConfig` that is obeyed.
      vocab: pieces by id.
      pad_id, unk_id, cls_id, sep_id, mask_id: ids of the special tokens. Text never becomes one of
        them, except unk_id: a literal "[SEP]" stays brackets and letters.
      word_starts: bool [V], whether a piece begins a word; true for the special tokens.
    """

    vocab: list[str]

    def __init__(self, config: TextConfig, vocab: Sequence[str], word_starts: np.ndarray,
                 pieces: tf_text.TokenizerWithOffsets) -> None:
        super().__init__()
        self._pieces = pieces
        self.config = config
        # Past tf.Module's __setattr__, which would wrap each of the entries as something to save.
        object.__setattr__(self, "vocab", list(vocab))
        ids = special_ids(self.vocab, VOCAB_FILES[config.tokenizer])
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            ids[token] for token in SPECIAL_TOKENS)
        word_starts[list(ids.values())] = True
        self.word_starts = word_starts

    def normalize(self, texts: tf.Tensor) -> tf.Tensor:
        """Normalises UTF-8 strings as `config` says.

        In this order: drop category C* and U+FFFD (and bytes that are not UTF-8); every whitespace
        character becomes a space; lower-case; strip accents (NFD, drop Mn); normal form. With NFKC
        that form is applied before lower-casing too, as it makes letters of symbols.

        Unicode tables are those inside TensorFlow and tensorflow-text, not the running Python's:
        code points assigned after Python's version are kept where the original drops them.

        Args:
          texts: string tensor of any shape.

        Returns:
          A string tensor of the same shape.
        """
        # Bad bytes first: the other operations pass them on, or turn them into U+FFFD.
        return self._normalize_valid(
            tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="ignore"))

    def _normalize_valid(self, texts: tf.Tensor) -> tf.Tensor:
        """`normalize` for valid UTF-8; checking that takes as long as everything else."""
        for step in self.normalization_steps():
            texts = step.apply(texts)
        return texts

    def normalization_steps(self) -> tuple[NormalizationStep, ...]:
        """What `normalize` does to UTF-8, in order; `offsets.py` follows characters through it."""
        form = self.config.unicode_form
        compose = NormalizationStep(
            lambda texts: tf_text.normalize_utf8(texts, form), by_character=False)
        steps = [
            NormalizationStep(lambda texts: tf.strings.regex_replace(texts, DROPPED, "")),
            NormalizationStep(lambda texts: tf.strings.regex_replace(texts, _WHITESPACE, " ")),
            *([compose] if form == "NFKC" else []),
        ]
        if self.config.lower_case:
            steps.append(NormalizationStep(_lower))
        if self.config.strip_accents:
            steps += [
                NormalizationStep(lambda texts: tf_text.normalize_utf8(texts, "NFD"),
                                  by_character=False),
                # Not by character: a letter that loses its accent was made of both.
                NormalizationStep(lambda texts: tf.strings.regex_replace(texts, r"\p{Mn}", ""),
                                  by_character=False),
            ]
        return (*steps, compose)

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Normalises and tokenises; no special token is added.

        Args:
          texts: string [B].

        Returns:
          int32 [B, None].
        """
        return self._pieces.tokenize(self.normalize(texts))

    def tokenize_with_offsets(self, texts: tf.Tensor) -> tuple[tf.RaggedTensor, ...]:
        """Like `tokenize`, with each token's place in the *normalised* text.

        Returns:
          ids int32, starts int64, ends int64, each [B, None]; byte offsets, ends exclusive.
        """
        return self._pieces.tokenize_with_offsets(self.normalize(texts))

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of `tokenize`, for Python strings; give it about 1 MB of text a call.

        Returns:
          One int32 [n] array per text: views of one buffer, which lives as long as any of them.
        """
        if not texts:
            return []
        # "ignore": lone surrogates, which Python strings may hold, are of category C* as well.
        data = [text.encode("utf-8", "ignore") for text in texts]
        rows = self._rows_to_normalize(data)
        normalized = self._normalize_valid(
            tf.constant([data[row] for row in rows], tf.string, shape=[len(rows)]))
        for row, text in zip(rows, normalized.numpy(), strict=True):
            data[row] = text
        ids = self._pieces.tokenize(tf.constant(data, tf.string, shape=[len(data)]))
        # Plain slices: np.split takes five times as long, a twentieth of the whole builder's time.
        values, splits = ids.flat_values.numpy(), ids.row_splits.numpy().tolist()
        return [values[start:end] for start, end in itertools.pairwise(splits)]

    def _rows_to_normalize(self, texts: Sequence[bytes]) -> list[int]:
        """Which texts normalisation may change: few, where it neither lower-cases nor strips accents."""
        if self.config.lower_case or self.config.strip_accents:
            return list(range(len(texts)))
        data = np.frombuffer(b"".join(texts), np.uint8)
        places, codes = _code_points(data)
        ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
        changing = places[self._changes.take(codes, mode="clip")]
        return np.unique(np.searchsorted(ends, changing, side="right")).tolist()

    @functools.cached_property
    def _changes(self) -> np.ndarray:
        """By code point, whether a text with it may change: bool; the last entry is that of all others.

        Of `_COMMON` no character composes with one before it. So a text of those changes only if one of
        them changes alone.
        """
        codes = [code for codes in _COMMON for code in codes]
        texts = tf.constant([chr(code).encode() for code in codes])
        changes = np.ones(max(codes) + 2, bool)
        changes[codes] = (self._normalize_valid(texts) != texts).numpy()
        return changes


class WordPieceTokenizer(Tokenizer):
    """Whitespace and punctuation, then the greedy longest match, as BERT's and the original's.

    It is the second half of `tf_text.FastBertTokenizer`; the first half, its normaliser, would
    find nothing to do after ours and costs a fifth of the time.
    """

    def __init__(self, config: TextConfig, vocab: Sequence[str]) -> None:
        word_starts = [not piece.startswith(CONTINUATION_PREFIX) or piece == CONTINUATION_PREFIX
                       for piece in vocab]
        # The operation would match a piece with a space across words; "[7]" it never matches.
        pieces = [f"[{i}]" if " " in piece else piece for i, piece in enumerate(vocab)]
        super().__init__(config, vocab, np.array(word_starts), tf_text.FastWordpieceTokenizer(
            pieces, CONTINUATION_PREFIX, MAX_BYTES_PER_WORD, tf.int32, SPECIAL_TOKENS[1]))


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model (BPE or unigram); whitespace is part of the pieces."""

    def __init__(self, config: TextConfig, vocab: Sequence[str], model: bytes) -> None:
        word_starts = np.array([piece.startswith(WORD_START) for piece in vocab])
        with quiet_libraries():  # the operation logs that the model has no normalisation of its own
            pieces = tf_text.SentencepieceTokenizer(model, out_type=tf.int32)
        super().__init__(config, vocab, word_starts, pieces)


def _code_points(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the characters of UTF-8 stand that are no printable ASCII, and what they are: int64 [n] each.

    Args:
      data: uint8 [bytes], valid UTF-8.
    """
    places = np.flatnonzero((data < 0x20) | (data == 0x7F) | (data >= 0xC0))
    first = data[places].astype(np.int64)
    second, third = (data.take(places + k, mode="clip").astype(np.int64) & 0x3F for k in (1, 2))
    codes = np.select(
        [first < 0x80, first < 0xE0, first < 0xF0],
        [first, (first & 0x1F) << 6 | second, (first & 0x0F) << 12 | second << 6 | third],
        sys.maxunicode)  # four bytes: any of them
    return places, codes


def _lower(texts: tf.Tensor) -> tf.Tensor:
    """Python's `str.lower`, final sigma included, but for the versions of the Unicode tables.

    ICU takes the locale of the process. ASCII goes first, so that a Turkish locale does not make
    a dotless i of every I; what is left is İ (Turkish, Azeri) and ÌÍĨ (Lithuanian locale).
    """
    return tf.strings.lower(tf.strings.lower(texts), encoding="utf-8")
