r"""Counts the words of a corpus, for `train_vocabulary`.

    python -m data_prep.count_words --input='corpus/*.jsonl.gz' --output=counts.tsv --workers=8

As an Apache Beam job, whose own options come after "--":

    python -m data_prep.count_words --input='gs://bucket/corpus/*' --output=gs://bucket/counts.tsv \
        --sample_fraction=0.05 --min_count=5 --runner=FlinkRunner -- --flink_master=host:8081

Then:

    python -m data_prep.train_vocabulary --counts=counts.tsv --output=vocabulary --vocab_size=50000

Words are those of the tokeniser: the operations that normalise and split text here also tokenise it
later. `counts.tsv` has lines `word<TAB>count`; `counts.tsv.json` beside it says how text was
normalised.
"""

import functools
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from absl import flags

from data_prep import files
from data_prep.build import tasks as pipeline_tasks
from data_prep.build.tasks import Task
from data_prep.build.workers import pool
from data_prep.command_line import OCCURRENCES, SAMPLED, WORKERS, parse_flags
from data_prep.corpus import readers
from data_prep.outputs import check_apart
from electra_es.config import SPECIAL_TOKENS, TextConfig, from_dict
from electra_es.errors import UsageError, import_optional, run_main
from electra_es.flags import command_line_settings, define, define_config_flags, refuse_flags
from electra_es.hardware import usable_cores
from electra_es.settings import NAME, PATH, PATHS
from electra_es.text import tokenizer as text

# Settings of the text that counts depend on.
SETTINGS = ("tokenizer", "lower_case", "strip_accents", "unicode_form")

_BATCH_CHARACTERS = 1 << 20
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
    for batch in batches(documents):
        data = tf.constant([document.encode("utf-8", "ignore") for document in batch])
        for normalized in word_splitter(config).normalize(data).numpy():
            chunks.update(normalized.split())
    return chunks


def batches(documents: Iterable[str]) -> Iterator[list[str]]:
    """Documents in lists of about 1 MB."""
    batch: list[str] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _words_of_chunks(chunks: Counter[bytes], config: TextConfig) -> Counter[str]:
    """Splits each different chunk into its words; there are far fewer chunks than in the text.

    Words that are too long for the tokeniser are left out, and words with the character that
    SentencePiece uses for a space.
    """
    words: Counter[str] = Counter()
    reserved = text.WORD_START.encode()
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
                      held_out: bool = False) -> Iterator[str]:
    """The texts of the sample in one part of a file; logs how much of the part is unreadable.

    Args:
      fraction: share of the documents in the sample.
      held_out_fraction: share of the documents that are not for training.
      held_out: yield these documents instead of those for training.
    """
    bad: Counter[str] = Counter()
    documents = readers.read_documents(
        task.path, start=task.start, end=task.end,
        on_bad=lambda reason, detail: bad.update([reason]))
    yield from sample((document.text for document in documents), fraction, held_out_fraction,
                      held_out)
    if bad:
        logging.warning("%s from byte %d: left out %s", task.path, task.start, ", ".join(
            f"{reason} {number} times" for reason, number in sorted(bad.items())))


def count_task(task: Task, config: TextConfig, fraction: float, held_out_fraction: float = 0.0
               ) -> Counter[str]:
    """Counts the words of one part of a file."""
    return count_words(sampled_documents(task, fraction, held_out_fraction), config)


def count_files(pattern: str, config: TextConfig, *, sample_fraction: float = 1.0,
                held_out_fraction: float = 0.0, workers: int = 1) -> Counter[str]:
    """Counts the words of files; the result does not depend on the number of workers.

    Raises:
      UsageError: the glob matches no file, or a file cannot be opened.
    """
    tasks = pipeline_tasks.plan_tasks(files.list_files(pattern))
    words: Counter[str] = Counter()
    with pool(min(workers or usable_cores(), len(tasks))) as run_all:
        for _, counted in run_all("parts of the input", count_task, [
                (task, config, sample_fraction, held_out_fraction) for task in tasks],
                [task.size for task in tasks]):
            words.update(counted)
    return words


