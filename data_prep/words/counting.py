"""Counts of the words of a corpus, in memory, by processes of this machine or as a Beam job."""

import dataclasses
import functools
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from data_prep.build import tasks as pipeline_tasks
from data_prep.build.description import Task
from data_prep.build.workers import ALONE, Work, pool
from data_prep.command_line import MAX_BAD_FRACTION
from data_prep.corpus import listing, readers
from data_prep.corpus.counts import InputCounts
from electra_es import files
from electra_es.config import SPECIAL_TOKENS, TextConfig, from_dict
from electra_es.errors import UsageError, import_optional
from electra_es.text import tokenizer as text
from electra_es.text import vocabulary

# Settings of the text that counts depend on.
SETTINGS = ("tokenizer", "lower_case", "strip_accents", "unicode_form")

# Ending of the file in which a Beam job says what it has read.
_DOCUMENTS = ".documents.json"
# What another process counts at a time: of more text, fewer different words have to be added up.
_SHARED_CHARACTERS = 4 << 20
_CHUNKS_AT_A_TIME = 100_000


@functools.lru_cache(maxsize=8)
def word_splitter(config: TextConfig) -> text.Tokenizer:
    """A tokeniser with an empty vocabulary: the offsets of its tokens are those of the words."""
    # The operation wants one piece at least; a full stop is a word of its own wherever it stands.
    return text.WordPieceTokenizer(config, (*SPECIAL_TOKENS, "."))


