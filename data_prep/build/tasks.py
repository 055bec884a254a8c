"""The work that every engine runs: divide the input into tasks, turn a task into records.

A task is a part of a file. A task's documents are divided into *blocks*: consecutive
kept documents of one split, about 1 MB of text. A block is tokenised in one call, short
documents are joined only within a block, and the hash of its first document seeds its random
choices. So examples do not depend on workers, engine or order of work.

    task -> {shard: bytes of "key, size, record" entries}, several times  -> Statistics

Entries are grouped by shard, and each shard is sorted by key (`merge_entries`). This is the
global shuffle. Train shards have the first numbers, validation shards follow.
"""

import dataclasses
import functools
import hashlib
import json
import os
import random
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from data_prep.build import examples
from data_prep.build.statistics import Statistics
from data_prep.corpus import cleaning, decontamination, quality, readers
from data_prep.corpus.formats import format_of_file
from electra_es.data import records, tfrecord
from electra_es.text.tokenizer import Tokenizer, load_tokenizer

TASK_BYTES = 8 << 20
# Every shard is merged from a piece of each task. With more tasks than this, the pieces of a large
# corpus would have only a few kilobytes; so larger inputs get larger tasks.
MAX_TASKS = 2048
BLOCK_BYTES = 1 << 20
# Entries held in memory before they are yielded; a task of 8 MB of text makes about 4 MB.
MAX_HELD_BYTES = 32 << 20

_LATER_RULES = ("quality",)
_ENTRY = struct.Struct("<QI")

# Shard number -> entries.
ShardEntries = dict[int, bytes]


@dataclass(frozen=True)
class Task:
    """Documents of one part of one input file.

    Attributes:
      number: place in the order of the input.
      end: byte, or None for the end of the file.
      size: bytes to read.
      is_validation: all documents are held out, whatever `Job.validation_fraction` says.
    """

    number: int
    path: str
    start: int
    end: int | None
    size: int
    is_validation: bool = False


