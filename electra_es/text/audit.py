"""Which entries of a vocabulary can never become an input id, and which never did.

If the tokeniser cannot produce an entry, its embedding is never trained. A vocabulary that
was built from text with accents, and is used with accents stripped, loses a seventh of its
entries so.
"""

import dataclasses
import itertools
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from electra_es.config import SPECIAL_TOKENS
from electra_es.text.tokenizer import MAX_BYTES_PER_WORD, Tokenizer
from electra_es.text.vocabulary import CONTINUATION_PREFIX, WORD_START

# An entry is tested for them in this order.
CLASSES = ("changed_by_normalisation", "split_by_pretokenizer", "too_long", "never_longest_match")

_RESERVED = re.compile(r"\[unused\d+\]|<0x[0-9A-F]{2}>|</?s>|<pad>")
# Vai letters. A letter that is not in the vocabulary is put before and after a SentencePiece piece,
# because no piece contains an unknown character.
_UNCOMMON = range(0xA500, 0xA60C)
_PREFIXES_PER_LETTER = 3


@dataclass(frozen=True)
class AuditReport:
    """What `audit` found.

    Attributes:
      vocab_size: number of entries.
      reserved: number of special tokens, "[unusedN]" and byte pieces, which text must not produce.
      unreachable: entries that no text produces, by the class of `CLASSES` that says why.
      recomposed: entries that remain reachable with stripped accents only because NFC follows (Hangul
        syllables). The original and Hugging Face keep NFD there and lose these entries too.
      min_count: an entry that occurs less often is in `unseen`.
      unseen: reachable entries that occur fewer than `min_count` times; None without counts.
      never_seen: the number of those that never occur; None without counts.
    """

    vocab_size: int
    reserved: int
    unreachable: dict[str, tuple[str, ...]]
    recomposed: tuple[str, ...] = ()
    min_count: int = 1
    unseen: tuple[str, ...] | None = None
    never_seen: int | None = None

    @property
    def num_unreachable(self) -> int:
        return sum(len(pieces) for pieces in self.unreachable.values())

    @property
    def num_accented(self) -> int:
        """How many of the unreachable entries have an accent (a combining mark after NFD)."""
        return sum(any(unicodedata.category(c) == "Mn" for c in unicodedata.normalize("NFD", piece))
                   for pieces in self.unreachable.values() for piece in pieces)

    def summary(self) -> str:
        """One line for a log."""
        line = f"vocabulary of {self.vocab_size}: {self.num_unreachable} entries unreachable"
        if self.num_unreachable:
            by_class = ", ".join(f"{name} {len(pieces)}"
                                 for name, pieces in self.unreachable.items() if pieces)
            line += f" ({by_class}; {self.num_accented} with accents)"
        if self.recomposed:
            total = self.num_unreachable + len(self.recomposed)
            line += f", {total} in tools that strip accents without recomposing"
        if self.unseen is not None:
            line += f", {self.never_seen} never seen"
            if self.min_count > 1:
                line += f", {len(self.unseen)} seen fewer than {self.min_count} times"
        return line

    def to_json(self) -> str:
        """JSON with the counts and every entry by name."""
        values = {
            "vocab_size": self.vocab_size,
            "reserved": self.reserved,
            "num_unreachable": self.num_unreachable,
            "num_accented_unreachable": self.num_accented,
            "num_unreachable_without_recomposing": self.num_unreachable + len(self.recomposed),
            "min_count": self.min_count,
            "never_seen": self.never_seen,
            "num_unseen": None if self.unseen is None else len(self.unseen),
            "unreachable": self.unreachable,
            "recomposed": self.recomposed,
            "unseen": self.unseen,
        }
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def audit(tokenizer: Tokenizer, id_counts: np.ndarray | None = None, *, min_count: int = 1
          ) -> AuditReport:
    """Tests every entry with the tokeniser, and finds those that the records do not use.

    Args:
      tokenizer: the vocabulary with the settings it is used with.
      id_counts: int [V], how often each id occurs in the records.
      min_count: entries that occur less often count as unseen.

    Raises:
      ValueError: `id_counts` has another length than the vocabulary.
    """
    vocab = tokenizer.vocab
    if id_counts is not None and id_counts.shape != (len(vocab),):
        raise ValueError(f"id_counts of shape {id_counts.shape}, but {len(vocab)} entries")
    reserved = {i for i, piece in enumerate(vocab)
                if piece in SPECIAL_TOKENS or _RESERVED.fullmatch(piece)}
    ids = [i for i in range(len(vocab)) if i not in reserved]

    classes = (_wordpiece_classes(tokenizer, ids) if tokenizer.config.tokenizer == "wordpiece"
               else _sentencepiece_classes(tokenizer, ids))
    unreachable = {name: tuple(vocab[i] for i in ids if classes.get(i) == name)
                   for name in CLASSES}
    reachable = [i for i in ids if i not in classes]
    recomposed = tuple(vocab[i] for i in reachable if tokenizer.config.strip_accents
                       and not unicodedata.is_normalized("NFD", vocab[i]))
    report = AuditReport(len(vocab), len(reserved), unreachable, recomposed, min_count)
    if id_counts is None:
        return report
    return dataclasses.replace(
        report, unseen=tuple(vocab[i] for i in reachable if id_counts[i] < min_count),
        never_seen=sum(int(id_counts[i]) == 0 for i in reachable))