def is_sampled(document: str, fraction: float, purpose: str) -> bool:
    """Whether a document is in the sample: a matter of its text only, not of its place."""
    if fraction in (0, 1):
        return bool(fraction)
    digest = hashlib.sha256(f"{purpose}\0{document}".encode("utf-8", "ignore")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def sample(documents: Iterable[str], fraction: float, held_out_fraction: float, held_out: bool
           ) -> Iterator[str]:
    """The documents of the sample that are held out, or those that are not."""
    for document in documents:
        if (is_sampled(document, fraction, "sample")
                and is_sampled(document, held_out_fraction, "held out") == held_out):
            yield document


def count_words(documents: Iterable[str], config: TextConfig) -> Counter[str]:
    """Counts the words of documents, in memory.

    Args:
      documents: texts as they are in the corpus.
      config: how they are normalised. For a WordPiece vocabulary punctuation is apart, for a
        SentencePiece vocabulary a word is what stands between spaces.
    """
    return _words_of_chunks(_count_chunks(documents, config), config)


def _count_chunks(documents: Iterable[str], config: TextConfig) -> Counter[bytes]:
    """Counts what stands between spaces in the normalised text."""
    chunks: Counter[bytes] = Counter()
    for batch in readers.batches(documents):
        data = tf.constant([document.encode("utf-8", "ignore") for document in batch])
        for normalized in word_splitter(config).normalize(data).numpy():
            chunks.update(normalized.split())
    return chunks


def _words_of_chunks(chunks: Counter[bytes], config: TextConfig) -> Counter[str]:
    """Splits each different chunk into its words; there are far fewer chunks than in the text.

    Words that are too long for the tokeniser are left out, and words with the character that
    SentencePiece uses for a space.
    """
    words: Counter[str] = Counter()
    reserved = vocabulary.WORD_START.encode()
    kept = [chunk for chunk in chunks if reserved not in chunk]
    if config.tokenizer == "sentencepiece":
        for chunk in kept:
            if len(chunk) <= text.MAX_BYTES_PER_WORD:
                words[chunk.decode()] = chunks[chunk]
        return words
    for first in range(0, len(kept), _CHUNKS_AT_A_TIME):
        batch = kept[first:first + _CHUNKS_AT_A_TIME]
        _, starts, ends = word_splitter(config).tokenize_with_offsets(tf.constant(batch))
        for row, start, end in zip(starts.value_rowids().numpy().tolist(),
                                   starts.flat_values.numpy().tolist(),
                                   ends.flat_values.numpy().tolist(), strict=True):
            if end - start <= text.MAX_BYTES_PER_WORD:
                words[batch[row][start:end].decode()] += chunks[batch[row]]
    return words


def sampled_documents(task: Task, fraction: float, held_out_fraction: float = 0.0, *,
                      held_out: bool = False, counts: InputCounts | None = None,
                      on_read: Callable[[int], None] | None = None) -> Iterator[str]:
    """The texts of the sample in one part of a file.

    Args:
      fraction: share of the documents in the sample.
      held_out_fraction: share of the documents that are not for training.
      held_out: yield these documents instead of those for training.
      counts: all documents of the part are added to it, those outside the sample too.
      on_read: see `readers.read_documents`.
    """
    read = InputCounts() if counts is None else counts

    def texts() -> Iterator[str]:
        for document in readers.read_documents(
                task.path, start=task.start, end=task.end,
                on_bad=functools.partial(read.add_bad, task.number, os.path.basename(task.path)),
                on_read=on_read):
            read.add_kept(len(document.text.encode()))
            yield document.text

    yield from sample(texts(), fraction, held_out_fraction, held_out)


def count_task(task: Task, config: TextConfig, fraction: float, held_out_fraction: float = 0.0,
               work: Work = ALONE) -> tuple[Counter[str], InputCounts]:
    """Counts the words of one part of a file, and its documents."""
    counts = InputCounts()
    documents = sampled_documents(task, fraction, held_out_fraction, counts=counts, on_read=work.on_read)
    if work is ALONE:
        return count_words(documents, config), counts
    words: Counter[str] = Counter()
    for _, counted in work.each(functools.partial(_count_batch, config),
                                readers.batches(documents, _SHARED_CHARACTERS)):
        words.update(counted)
    return words, counts


def _count_batch(config: TextConfig, documents: list[str]) -> Counter[str]:
    return count_words(documents, config)


def count_files(pattern: str, config: TextConfig, *, sample_fraction: float = 1.0,
                held_out_fraction: float = 0.0, workers: int = 1,
                max_bad_fraction: float = MAX_BAD_FRACTION) -> Counter[str]:
    """Counts the words of files; the result does not depend on the number of workers.

    Raises:
      UsageError: the glob matches no file, a file cannot be opened, or too much of the input cannot be
        read.
    """
    tasks = pipeline_tasks.plan_tasks(listing.list_files(pattern))
    words: Counter[str] = Counter()
    total = InputCounts()
    with pool(pipeline_tasks.workers_for(tasks, workers)) as run_all:
        for counted, counts in pipeline_tasks.run_tasks(
                "parts of the input", run_all, count_task, tasks,
                [(config, sample_fraction, held_out_fraction)] * len(tasks)):
            words.update(counted)
            total.add(counts)
    total.warn_of_bad()
    total.check_readable(max_bad_fraction)
    return words


def beam_count_files(pattern: str, output: str, config: TextConfig, *, sample_fraction: float,
                     min_count: int, runner: str, workers: int, beam_options: Sequence[str],
                     max_bad_fraction: float = MAX_BAD_FRACTION) -> None:
    """The same as a Beam job: tasks -> (word, count) of each -> sums -> lines of one file."""
    beam = import_optional("apache_beam", "requirements-data.txt")

    from data_prep.build.engine_beam import make_pipeline, run_to_end

    pipeline = make_pipeline(runner, workers, beam_options)
    counted = (
        pipeline
        | "Tasks" >> beam.Create(pipeline_tasks.plan_tasks(listing.list_files(pattern)))
        | "Spread" >> beam.Reshuffle()
        | "Count" >> beam.Map(count_task, config, sample_fraction)
        .with_output_types(tuple[Counter, InputCounts]))
    _ = (
        counted
        | "Words" >> beam.FlatMap(_word_counts).with_output_types(tuple[str, int])
        | "Sum" >> beam.CombinePerKey(sum)
        | "Frequent" >> beam.Filter(_is_frequent, min_count)
        | "Together" >> beam.GroupBy(_one_key)
        | "Write" >> beam.Map(_write_lines, output))
    _ = (
        counted
        | "Documents" >> beam.Map(_input_counts).with_output_types(InputCounts)
        | "AddUp" >> beam.CombineGlobally(_added_up)
        | "WriteDocuments" >> beam.Map(_write_input_counts, output + _DOCUMENTS))
    run_to_end(pipeline, runner)
    total = InputCounts.from_values(files.read_json(output + _DOCUMENTS))
    files.remove(output + _DOCUMENTS)
    total.warn_of_bad()
    try:
        total.check_readable(max_bad_fraction)
    except UsageError:
        files.remove(output)
        raise


# Functions of the module and not of its callers: workers elsewhere import them by name.

def _word_counts(counted: tuple[Counter[str], InputCounts]) -> Iterable[tuple[str, int]]:
    return counted[0].items()


def _input_counts(counted: tuple[Counter[str], InputCounts]) -> InputCounts:
    return counted[1]


def _is_frequent(item: tuple[str, int], min_count: int) -> bool:
    return item[1] >= min_count


def _one_key(item: tuple[str, int]) -> int:
    return 0


def _added_up(counts: Iterable[InputCounts]) -> InputCounts:
    total = InputCounts()
    for each in counts:
        total.add(each)
    return total


def _write_input_counts(counts: InputCounts, path: str) -> None:
    files.write_json(path, dataclasses.asdict(counts))


def _write_lines(together: tuple[int, Iterable[tuple[str, int]]], path: str) -> None:
    with files.atomic_write(path) as file:
        file.writelines(f"{word}\t{number}\n".encode() for word, number in together[1])


def ordered(words: Counter[str]) -> list[tuple[str, int]]:
    """Most frequent first, ties by code point, so that equal counts always give the same list."""
    return sorted(words.items(), key=lambda item: (-item[1], item[0]))


def write_counts(words: Counter[str], path: str) -> None:
    lines = "".join(f"{word}\t{number}\n" for word, number in ordered(words))
    files.write_bytes(path, lines.encode())


def write_settings(path: str, config: TextConfig) -> None:
    """Writes, beside a file of counts, how their text was normalised."""
    values = {name: getattr(config, name) for name in SETTINGS}
    files.write_json(path + ".json", values)


def read_settings(path: str) -> dict[str, Any]:
    """How the text of a file of counts was normalised; empty for counts of another tool.

    Raises:
      UsageError: the file beside the counts has another content.
    """
    if not files.exists(path + ".json"):
        return {}
    values = files.read_json(path + ".json")
    try:
        from_dict(TextConfig, values)  # Checks names and values.
        return values
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}.json: expected {', '.join(SETTINGS)}: {error}") from None


def read_counts(path: str) -> Counter[str]:
    """Reads `counts.tsv`, lines in any order.

    Raises:
      UsageError: the file cannot be read, or a line is not `word<TAB>count`.
    """
    words: Counter[str] = Counter()
    lines = files.read_bytes(path).decode("utf-8", "replace").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        word, _, count = line.partition("\t")
        if not (word and count.isdecimal()):
            raise UsageError(f'{path}:{number}: "{line[:40]}": expected word<TAB>count')
        words[word] += int(count)
    return words
