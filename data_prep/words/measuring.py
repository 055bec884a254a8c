"""How vocabularies cut words, measured on text that they were not trained on: figures and a picture."""

import io
import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data_prep.corpus import readers
from data_prep.words import counting
from electra_es import files
from electra_es.config import TextConfig
from electra_es.errors import UsageError, import_optional
from electra_es.text import tokenizer as text

_HELD_OUT_CHARACTERS = 5_000_000


def tokens_per_word(tokenizer: text.Tokenizer, documents: Iterable[str]) -> tuple[float, float]:
    """(tokens, [UNK]) per word; a word is a run of letters and the like, or one punctuation mark.

    Raises:
      UsageError: there is not one word.
    """
    splitter = counting.word_splitter(tokenizer.config)
    words = tokens = unknown = 0
    for batch in readers.batches(documents):
        words += sum(map(len, splitter.encode_batch(batch)))
        for ids in tokenizer.encode_batch(batch):
            tokens += len(ids)
            unknown += int((ids == tokenizer.unk_id).sum())
    if not words:
        raise UsageError("there is no held-out text to measure the vocabulary on")
    return tokens / words, unknown / words


def first_documents(documents: Iterable[str], characters: int) -> list[str]:
    """The first documents, until there are more than `characters`."""
    texts, size = [], 0
    for document in documents:
        texts.append(document)
        size += len(document)
        if size > characters:
            break
    return texts


class Cutting(NamedTuple):
    """How a vocabulary cuts the words of a text; shares are of all words that occur.

    Attributes:
      tokens: per word; a punctuation mark is a word too.
      unknown: share of [UNK] per word.
      split: share of the words of letters that are cut into several tokens.
      accented_split: the same, of words with a letter that is not ASCII.
    """

    name: str
    entries: int
    tokens: float
    unknown: float
    split: float
    accented_split: float


def compare(documents: Sequence[str], tokenizers: Mapping[str, text.Tokenizer]) -> list[Cutting]:
    """Measures several vocabularies on the same text.

    Raises:
      UsageError: there is not one word of letters.
    """
    counted = counting.count_words(documents, TextConfig())
    words = [word for word in counted if word.isalpha()]
    if not words:
        raise UsageError("the text has no word of letters to compare vocabularies on")
    numbers = np.array([counted[word] for word in words], np.float64)
    accented = np.array([not word.isascii() for word in words])
    rows = []
    for name, tokenizer in tokenizers.items():
        split = np.array([len(ids) > 1 for ids in tokenizer.encode_batch(words)])
        tokens, unknown = tokens_per_word(tokenizer, documents)
        rows.append(Cutting(
            name, len(tokenizer.vocab), tokens, unknown, float(split @ numbers / numbers.sum()),
            float(split @ (numbers * accented) / max(1, (numbers * accented).sum()))))
    return rows


_COLUMNS = (("tokens", "tokens a word", "{:.3f}"), ("unknown", "[UNK]", "{:.3%}"),
            ("split", "words split", "{:.1%}"), ("accented_split", "accented words split", "{:.1%}"))


def table(rows: Sequence[Cutting]) -> list[str]:
    """The figures as lines of Markdown."""
    titles = " | ".join(title for _, title, _ in _COLUMNS)
    lines = [f"| vocabulary | entries | {titles} |", "|---" * (len(_COLUMNS) + 2) + "|"]
    for row in rows:
        cells = " | ".join(form.format(getattr(row, field)) for field, _, form in _COLUMNS)
        lines.append(f"| {row.name} | {row.entries:,} | {cells} |")
    return lines


def draw(rows: Sequence[Cutting], path: str) -> None:
    """Writes a picture: a panel for each figure, a bar for each vocabulary."""
    matplotlib = import_optional("matplotlib", "requirements.txt")
    matplotlib.use("Agg")
    pyplot = import_optional("matplotlib.pyplot", "requirements.txt")
    matplotlib.rcParams["svg.hashsalt"] = "electra-es"  # the same figures, the same bytes
    figure, panels = pyplot.subplots(1, len(_COLUMNS), figsize=(11, 0.9 + 0.4 * len(rows)), sharey=True)
    for panel, (field, title, form) in zip(panels, _COLUMNS, strict=True):
        bars = panel.barh([f"{row.name} ({row.entries:,})" for row in rows],
                          [getattr(row, field) for row in rows], color="#2563a8")
        panel.bar_label(bars, [form.format(getattr(row, field)) for row in rows], padding=2, fontsize=8)
        panel.set_title(title, fontsize=9)
        panel.set_xticks([])
        panel.margins(x=0.35)
        panel.spines[["top", "right", "bottom"]].set_visible(False)
    panels[0].invert_yaxis()
    data = io.BytesIO()
    figure.savefig(data, format=path.rpartition(".")[2], bbox_inches="tight", metadata=(
        {"Date": None} if path.endswith(".svg") else None))
    pyplot.close(figure)
    files.write_bytes(path, data.getvalue())


def log_tokens_per_word(documents: Iterable[str], tokenizer: text.Tokenizer,
                        other: text.Tokenizer | None, other_name: str) -> None:
    """Logs the figures of the vocabulary and of the one to compare it with, on the same text."""
    texts = first_documents(documents, _HELD_OUT_CHARACTERS)
    if not texts:
        logging.warning("too few documents to hold one out: tokens per word not measured")
        return
    measured = itertools.chain([("this vocabulary", tokenizer)],
                               [(other_name, other)] if other else [])
    for name, measured_tokenizer in measured:
        tokens, unknown = tokens_per_word(measured_tokenizer, texts)
        logging.info("held-out text, %d characters: %.3f tokens a word, %.3f %% unknown: %s",
                     sum(map(len, texts)), tokens, 100 * unknown, name)
