"""How many tokens a vocabulary makes of a word, measured on text that it was not trained on."""

import itertools
import logging
from collections.abc import Iterable

from data_prep.words import counting
from electra_es.errors import UsageError
from electra_es.text import tokenizer as text

_HELD_OUT_CHARACTERS = 5_000_000


def tokens_per_word(tokenizer: text.Tokenizer, documents: Iterable[str]) -> tuple[float, float]:
    """(tokens, [UNK]) per word; a word is a run of letters and the like, or one punctuation mark.

    Raises:
      UsageError: there is not one word.
    """
    splitter = counting.word_splitter(tokenizer.config)
    words = tokens = unknown = 0
    for batch in counting.batches(documents):
        words += sum(map(len, splitter.encode_batch(batch)))
        for ids in tokenizer.encode_batch(batch):
            tokens += len(ids)
            unknown += int((ids == tokenizer.unk_id).sum())
    if not words:
        raise UsageError("there is no held-out text to measure the vocabulary on")
    return tokens / words, unknown / words


def log_tokens_per_word(documents: Iterable[str], tokenizer: text.Tokenizer,
                        other: text.Tokenizer | None, other_name: str) -> None:
    """Logs the figures of the vocabulary and of the one to compare it with, on the same text."""
    texts, characters = [], 0
    for document in documents:
        texts.append(document)
        characters += len(document)
        if characters > _HELD_OUT_CHARACTERS:
            break
    if not texts:
        logging.warning("too few documents to hold one out: tokens per word not measured")
        return
    measured = itertools.chain([("this vocabulary", tokenizer)],
                               [(other_name, other)] if other else [])
    for name, measured_tokenizer in measured:
        tokens, unknown = tokens_per_word(measured_tokenizer, texts)
        logging.info("held-out text, %d characters: %.3f tokens a word, %.3f %% unknown: %s",
                     characters, tokens, 100 * unknown, name)
