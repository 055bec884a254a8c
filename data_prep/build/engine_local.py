"""Local engine: processes of one machine, with memory that does not grow with the input.

Each task writes its records to a file of its own in the work directory (`task-00012.spill`,
shard after shard, with an index beside it); then each shard is put together from all of
them. Every file appears complete or not at all. So a stopped job can continue: finished tasks and
shards are not repeated. A large compressed file cannot be divided: this process reads it, and the workers
get pieces of it (`tasks.run_tasks`).
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.build import tasks as pipeline_tasks
from data_prep.build.description import Duplicates, Job, Task
from data_prep.build.kept import document_keys
from data_prep.build.statistics import SAVED, Statistics
from data_prep.build.workers import ALONE, Work, Workers, pool
from data_prep.corpus import cleaning
from electra_es import files
from electra_es.data import tfrecord
from electra_es.errors import UsageError


def run(tasks: Sequence[Task], job: Job, vocab_size: int, shard_files: Sequence[str], work_dir: str,
        workers: int, max_bad_fraction: float, only: Sequence[int] | None = None
        ) -> tuple[list[int], Statistics, dict[str, str]]:
    """Builds all shards.

    Args:
      shard_files: where each shard goes, train shards first.
      work_dir: local directory for intermediate files; the caller removes it.
      max_bad_fraction: checked after all tasks and before any shard is written.
      only: numbers of the shards to write; None: all.

    Returns:
      The number of examples of each shard that is written, the counts of the whole job, and the checksum
      of each input file by its path.

    Raises:
      UsageError: unreadable or too much bad input, no document, a worker that died.
    """
    files.make_directory(work_dir)
    left = [task for task in tasks
            if not os.path.exists(_spill_path(work_dir, task.number) + SAVED)]
    with pool(pipeline_tasks.workers_for(tasks, workers)) as run_all:
        duplicates = _find_duplicates(tasks, job, work_dir, run_all)
        if len(left) < len(tasks):
            logging.info("%d of %d parts of the input are done already",
                         len(tasks) - len(left), len(tasks))
        chosen = range(len(shard_files)) if only is None else only
        list(pipeline_tasks.run_tasks("parts of the input", run_all, _spill_task, left, [
            (job, vocab_size, _spill_path(work_dir, task.number), duplicates[task.number],
             frozenset(chosen)) for task in left]))
        statistics = Statistics.empty(vocab_size)
        for task in tasks:
            statistics.add(Statistics.load(_spill_path(work_dir, task.number)))
        check_input(statistics, max_bad_fraction)
        record_bytes = sum(os.path.getsize(_spill_path(work_dir, task.number)) for task in tasks)
        counts = dict(run_all("shards", _write_shard, [
            (shard, work_dir, len(tasks), shard_files[shard]) for shard in chosen],
            [record_bytes // len(shard_files)] * len(chosen)))
        sizes: Counter[str] = Counter()
        for task in tasks:
            sizes[task.path] += task.size
        checksums = dict(run_all("files", files.checksum, [(path,) for path in sizes],
                                 list(sizes.values())))
    return ([counts[number] for number in range(len(chosen))], statistics,
            {path: checksums[number] for number, path in enumerate(sizes)})


def check_input(statistics: Statistics, max_bad_fraction: float) -> None:
    """Raises UsageError if too much of the input is bad or no document remains."""
    statistics.check_readable(max_bad_fraction)
    if statistics.examples["validation"] and not statistics.examples["train"]:
        raise UsageError(f"all {statistics.documents} documents are held out, none is left for training: "
                         "expected a smaller validation_fraction")
    if not statistics.examples["train"]:
        dropped = ", ".join(f"{reason} {count}" for reason, count
                            in statistics.dropped_documents.most_common())
        raise UsageError("the input has no document that can be used"
                         + (f"; dropped: {dropped}" if dropped else "")
                         + (f"; bad: {bad}" if (bad := statistics.bad_examples()) else ""))


def _find_duplicates(tasks: Sequence[Task], job: Job, work_dir: str, run_all: Workers
                     ) -> list[Duplicates]:
    """Finds, in a first pass over the input, the documents of each task that repeat earlier ones.

    The keys of all documents are in files; in memory are those of one band at a time.
    """
    if job.dedup == "none":
        return [Duplicates()] * len(tasks)
    paths = [os.path.join(work_dir, f"task-{task.number:05d}.bands.npy") for task in tasks]
    list(pipeline_tasks.run_tasks("parts searched for duplicates", run_all, _write_keys, tasks,
                                  [(job, path) for path in paths]))
    keys = [np.load(path, mmap_mode="r") for path in paths]
    bands = (np.concatenate([of_task[band] for of_task in keys]) for band in range(len(keys[0])))
    later, sizes = cleaning.group_duplicates(bands, job.max_copies)
    ends = np.cumsum([of_task.shape[1] for of_task in keys])[:-1]
    return [Duplicates(frozenset(np.flatnonzero(dropped).tolist()),
                       tuple(cleaning.sizes_by_range(of).items()))
            for dropped, of in zip(np.split(later, ends), np.split(sizes, ends), strict=True)]


def file_names(num_tasks: int, num_shards: int) -> list[str]:
    """Names of all files that a job may write into its work directory."""
    spilled = ("", ".offsets.npy", ".ids.npy", SAVED)
    return [*(f"task-{task:05d}.spill{end}" for task in range(num_tasks) for end in spilled),
            *(f"task-{task:05d}.bands.npy" for task in range(num_tasks)),
            *(f"shard-{shard:05d}.count" for shard in range(num_shards))]


def _write_keys(task: Task, job: Job, path: str, work: Work = ALONE) -> None:
    """Writes the keys, uint64 [keys of a document, documents]."""
    if not os.path.exists(path):
        files.write_array(path, np.ascontiguousarray(document_keys(task, job, work).T))


def _spill_path(work_dir: str, number: int) -> str:
    return os.path.join(work_dir, f"task-{number:05d}.spill")


def _spill_task(task: Task, job: Job, vocab_size: int, path: str, duplicates: Duplicates,
                shards: frozenset[int], work: Work = ALONE) -> None:
    """Writes PATH (entries), PATH.offsets.npy (int64 [yields, shards + 1]) and last the statistics,
    whose presence means that the task is done."""
    statistics = Statistics.empty(vocab_size)
    offsets, position = [], 0
    with files.atomic_write(path) as file:
        for entries in pipeline_tasks.process_task(task, job, statistics, duplicates, work):
            entries = {shard: data for shard, data in entries.items() if shard in shards}
            sizes = [len(entries.get(shard, b"")) for shard in range(job.num_shards)]
            offsets.append(position + np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))))
            for shard in range(job.num_shards):
                file.write(entries.get(shard, b""))
            position += sum(sizes)
    files.write_array(path + ".offsets.npy", np.array(offsets, np.int64))
    statistics.save(path)


def _write_shard(shard: int, work_dir: str, num_tasks: int, path: str) -> int:
    count_path = os.path.join(work_dir, f"shard-{shard:05d}.count")
    if os.path.exists(count_path) and files.exists(path):
        return int(files.read_bytes(count_path))
    found = pipeline_tasks.merge_entries(_entries_of(shard, work_dir, num_tasks))
    with files.atomic_write(path) as file:
        count = tfrecord.write_records(file, found)
    files.write_bytes(count_path, str(count).encode())
    return count


def _entries_of(shard: int, work_dir: str, num_tasks: int) -> Iterator[bytes]:
    for task in range(num_tasks):
        spill = _spill_path(work_dir, task)
        offsets = np.load(spill + ".offsets.npy", mmap_mode="r")
        with open(spill, "rb") as file:
            for start, end in offsets[:, shard:shard + 2].tolist():
                file.seek(start)
                yield file.read(end - start)