def examples_by_class(report: AuditReport, number: int = 8) -> list[str]:
    """Lines for people: each class with its size and its first entries."""
    classes = dict(report.unreachable)
    if report.unseen is not None:
        classes[f"seen fewer than {report.min_count} times"] = report.unseen
    return [f"{name}: {len(pieces)}" + ("".join(f"  {p}" for p in pieces[:number]))
            for name, pieces in classes.items()]


def _wordpiece_classes(tokenizer: Tokenizer, ids: Sequence[int]) -> dict[int, str]:
    """id -> class, for the entries that no text produces.

    A piece that begins a word is the longest match for itself. A continuation needs a text before
    it. This text must not be the beginning of a longer match, and must not compose with the piece to
    one character. So the piece is tested after texts with different last letters. Each piece found
    to be reachable gives another such text, until no more pieces are found.
    """
    vocab = tokenizer.vocab
    surfaces = {i: vocab[i].removeprefix(CONTINUATION_PREFIX) if not tokenizer.word_starts[i]
                else vocab[i] for i in ids}
    initial = [i for i in ids if tokenizer.word_starts[i]]
    continuations = [i for i in ids if not tokenizer.word_starts[i]]
    classes = _probe(tokenizer, initial, surfaces, "")
    # A piece that changes, is split or is too long without a prefix stays so with any prefix.
    without_prefix = _probe(tokenizer, continuations, surfaces, "")
    classes |= {i: name for i, name in without_prefix.items() if name != "never_longest_match"}
    pending = [i for i in continuations if i not in classes]
    failures: dict[int, set[str]] = {i: set() for i in pending}
    # For each reachable piece, a text that ends with it.
    texts = {i: surfaces[i] for i in initial if i not in classes}
    tried_prefixes: set[str] = set()
    while pending and (untried := [t for t in _prefixes(tokenizer, texts) if t not in tried_prefixes]):
        for prefix in untried:
            failed = _probe(tokenizer, pending, surfaces, prefix)
            texts |= {i: prefix + surfaces[i] for i in pending if i not in failed}
            for i, name in failed.items():
                failures[i].add(name)
            pending = list(failed)
        tried_prefixes.update(untried)
    for i in pending:  # If there is no prefix at all, no word reaches a continuation.
        classes[i] = min(failures[i], key=CLASSES.index, default="never_longest_match")
    return classes