def beam_count_files(pattern: str, output: str, config: TextConfig, *, sample_fraction: float,
                     min_count: int, runner: str, workers: int, beam_options: Sequence[str]) -> None:
    """The same as a Beam job: tasks -> (word, count) of each -> sums -> lines of one file."""
    beam = import_optional("apache_beam", "requirements-data.txt")

    from data_prep.build.engine_beam import pipeline_options

    def count(task: Task) -> Iterable[tuple[str, int]]:
        return count_task(task, config, sample_fraction).items()

    with beam.Pipeline(options=pipeline_options(runner, workers, beam_options)) as pipeline:
        _ = (
            pipeline
            | "Tasks" >> beam.Create(pipeline_tasks.plan_tasks(files.list_files(pattern)))
            | "Spread" >> beam.Reshuffle()
            | "Count" >> beam.FlatMap(count).with_output_types(tuple[str, int])
            | "Sum" >> beam.CombinePerKey(sum)
            | "Frequent" >> beam.Filter(lambda item: item[1] >= min_count)
            | "Line" >> beam.MapTuple(lambda word, number: f"{word}\t{number}")
            | "Write" >> beam.io.WriteToText(output, num_shards=1, shard_name_template="")
        )


def ordered(words: Counter[str]) -> list[tuple[str, int]]:
    """Most frequent first, ties by code point, so that equal counts always give the same list."""
    return sorted(words.items(), key=lambda item: (-item[1], item[0]))


def write_counts(words: Counter[str], path: str) -> None:
    lines = "".join(f"{word}\t{number}\n" for word, number in ordered(words))
    files.write_bytes(path, lines.encode())


def write_settings(path: str, config: TextConfig) -> None:
    """Writes, beside a file of counts, how their text was normalised."""
    values = {name: getattr(config, name) for name in SETTINGS}
    files.write_bytes(path + ".json", (json.dumps(values, indent=2) + "\n").encode())


def read_settings(path: str) -> dict[str, Any]:
    """How the text of a file of counts was normalised; empty for counts of another tool.

    Raises:
      UsageError: the file beside the counts has another content.
    """
    if not files.exists(path + ".json"):
        return {}
    try:
        values = json.loads(files.read_bytes(path + ".json"))
        from_dict(TextConfig, values)  # Checks names and values.
        return values
    except (ValueError, TypeError, AttributeError) as error:
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


def main() -> None:
    define("input", str, None, "Text files: comma-separated paths, globs or folders.", PATHS)
    define("output", str, None, "The file of counts to write.", PATH)
    define("sample_fraction", float, 1.0, "Share of the documents, chosen by content hash.", SAMPLED)
    define("min_count", int, 1, "Leave out words that occur less often.", OCCURRENCES)
    define("runner", str, "local", "local, or a Beam runner: DirectRunner, FlinkRunner, ...", NAME)
    define("workers", int, 0, "Processes of runner=local and DirectRunner; 0: one a core.", WORKERS)
    define("overwrite", bool, False, "Replace the output if it exists.")
    define_config_flags(TextConfig, skip=("vocab_size", "vocab_sha256"))
    beam_options = parse_flags()
    values = flags.FLAGS
    if not values.input or not values.output:
        raise UsageError("--input and --output are needed")
    if values.runner not in ("local", "DirectRunner"):
        refuse_flags(f"--runner={values.runner}", ("workers",))
    if files.exists(values.output) and not values.overwrite:
        raise UsageError(f"{values.output}: exists: --overwrite replaces it")
    files.check_can_be_file(values.output)
    check_apart(f"output={values.output}", [values.output, values.output + ".json"],
                input=values.input)
    config = TextConfig(**command_line_settings(values, []))
    files.remove(values.output + ".json")
    if values.runner != "local":
        beam_count_files(values.input, values.output, config, beam_options=beam_options,
                         sample_fraction=values.sample_fraction, min_count=values.min_count,
                         runner=values.runner, workers=values.workers)
        write_settings(values.output, config)
        print(f"{values.output}: written")
        return
    if beam_options:
        raise UsageError(f"{beam_options[0]}: Beam's options need a Beam runner")
    words = count_files(values.input, config, sample_fraction=values.sample_fraction,
                        workers=values.workers)
    kept = Counter({word: number for word, number in words.items() if number >= values.min_count})
    write_counts(kept, values.output)
    write_settings(values.output, config)
    print(f"{values.output}: {len(kept)} different words, {kept.total()} in all")


if __name__ == "__main__":
    run_main(main)
