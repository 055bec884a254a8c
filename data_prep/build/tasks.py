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
import random
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from data_prep.build import examples
from data_prep.build.description import Duplicates, Job, Task
from data_prep.build.kept import kept_documents
from data_prep.build.statistics import Statistics
from data_prep.build.workers import ALONE, Work, Workers
from data_prep.corpus import cleaning
from data_prep.corpus.formats import format_of_file
from data_prep.corpus.lines import COMPRESSION_RATIO
from data_prep.progress import Progress
from electra_es.data import tfrecord
from electra_es.hardware import usable_cores
from electra_es.text.tokenizer import Tokenizer, load_tokenizer

ResultT = TypeVar("ResultT")

TASK_BYTES = 8 << 20
# Every shard is merged from a piece of each task. With more tasks than this, the pieces of a large
# corpus would have only a few kilobytes; so larger inputs get larger tasks.
MAX_TASKS = 2048
BLOCK_BYTES = 1 << 20
# Entries held in memory before they are yielded; a task of 8 MB of text makes about 4 MB.
MAX_HELD_BYTES = 32 << 20
# One process reads a large compressed file about seven times as fast as another makes records of it.
_WORKERS_OF_A_READER = 7

_ENTRY = struct.Struct("<QI")

# Shard number -> entries.
ShardEntries = dict[int, bytes]


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


def shared_tasks(tasks: Sequence[Task], workers: int) -> tuple[list[Task], list[Task]]:
    """(compressed files that all workers share, tasks that have one worker each).

    A file is shared where one worker would still be busy with it when the others have ended. More files
    than a reader can feed workers are quicker with a worker each.
    """
    def text(task: Task) -> int:
        return task.size * (1 if task.end is not None else COMPRESSION_RATIO)

    least = max(TASK_BYTES, sum(map(text, tasks)) / min(2 * workers, _WORKERS_OF_A_READER))
    shared = [task for task in tasks if workers > 1 and task.end is None and text(task) > least]
    numbers = {task.number for task in shared}
    return shared, [task for task in tasks if task.number not in numbers]


def workers_for(tasks: Sequence[Task], workers: int) -> int:
    """How many of `workers` processes (0: one a core) have anything to do."""
    workers = workers or usable_cores()
    return workers if shared_tasks(tasks, workers)[0] else min(workers, len(tasks))


def run_tasks(label: str, run_all: Workers, function: Callable[..., ResultT], tasks: Sequence[Task],
              arguments: Sequence[tuple]) -> Iterator[ResultT]:
    """Calls `function(task, *arguments)` for each task; yields the results in order of completion.

    It is called in a worker, or, for a task that the workers share, in this process with `work=`, which
    gives them pieces.

    Raises:
      UsageError: as `Workers`.
    """
    arguments_of = {task.number: values for task, values in zip(tasks, arguments, strict=True)}
    shared, others = shared_tasks(tasks, run_all.number)
    progress = Progress("large compressed files", [task.size for task in shared])
    work = Work(functools.partial(run_all.in_order, label), functools.partial(progress.add, parts=0))
    for task in shared:
        yield function(task, *arguments_of[task.number], work=work)
        progress.add(0)
    for _, result in run_all(label, function, [(task, *arguments_of[task.number]) for task in others],
                             [task.size for task in others]):
        yield result


def process_task(task: Task, job: Job, statistics: Statistics, duplicates: Duplicates = Duplicates(),
                 work: Work = ALONE) -> Iterator[ShardEntries]:
    """Turns a task into records; yields them whenever `MAX_HELD_BYTES` are reached, and at the end.

    Args:
      statistics: the counts are added to it; they are complete at the end of the iterator.
      work: where its blocks are worked on.
    """
    statistics.clusters.update(dict(duplicates.clusters))
    entries: dict[int, list[bytes]] = {}
    held = 0
    blocks = enumerate(_blocks(task, job, statistics, duplicates.dropped, work))
    for _, (found, counts) in work.each(functools.partial(_block_records, job, task.number), blocks):
        statistics.add(counts)
        for shard, data in found.items():
            entries.setdefault(shard, []).append(data)
            held += len(data)
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
    """Texts in UTF-8, which are sent to another process at less cost, and their hashes."""

    is_validation: bool
    texts: list[bytes] = dataclasses.field(default_factory=list)
    hashes: list[int] = dataclasses.field(default_factory=list)
    size: int = 0


def _blocks(task: Task, job: Job, statistics: Statistics, duplicates: frozenset[int], work: Work
            ) -> Iterator[_Block]:
    open_blocks = {False: _Block(False), True: _Block(True)}
    validation_below = int(job.validation_fraction * 2**64)
    for index, document in enumerate(kept_documents(task, job, statistics, work)):
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
        block.texts.append(data)
        block.hashes.append(content_hash)
        block.size += len(data)
        if block.size >= BLOCK_BYTES:
            yield block
            open_blocks[is_validation] = _Block(is_validation)
    yield from (block for block in open_blocks.values() if block.texts)


def _block_records(job: Job, task_number: int, numbered: tuple[int, _Block]
                   ) -> tuple[ShardEntries, Statistics]:
    """The entries of the block with this number in its task, and its counts."""
    number, block = numbered
    tokenizer = _tokenizer(job.vocab_dir)
    statistics = Statistics()
    flat = _block_examples(block, job, tokenizer, statistics)
    encoded = tfrecord.encode_examples(*flat)
    statistics.examples["validation" if block.is_validation else "train"] += len(encoded)
    statistics.positions += len(flat.ids)
    counts = np.bincount(flat.ids, minlength=len(tokenizer.vocab))
    # As small as it can be, because it is sent to another process.
    statistics.id_counts = counts.astype(np.min_scalar_type(int(counts.max(initial=0))))
    key = _hash(job.seed, "order", task_number, number, block.hashes[0])
    shards = job.validation_shards if block.is_validation else job.train_shards
    first_shard = job.train_shards if block.is_validation else 0
    keys = _mixed(np.uint64(key) + np.arange(len(encoded), dtype=np.uint64)).tolist()
    entries: dict[int, list[bytes]] = {}
    for i, (sort_key, data) in enumerate(zip(keys, encoded, strict=True)):
        # By turns and not by key, so that shards of a small data set have equal sizes.
        entries.setdefault(first_shard + (key + i) % shards, []).append(
            _ENTRY.pack(sort_key, len(data)) + data)
    return {shard: b"".join(pieces) for shard, pieces in entries.items()}, statistics


def _block_examples(block: _Block, job: Job, tokenizer: Tokenizer,
                    statistics: Statistics) -> examples.FlatExamples:
    lines_of = [[line for line in text.decode().split("\n") if line and not line.isspace()]
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
