"""Pieces from word counts: SentencePiece's BPE, turned into a WordPiece vocabulary or a model.

WordPiece vocabularies from BPE and counts need as few tokens (1.06 per word with 50,000 entries)
as those of WordPiece trainers, and training takes a fiftieth of the time.
"""

import io
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import sentencepiece
import tensorflow as tf

from data_prep.words.counting import ordered
from electra_es.config import SPECIAL_TOKENS, TextConfig
from electra_es.errors import UsageError
from electra_es.text.audit import audit
from electra_es.text.tokenizer import WordPieceTokenizer
from electra_es.text.vocabulary import CONTINUATION_PREFIX, WORD_START

# SentencePiece's own limit is 16 characters; "correspondientemente" has 20.
_MAX_PIECE_LENGTH = 32
# SentencePiece leaves longer lines out; its own limit is 4,192 bytes. Longer lines are cut here.
_MAX_LINE_BYTES = 1 << 20
# It also leaves out each line with one of these, which it uses itself: for a space, and for [UNK].
_RESERVED = str.maketrans({WORD_START: " ", "\u2585": " "})
# Share of additional BPE pieces, which replace pieces that are never used.
_SPARE = 0.4
_ROUNDS = 2


def train_wordpieces(words: Counter[str], config: TextConfig, character_coverage: float) -> bytes:
    """A WordPiece vocabulary: special tokens, then BPE's pieces by frequency.

    Some pieces of BPE are only steps to longer pieces, and the greedy longest match never uses them.
    They are left out, and later pieces replace them. If there are too few, "[unusedN]" fill the rest.

    Args:
      words: how often each word occurs.
      config: `vocab_size` and how text is treated.
      character_coverage: share of the characters of the text that become pieces; a word with any
        other character becomes [UNK].

    Returns:
      The bytes of `vocab.txt`: exactly `config.vocab_size` pieces. Same counts, same bytes.

    Raises:
      UsageError: no words, or more characters than the vocabulary has room for.
    """
    words = _covered_words(words, character_coverage)
    size = config.vocab_size
    # Both forms of each letter, so that no word is [UNK] because a letter only began words so far.
    characters = sorted(set(itertools.chain.from_iterable(words)))
    base = _reachable([*SPECIAL_TOKENS, *characters, *map(_continuation, characters)], config)
    if len(base) > size:
        raise UsageError(f"vocab_size={size}: the characters of the text alone need {len(base)}: "
                         "expected more, or a lower character_coverage")
    model = _train_bpe(words, int(size * (1 + _SPARE)) + 2 * len(characters))
    known = set(base)
    candidates = [piece for piece in map(_as_wordpiece, _pieces(model)) if piece not in known]
    candidates = _reachable([*base, *candidates], config)[len(base):]
    vocab = base + _used(candidates, base, words, config)[:size - len(base)]
    if len(vocab) < size:
        logging.warning("the text has only %d pieces: %d [unusedN] fill the vocabulary of %d",
                        len(vocab), size - len(vocab), size)
        vocab += [f"[unused{i}]" for i in range(size - len(vocab))]
    vocab = _frequent_first(vocab, words, config)
    return "".join(piece + "\n" for piece in vocab).encode()


def _covered_words(words: Counter[str], coverage: float) -> Counter[str]:
    """The words that consist of the most frequent characters, whose share of the text is `coverage`."""
    characters: Counter[str] = Counter()
    for word, number in words.items():
        for character in word:
            characters[character] += number
    left = characters.total() * coverage
    covered = set()
    for character, number in ordered(characters):
        if left <= 0:
            break
        covered.add(character)
        left -= number
    kept = Counter({word: number for word, number in words.items() if covered.issuperset(word)})
    if not kept:
        raise UsageError("the input has no words to train a vocabulary on")
    return kept


def _as_wordpiece(piece: str) -> str:
    if piece.startswith(WORD_START):
        return piece.removeprefix(WORD_START)
    return _continuation(piece)


def _continuation(piece: str) -> str:
    return CONTINUATION_PREFIX + piece


def _reachable(vocab: list[str], config: TextConfig) -> list[str]:
    """`vocab` without duplicates, empty pieces and pieces that no text produces."""
    vocab = [piece for piece in dict.fromkeys(vocab) if piece not in ("", CONTINUATION_PREFIX)]
    unreachable = audit(WordPieceTokenizer(config, vocab)).unreachable
    lost = {piece for pieces in unreachable.values() for piece in pieces}
    return [piece for piece in vocab if piece not in lost]


