r"""Trains a vocabulary, or makes a vocabulary directory from an existing vocab.txt.

    python -m data_prep.train_vocabulary --input='corpus/*.jsonl.gz' --output=vocabulary \
        --vocab_size=50000 --sample_fraction=0.1 --workers=8
    python -m data_prep.train_vocabulary --counts=counts.tsv --output=vocabulary --vocab_size=50000
    python -m data_prep.train_vocabulary --input='corpus/*.txt' --output=vocabulary \
        --tokenizer=sentencepiece --model_type=unigram
    python -m data_prep.train_vocabulary --from_vocab=vocab.txt --output=vocabulary --strip_accents

A sample of 5 to 10 GB of text is enough. For corpora that need a Beam job, `--counts` reads the output
of `data_prep.count_words`. The same input and settings give the same bytes.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from typing import Literal

import tensorflow as tf
from absl import flags

from data_prep.build import tasks as pipeline_tasks
from data_prep.command_line import MAX_BAD_FRACTION, MOST_BAD, SAMPLED, WORKERS, prepare_tool
from data_prep.corpus import listing, readers
from data_prep.corpus.counts import InputCounts
from data_prep.outputs import check_apart
from data_prep.words import counting, measuring, wordpieces
from electra_es import files
from electra_es.config import TextConfig
from electra_es.errors import CheckFailed, UsageError, run_main
from electra_es.flags import (
    command_line_settings,
    define,
    define_config_flags,
    parse_flags_only,
    refuse_flags,
    refuse_unused,
)
from electra_es.settings import PATH, PATHS, Range, check
from electra_es.text import tokenizer as text
from electra_es.text import vocabulary
from electra_es.text.audit import audit, examples_by_class

MODEL_TYPES = ("bpe", "unigram")
CHARACTER_COVERAGE = 0.99995
COVERAGE = Range(above=0, high=1, why="without a character there is no piece")
# A piece that is seen less often than this gets hardly any training.
WORDS_PER_ENTRY = 10
# Held out of the text to measure the vocabulary, if there is no other text for that.
HELD_OUT_FRACTION = 0.01


def train_vocabulary(source: str | Iterable[str], output_dir: str | os.PathLike, config: TextConfig,
                     *, counts: str = "", held_out: str | Iterable[str] = "",
                     model_type: str = "bpe", character_coverage: float = CHARACTER_COVERAGE,
                     sample_fraction: float = 1.0, compare_vocab: str = "", workers: int = 1,
                     max_bad_fraction: float = MAX_BAD_FRACTION, overwrite: bool = False
                     ) -> str | os.PathLike:
    """Trains a vocabulary directory and reports its tokens per word.

    Args:
      source: glob of corpus files, or documents; not used for training when `counts` is given.
      output_dir: the vocabulary directory to make.
      config: kind and size of the vocabulary, and how text is treated.
      counts: file of word counts, made with the same text settings.
      held_out: glob or documents to measure the vocabulary on. Without them, 1 % of the documents of
        `source` are not used for training but for this.
      model_type: for SentencePiece: "bpe" (from word counts) or "unigram" (from lines).
      character_coverage: share of the characters of the text that get pieces.
      sample_fraction: share of the documents used, chosen by content hash.
      compare_vocab: another vocab.txt, or a vocabulary directory, to measure too.
      workers: processes that count words, if `source` is a glob; 0: one per core.
      max_bad_fraction: most of `source` that may be unreadable, by documents and by bytes.

    Returns:
      `output_dir`.

    Raises:
      UsageError: wrong settings, no usable text, too much that cannot be read, or a vocabulary in
        `output_dir` already.
      CheckFailed: an entry is unreachable, see `audit`.
    """
    _check_settings(config, model_type, character_coverage, sample_fraction, counts)
    if compare_vocab and counts and not held_out:
        raise UsageError(f"compare_vocab={compare_vocab}: with counts, held_out text is needed too")
    check("workers", workers, int, WORKERS)
    check("max_bad_fraction", max_bad_fraction, float, MOST_BAD)
    check_output(output_dir, overwrite)
    inputs = {name: globs for name, globs in (("input", source), ("held_out_input", held_out))
              if isinstance(globs, str)}
    check_apart(f"output={output_dir}", [
        files.join(os.fspath(output_dir), name)
        for name in (vocabulary.TEXT_CONFIG_FILE, *vocabulary.VOCAB_FILES.values())], **inputs)
    if held_out and isinstance(held_out, str):
        listing.list_files(held_out)  # Now, and not after the training, if there are none.
    if not isinstance(source, str):
        source = list(source)
    held_out_fraction = 0.0 if held_out or counts else HELD_OUT_FRACTION
    other = load_other(compare_vocab, config) if compare_vocab else None
    data = _train(source, counts, config, model_type, character_coverage, sample_fraction,
                  held_out_fraction, workers, max_bad_fraction)
    tokenizer = text.make_tokenizer(data, config)
    report = audit(tokenizer)
    logging.info("%s", report.summary())
    if report.num_unreachable:
        raise CheckFailed("trained entries that no text becomes, so nothing is written: "
                          + "; ".join(examples_by_class(report)))
    vocabulary.save_vocabulary(output_dir, data, config)
    if held_out or held_out_fraction:
        measured = (_documents(held_out, 1.0, 0.0) if held_out else
                    _documents(source, sample_fraction, held_out_fraction, held_out=True))
        measuring.log_tokens_per_word(measured, tokenizer, other, compare_vocab)
    return output_dir


def _train(source: str | list[str], counts: str, config: TextConfig, model_type: str,
           character_coverage: float, sample_fraction: float, held_out_fraction: float,
           workers: int, max_bad_fraction: float) -> bytes:
    """The bytes of the vocabulary file."""
    if model_type == "unigram":
        documents = _documents(source, sample_fraction, held_out_fraction,
                               max_bad_fraction=max_bad_fraction)
        lines = _normalized_lines(documents, config)
        return wordpieces.train_sentencepiece(lines, config, character_coverage)
    if counts:
        settings = counting.read_settings(counts)
        if not settings:
            logging.warning("%s.json: not there: the words are taken to be normalised as asked", counts)
        asked = {name: getattr(config, name) for name in settings}
        vocabulary.check_agrees(TextConfig(**settings), asked, f"{counts}.json")
        words = counting.read_counts(counts)
    elif isinstance(source, str):
        words = counting.count_files(source, config, sample_fraction=sample_fraction,
                                     held_out_fraction=held_out_fraction, workers=workers,
                                     max_bad_fraction=max_bad_fraction)
    else:
        documents = _documents(source, sample_fraction, held_out_fraction)
        words = counting.count_words(documents, config)
    if words.total() < WORDS_PER_ENTRY * config.vocab_size:
        logging.warning(
            "warning: vocab_size=%d: the text has %d words only, so most entries stand for words that "
            "are seen a few times: expected %d words, or a smaller vocabulary",
            config.vocab_size, words.total(), WORDS_PER_ENTRY * config.vocab_size)
    if config.tokenizer == "sentencepiece":
        return wordpieces.train_sentencepiece(words, config, character_coverage)
    return wordpieces.train_wordpieces(words, config, character_coverage)


def _check_settings(config: TextConfig, model_type: str, character_coverage: float,
                    sample_fraction: float, counts: str) -> None:
    if model_type not in MODEL_TYPES:
        raise UsageError(f"model_type={model_type}: expected one of {', '.join(MODEL_TYPES)}")
    if model_type == "unigram" and (counts or config.tokenizer != "sentencepiece"):
        raise UsageError("model_type=unigram: expected tokenizer=sentencepiece and text, not counts")
    check("character_coverage", character_coverage, float, COVERAGE)
    check("sample_fraction", sample_fraction, float, SAMPLED)


def check_output(output_dir: str | os.PathLike, overwrite: bool) -> None:
    """Raises UsageError if there is a vocabulary that is not to be replaced, or can be none."""
    for name in (vocabulary.TEXT_CONFIG_FILE, *vocabulary.VOCAB_FILES.values()):
        if files.exists(os.path.join(output_dir, name)) and not overwrite:
            raise UsageError(f"{output_dir}: has a {name} already: give another --output, "
                             "or --overwrite to replace it")
    files.check_can_be_directory(os.fspath(output_dir))


def wrap_vocabulary(vocab_file: str, output_dir: str | os.PathLike, config: TextConfig, *,
                    overwrite: bool = False) -> str | os.PathLike:
    """Makes a vocabulary directory of a vocab.txt (or spm.model) from elsewhere.

    Raises:
      UsageError: no usable vocabulary, or one in `output_dir` already.
    """
    check_output(output_dir, overwrite)
    data = files.read_bytes(vocab_file)
    # Everything that may be refused, before anything is written.
    summary = audit(text.make_tokenizer(data, config, vocab_file)).summary()
    vocabulary.save_vocabulary(output_dir, data, config)
    logging.info("%s", summary)
    return output_dir


def load_other(path: str, config: TextConfig) -> text.Tokenizer:
    """The tokeniser of a vocabulary directory, or of a vocab.txt treated as `config` says."""
    if files.is_directory(path):
        return text.load_tokenizer(path)
    vocab = vocabulary.parse_vocab(files.read_bytes(path), "wordpiece", path)
    return text.WordPieceTokenizer(config, vocab)


def _documents(source: str | Iterable[str], sample_fraction: float, held_out_fraction: float, *,
               held_out: bool = False, max_bad_fraction: float = 1.0) -> Iterator[str]:
    """Documents of files or of a list; at the end, raises UsageError if too much was unreadable."""
    if not isinstance(source, str):
        yield from counting.sample(source, sample_fraction, held_out_fraction, held_out)
        return
    counts = InputCounts()
    for task in pipeline_tasks.plan_tasks(listing.list_files(source)):
        yield from counting.sampled_documents(
            task, sample_fraction, held_out_fraction, held_out=held_out, counts=counts)
    counts.warn_of_bad()
    counts.check_readable(max_bad_fraction)


def _normalized_lines(documents: Iterable[str], config: TextConfig) -> Iterator[str]:
    """Normalises line by line, as normalisation makes spaces of line ends."""
    splitter = counting.word_splitter(config)
    for batch in readers.batches(documents):
        lines = [line.encode("utf-8", "ignore") for document in batch
                 for line in document.splitlines() if line.strip()]
        for line in splitter.normalize(tf.constant(lines, tf.string, [len(lines)])).numpy():
            yield line.decode()


def main() -> None:
    define("input", str, "", "Text files: comma-separated paths, globs or folders.", PATHS)
    define("counts", str, "", "Word counts of data_prep.count_words, instead of --input.", PATH)
    define("from_vocab", str, "", "An existing vocab.txt or spm.model to wrap.", PATH)
    define("output", str, "", "Vocabulary directory to write.", PATH)
    define("held_out_input", str, "", "Text to measure on; default: 1 % of --input.", PATHS)
    define("compare_vocab", str, "", "vocab.txt or vocabulary directory to compare with.", PATH)
    define("model_type", Literal["bpe", "unigram"], "bpe", "for sentencepiece.")
    define("character_coverage", float, CHARACTER_COVERAGE, "Share of characters with pieces.",
           COVERAGE)
    define("sample_fraction", float, 1.0, "Share of the documents, chosen by content hash.", SAMPLED)
    define("workers", int, 0, "Processes that count words; 0: one a core.", WORKERS)
    define("max_bad_fraction", float, MAX_BAD_FRACTION,
           "End if more of the documents, or of their bytes, cannot be read.", MOST_BAD)
    define("overwrite", bool, False, "Replace the vocabulary in --output.")
    define_config_flags(TextConfig, skip=("vocab_sha256",))
    prepare_tool()
    parse_flags_only()
    values = flags.FLAGS
    sources = [name for name in ("input", "counts", "from_vocab") if values[name].value]
    if len(sources) != 1 or not values.output:
        raise UsageError("expected --output and one of --input, --counts, --from_vocab; got "
                         + (", ".join(f"--{name}" for name in sources) or "none of them"))
    overrides = command_line_settings(values, [])
    if values.counts:
        overrides = counting.read_settings(values.counts) | overrides
    config = TextConfig(**overrides)
    if values.counts:
        refuse_flags("--counts", ("sample_fraction", "workers", "max_bad_fraction"))
    if config.tokenizer == "wordpiece":
        refuse_flags("--tokenizer=wordpiece", ("model_type",))
    if values.model_type == "unigram":
        refuse_flags("--model_type=unigram", ("workers",))
    if values.from_vocab:
        refuse_unused("--from_vocab", {"from_vocab", "output", "overwrite", *counting.SETTINGS})
        directory = wrap_vocabulary(values.from_vocab, values.output, config,
                                    overwrite=values.overwrite)
    else:
        directory = train_vocabulary(
            values.input, values.output, config, counts=values.counts,
            held_out=values.held_out_input, model_type=values.model_type,
            character_coverage=values.character_coverage, sample_fraction=values.sample_fraction,
            compare_vocab=values.compare_vocab, workers=values.workers,
            max_bad_fraction=values.max_bad_fraction, overwrite=values.overwrite)
    print(f"{directory}: {vocabulary.load_text_config(directory).vocab_size} entries")


if __name__ == "__main__":
    run_main(main)