class Duplicates(NamedTuple):
    """What a first pass over the input found in one task.

    Attributes:
      dropped: numbers of the kept documents to leave out.
      clusters: of documents that are the same, how many there are by their size; each is counted in the
        task of its first document.
    """

    dropped: frozenset[int] = frozenset()
    clusters: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Job:
    """Everything that determines the bytes of the records, besides vocabulary and input."""

    vocab_dir: str
    max_seq_length: int
    train_shards: int
    validation_shards: int
    validation_fraction: float
    scheme: str
    packing: str
    dedup: str
    near_duplicate_threshold: float
    max_copies: int
    decontaminate: str
    decontaminate_sha256: str
    rules: cleaning.DocumentRules
    input_format: str
    max_document_bytes: int
    seed: int

    @property
    def num_shards(self) -> int:
        return self.train_shards + self.validation_shards

    def to_values(self) -> dict[str, Any]:
        """JSON values, without paths, which are others on another machine."""
        values = dataclasses.asdict(self)
        del values["vocab_dir"], values["decontaminate"]
        return json.loads(json.dumps(values))  # with lists for tuples, as they are read back

    @classmethod
    def from_values(cls, values: dict[str, Any], vocab_dir: str, decontaminate: str) -> "Job":
        """Inverse of `to_values`; raises TypeError, KeyError for other values."""
        rules = dict(values["rules"])
        rules["drop_quality_warnings"] = tuple(rules["drop_quality_warnings"])
        return cls(**{**values, "vocab_dir": vocab_dir, "decontaminate": decontaminate,
                      "rules": cleaning.DocumentRules(**rules)})

    def fingerprint(self, vocab_sha256: str, tasks: Iterable[Task]) -> str:
        """SHA-256 over everything that the records depend on; names of files without folders."""
        settings = dataclasses.asdict(self)
        # Rules of later versions, where they are off: the records are those of the versions before.
        settings["rules"] = {name: value for name, value in settings["rules"].items()
                             if value or name not in _LATER_RULES}
        del settings["decontaminate"]  # a place; what stands there is in its hash
        for name, off in (("max_copies", 1), ("decontaminate_sha256", "")):
            if settings[name] == off:
                del settings[name]
        values = settings | {
            "vocab_dir": vocab_sha256, "version": records.FORMAT_VERSION,
            "tasks": [(os.path.basename(task.path), task.start, task.size, task.is_validation)
                      for task in tasks]}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def plan_tasks(train_files: Sequence[tuple[str, int]],
               validation_files: Sequence[tuple[str, int]] = (), input_format: str = "auto"
               ) -> list[Task]:
    """Divides files into parts of `TASK_BYTES` or a multiple of it; a compressed file is one part.

    Args:
      train_files, validation_files: (path, size in bytes), in the order of the input.
      input_format: see `readers.read_documents`.

    Raises:
      UsageError: a file that is no text.
    """
    all_files = [(path, size, format_of_file(path, input_format).compression is None, is_validation)
                 for found, is_validation in ((train_files, False), (validation_files, True))
                 for path, size in found]
    divided = sum(size for _, size, splittable, _ in all_files if splittable)
    step = TASK_BYTES * max(1, -(-divided // (TASK_BYTES * MAX_TASKS)))
    tasks: list[Task] = []
    for path, size, splittable, is_validation in all_files:
        if splittable:
            for start in range(0, max(size, 1), step):
                end = min(start + step, size)
                tasks.append(Task(len(tasks), path, start, end, end - start, is_validation))
        else:
            tasks.append(Task(len(tasks), path, 0, None, size, is_validation))
    return tasks


def kept_documents(task: Task, job: Job, statistics: Statistics) -> Iterator[readers.Document]:
    """Readable documents of a task that no rule drops; the others are counted."""
    documents = _documents_kept_alone(task, job, statistics)
    if not (job.rules.quality or job.decontaminate):
        yield from documents
        return
    while held := _batch(documents):
        for document, reason in zip(held, _reasons([each.text for each in held], job), strict=True):
            if reason is None:
                yield document
            else:
                statistics.add_dropped(reason, len(document.text.encode()))


def _reasons(texts: list[str], job: Job) -> list[str | None]:
    """Why to drop each of several texts, by the rules that look at many at once."""
    reasons: list[str | None] = [None] * len(texts)
    if job.rules.quality:
        reasons = quality.reasons(texts, quality.THRESHOLDS[job.rules.quality])
    if job.decontaminate:
        shared = decontamination.share_a_run(texts, decontamination.load_keys(job.decontaminate))
        reasons = [reason or ("contaminated" if of_task else None)
                   for reason, of_task in zip(reasons, shared, strict=True)]
    return reasons


def _batch(documents: Iterator[readers.Document]) -> list[readers.Document]:
    """The next documents, about `BLOCK_BYTES` characters; empty at the end."""
    held, size = [], 0
    for document in documents:
        held.append(document)
        size += len(document.text)
        if size >= BLOCK_BYTES:
            break
    return held


def _documents_kept_alone(task: Task, job: Job, statistics: Statistics) -> Iterator[readers.Document]:
    """Those that no rule drops which looks at one document at a time."""
    documents = readers.read_documents(
        task.path, start=task.start, end=task.end, input_format=job.input_format,
        max_document_bytes=job.max_document_bytes,
        on_bad=functools.partial(statistics.add_bad, task.number, os.path.basename(task.path)))
    for document in documents:
        reason = job.rules.reason_to_drop(document)
        statistics.labelled += document.language is not None
        if reason is None:
            yield document
        else:
            statistics.add_dropped(reason, len(document.text.encode()))


def document_keys(task: Task, job: Job) -> np.ndarray:
    """Duplicate keys of the task's kept documents, uint64 [documents, keys]."""
    keys = [cleaning.duplicate_keys(document.text, job.dedup, job.near_duplicate_threshold)
            for document in kept_documents(task, job, Statistics.empty(0))]
    return np.stack(keys) if keys else np.zeros((0, 1), np.uint64)


def process_task(task: Task, job: Job, statistics: Statistics,
                 duplicates: Duplicates = Duplicates()) -> Iterator[ShardEntries]:
    """Turns a task into records; yields them whenever `MAX_HELD_BYTES` are reached, and at the end.

    Args:
      statistics: the counts are added to it; they are complete at the end of the iterator.
    """
    tokenizer = _tokenizer(job.vocab_dir)
    statistics.clusters.update(dict(duplicates.clusters))
    entries: dict[int, list[bytes]] = {}
    held = 0
    for number, block in enumerate(_blocks(task, job, statistics, duplicates.dropped)):
        flat = _block_examples(block, job, tokenizer, statistics)
        encoded = tfrecord.encode_examples(*flat)
        split = "validation" if block.is_validation else "train"
        statistics.examples[split] += len(encoded)
        statistics.positions += len(flat.ids)
        statistics.id_counts += np.bincount(flat.ids, minlength=len(statistics.id_counts))
        key = _hash(job.seed, "order", task.number, number, block.hashes[0])
        shards = job.validation_shards if block.is_validation else job.train_shards
        first_shard = job.train_shards if block.is_validation else 0
        keys = _mixed(np.uint64(key) + np.arange(len(encoded), dtype=np.uint64)).tolist()
        for i, (sort_key, data) in enumerate(zip(keys, encoded, strict=True)):
            entry = _ENTRY.pack(sort_key, len(data)) + data
            # By turns and not by key, so that shards of a small data set have equal sizes.
            entries.setdefault(first_shard + (key + i) % shards, []).append(entry)
            held += len(entry)
        if held >= MAX_HELD_BYTES:
            yield {shard: b"".join(pieces) for shard, pieces in entries.items()}
            entries, held = {}, 0
    yield {shard: b"".join(pieces) for shard, pieces in entries.items()}


def merge_entries(pieces: Iterable[bytes]) -> list[bytes]:
    """Records of one shard in their final order: by key, equal keys by content."""
    found: list[tuple[int, bytes]] = []
    for data in pieces:
        position = 0
        while position < len(data):
            key, size = _ENTRY.unpack_from(data, position)
            position += _ENTRY.size + size
            found.append((key, data[position - size:position]))
    return [data for _, data in sorted(found)]


@dataclass
class _Block:
    is_validation: bool
    texts: list[str] = dataclasses.field(default_factory=list)
    hashes: list[int] = dataclasses.field(default_factory=list)
    size: int = 0


def _blocks(task: Task, job: Job, statistics: Statistics,
            duplicates: frozenset[int]) -> Iterator[_Block]:
    open_blocks = {False: _Block(False), True: _Block(True)}
    validation_below = int(job.validation_fraction * 2**64)
    for index, document in enumerate(kept_documents(task, job, statistics)):
        data = document.text.encode()
        if index in duplicates:
            statistics.add_dropped(f"{job.dedup}_duplicate", len(data))
            continue
        content_hash = cleaning.content_hash(data)
        # With the seed, so that another seed holds out other documents.
        is_validation = (task.is_validation
                         or _hash(job.seed, "split", content_hash) < validation_below)
        statistics.add_kept(len(data))
        block = open_blocks[is_validation]
        block.texts.append(document.text)
        block.hashes.append(content_hash)
        block.size += len(data)
        if block.size >= BLOCK_BYTES:
            yield block
            open_blocks[is_validation] = _Block(is_validation)
    yield from (block for block in open_blocks.values() if block.texts)


def _block_examples(block: _Block, job: Job, tokenizer: Tokenizer,
                    statistics: Statistics) -> examples.FlatExamples:
    lines_of = [[line for line in text.split("\n") if line and not line.isspace()]
                for text in block.texts]
    sentences = iter(tokenizer.encode_batch([line for lines in lines_of for line in lines]))
    documents = [[next(sentences) for _ in lines] for lines in lines_of]
    tokens = sum(len(sentence) for document in documents for sentence in document)
    if job.packing == "documents":
        streams = [(block.hashes[0], documents)]
    else:
        streams = [(content_hash, [document])
                   for content_hash, document in zip(block.hashes, documents, strict=True)]
    segments: list[examples.Segments] = []
    for content_hash, stream in streams:
        draws = random.Random(_hash(job.seed, "examples", content_hash))
        if job.scheme == "original":
            segments += examples.OriginalBuilder(job.max_seq_length, draws).documents(stream)
        else:
            segments += examples.carry_over(stream, job.max_seq_length, tokenizer.sep_id, draws)
    flat = examples.assemble(segments, tokenizer.cls_id, tokenizer.sep_id)
    statistics.tokens += tokens
    # Text never becomes [CLS] or [SEP], so all other tokens came from the text.
    special = len(flat.ends) + int(np.count_nonzero(flat.ids == tokenizer.sep_id))
    statistics.dropped_tokens += tokens - (len(flat.ids) - special)
    return flat


@functools.lru_cache(maxsize=1)
def _tokenizer(vocab_dir: str) -> Tokenizer:
    """Loaded once per worker."""
    return load_tokenizer(vocab_dir)


def _hash(*values: int | str) -> int:
    """64 bits of a seed, a purpose and numbers."""
    text = "/".join(map(str, values)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014): neighbours become unrelated. uint64 [n]."""
    values = values * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