def _used(candidates: list[str], base: list[str], words: Counter[str], config: TextConfig
          ) -> list[str]:
    """The candidates in their order; those that are never the longest match in `words` come last.

    Whether a piece is used depends on the other pieces. A few rounds come close to a fixed point.
    """
    room = config.vocab_size - len(base)
    texts = tf.constant([word.encode() for word, _ in ordered(words)])
    kept = candidates
    for _ in range(_ROUNDS):
        vocab = base + kept[:room]
        ids = WordPieceTokenizer(config, vocab).tokenize(texts).flat_values.numpy()
        used = np.bincount(ids, minlength=len(vocab)) > 0
        unused = {piece for piece, is_used in zip(vocab, used, strict=True) if not is_used}
        if not unused.difference(base):
            break
        kept = [piece for piece in kept if piece not in unused]
    in_kept = set(kept)
    return kept + [piece for piece in candidates if piece not in in_kept]


def _frequent_first(vocab: list[str], words: Counter[str], config: TextConfig) -> list[str]:
    """The special tokens, then the pieces by how often they occur; ties keep their order.

    Tokenisation does not depend on the order, but ids are written as varints: small ids for
    frequent pieces save a sixth of the records.
    """
    pairs = ordered(words)
    ids = WordPieceTokenizer(config, vocab).tokenize(tf.constant([w.encode() for w, _ in pairs]))
    numbers = np.array([number for _, number in pairs], np.float64)
    occurrences = np.bincount(
        ids.flat_values.numpy(), numbers[ids.value_rowids().numpy()], minlength=len(vocab))
    special = len(SPECIAL_TOKENS)
    order = np.argsort(-occurrences[special:], kind="stable") + special
    return vocab[:special] + [vocab[i] for i in order]


def train_sentencepiece(source: Counter[str] | Iterable[str], config: TextConfig,
                        character_coverage: float) -> bytes:
    """A SentencePiece model with our special tokens as control symbols 0 to 4.

    Args:
      source: word counts, for BPE; or normalised lines, for unigram, which learns worse from counts
        than from text (1.39 tokens per word against 1.06).
      config: `vocab_size`.
      character_coverage: as for `train_wordpieces`.

    Returns:
      The bytes of `spm.model`. It does not normalise, because the tokeniser does that before.

    Raises:
      UsageError: no text, or too little text for this number of pieces.
    """
    pad, unk, cls, sep, mask = SPECIAL_TOKENS
    settings = dict(pad_id=0, unk_id=1, bos_id=2, eos_id=3, pad_piece=pad, unk_piece=unk,
                    bos_piece=cls, eos_piece=sep, control_symbols=[mask],
                    vocab_size=config.vocab_size, character_coverage=character_coverage)
    try:
        if isinstance(source, Counter):
            return _train_from_counts(source, settings)
        return _train(_usable_lines(source), settings | dict(model_type="unigram"))
    except RuntimeError as error:
        raise UsageError(f"vocab_size={config.vocab_size}: SentencePiece cannot make that of this "
                         f"text: {str(error).splitlines()[0].split('] ')[-1]}") from None


def _usable_lines(lines: Iterable[str]) -> Iterator[str]:
    """The lines, without what SentencePiece would leave a line out for; says how many it has cut."""
    number = 0
    for line in lines:
        line = line.translate(_RESERVED)
        if len(line) * 4 <= _MAX_LINE_BYTES or len(line.encode()) <= _MAX_LINE_BYTES:
            yield line
            continue
        number += 1
        longest = _MAX_LINE_BYTES // 4  # characters
        while line:
            end = line.rfind(" ", 1, longest) if len(line) > longest else len(line)
            end = end if end > 0 else longest
            yield line[:end]
            line = line[end:]
    if number:
        logging.warning("%d lines of over %d bytes: cut between words, as SentencePiece leaves longer "
                        "lines out", number, _MAX_LINE_BYTES)


def _train_bpe(words: Counter[str], size: int) -> bytes:
    """A BPE model of up to `size` pieces, fewer if there is nothing left to merge."""
    return _train_from_counts(words, dict(
        pad_id=-1, unk_id=0, bos_id=-1, eos_id=-1, vocab_size=size, hard_vocab_limit=False,
        character_coverage=1.0))


def _train_from_counts(words: Counter[str], settings: dict[str, Any]) -> bytes:
    lines = (f"{word}\t{number}" for word, number in ordered(words))
    return _train(lines, settings | dict(input_format="tsv", model_type="bpe"))


def _train(lines: Iterator[str], settings: dict[str, Any]) -> bytes:
    # From an iterator, because the model would store the path of a (temporary) file.
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, normalization_rule_name="identity",
        split_by_unicode_script=False, split_by_number=False, num_threads=4, minloglevel=2,
        max_sentencepiece_length=_MAX_PIECE_LENGTH, max_sentence_length=_MAX_LINE_BYTES, **settings)
    return model.getvalue()


def _pieces(model: bytes) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(i) for i in range(processor.get_piece_size())
            if not (processor.is_unknown(i) or processor.is_control(i))]