def _prefixes(tokenizer: Tokenizer, texts: dict[int, str]) -> list[str]:
    """A few of `texts` (keys: the piece that each ends with) for each last letter, the simplest first.

    If the last piece of a text is not the beginning of another piece, it cannot merge with what
    follows. Such texts come before the others.
    """
    by_surface = sorted((tokenizer.word_starts[i], tokenizer.vocab[i]) for i in texts)
    grows = {piece for (is_start, piece), (next_is_start, following) in itertools.pairwise(by_surface)
             if is_start == next_is_start and following.startswith(piece)}
    simplest = sorted(((tokenizer.vocab[i] in grows, not text.isascii(), len(text.encode()), text)
                       for i, text in texts.items() if not _stands_alone(text[-1])))
    by_last_letter: dict[str, list[str]] = {}
    for *_, text in simplest:
        if len(by_last_letter.setdefault(text[-1], [])) < _PREFIXES_PER_LETTER:
            by_last_letter[text[-1]].append(text)
    return [text for rank in itertools.zip_longest(*by_last_letter.values())
            for text in rank if text is not None]


def _stands_alone(character: str) -> bool:
    """Whether a character is always a separate word: punctuation and CJK."""
    if character.isascii():
        return not character.isalnum()
    return (unicodedata.category(character)[0] == "P"
            or unicodedata.name(character, "").startswith("CJK"))


def _probe(tokenizer: Tokenizer, ids: Sequence[int], surfaces: dict[int, str], prefix: str
           ) -> dict[int, str]:
    """Tokenises prefix + surface; returns the class of each id that is not the last token."""
    texts = _strings([prefix + surfaces[i] for i in ids])
    normalized = tokenizer.normalize(texts).numpy()
    changed = normalized != texts.numpy()
    tokens, starts, _ = tokenizer.tokenize_with_offsets(texts)
    flat, ends = tokens.flat_values.numpy(), tokens.row_splits.numpy()[1:]
    sizes = np.diff(ends, prepend=0)
    later_words = tokenizer.word_starts[flat] & (starts.flat_values.numpy() > 0)
    sums = np.append(0, np.cumsum(later_words))
    split = (sums[ends] > sums[ends - sizes]) | (sizes == 0)
    # Of a text without tokens, which is split, any token will do.
    other = np.append(flat, -1)[ends - 1] != np.array(ids)
    failed = {}
    for row in np.flatnonzero(changed | split | other).tolist():
        if changed[row]:
            failed[ids[row]] = "changed_by_normalisation"
        elif split[row]:
            failed[ids[row]] = "split_by_pretokenizer"
        else:
            too_long = len(normalized[row]) > MAX_BYTES_PER_WORD
            failed[ids[row]] = "too_long" if too_long else "never_longest_match"
    return failed


def _sentencepiece_classes(tokenizer: Tokenizer, ids: Sequence[int]) -> dict[int, str]:
    """As for WordPiece, but a piece is tested between two unknown characters.

    Merges (BPE) and best scores (unigram) inside a piece do not depend on the text around it, so one
    context is enough.
    """
    vocabulary_characters = set("".join(tokenizer.vocab))
    fence = next(chr(c) for c in _UNCOMMON if chr(c) not in vocabulary_characters)
    surfaces = [tokenizer.vocab[i].replace(WORD_START, " ") for i in ids]
    normalized = tokenizer.normalize(_strings(surfaces)).numpy()
    tokens = tokenizer.tokenize(_strings([fence + s + fence for s in surfaces])).to_list()
    classes = {}
    for row, i in enumerate(ids):
        if normalized[row] != surfaces[row].encode():
            classes[i] = "changed_by_normalisation"
        elif i not in tokens[row]:
            classes[i] = "never_longest_match"
    return classes


def _strings(texts: Sequence[str]) -> tf.Tensor:
    return tf.constant([text.encode() for text in texts], tf.string, [len(texts)])
