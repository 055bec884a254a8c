"""Apache Beam engine: the same functions in one process, on all cores, on Flink or Dataflow.

    tasks -> Reshuffle -> ParDo(task -> (shard, entries)) -> GroupByKey -> ParDo(write shard)
                                 `-> statistics -> Combine ------------------> two files
    files -> Reshuffle -> Map(checksum) -------------------------------------> one file

One GroupByKey moves the records. They are already serialised, in one value per task and shard, so
that its cost depends only on their bytes. The ParDo itself reads the files, because `ReadFromText`
cannot find the end of a document.

Runners in one process keep a GroupByKey in memory (about 2 bytes for each byte of text): for
more than a few GB on one machine use `engine_local`.
"""

import logging
import re
import socket
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions

from data_prep.build import tasks as pipeline_tasks
from data_prep.build.description import Duplicates, Job, Task
from data_prep.build.engine_local import check_input
from data_prep.build.kept import document_keys
from data_prep.build.statistics import CHECKSUMS_FILE, COUNTS_FILE, SAVED, STATISTICS, Statistics
from data_prep.corpus.cleaning import sizes_by_range
from electra_es import files
from electra_es.data import tfrecord
from electra_es.errors import UsageError, reason

# Beam logs a line for every channel that a worker opens.
logging.getLogger("apache_beam.runners.worker").setLevel(logging.WARNING)

# Beam's "DirectRunner" now first tries to download Prism, another program.
_IN_PROCESS_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def pipeline_options(runner: str, workers: int, beam_options: Sequence[str]) -> PipelineOptions:
    """Options of a job.

    Args:
      workers: processes of DirectRunner; other runners have options of their own.
      beam_options: flags for Beam, such as "--parallelism=64".

    Raises:
      UsageError: a flag that Beam does not know.
    """
    flags = [f"--runner={_IN_PROCESS_RUNNER if runner == 'DirectRunner' else runner}"]
    if runner == "DirectRunner" and workers != 1:
        flags += [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"]
    options = PipelineOptions([*flags, *beam_options])
    known = options.get_all_options(retain_unknown_options=False)
    for flag in beam_options:
        name = flag.removeprefix("--").split("=")[0]
        if flag.startswith("--") and name not in known and name.removeprefix("no_") not in known:
            raise UsageError(f"{flag}: Apache Beam with runner={runner} has no such option")
    return options


def run(tasks: Sequence[Task], job: Job, vocab_size: int, shard_files: Sequence[str], work_dir: str,
        runner: str, workers: int, beam_options: Sequence[str], max_bad_fraction: float
        ) -> tuple[list[int], Statistics, dict[str, str]]:
    """Builds all shards, as `engine_local.run`; all workers must reach `work_dir`.

    When the job is started again, finished shards are kept and all tasks are repeated.
    """
    files.make_directory(work_dir)
    if not all(files.exists(files.join(work_dir, name))
               for name in (STATISTICS + SAVED, COUNTS_FILE, CHECKSUMS_FILE)):
        pipeline = make_pipeline(runner, workers, beam_options)
        _build(pipeline, tasks, job, vocab_size, shard_files, work_dir)
        run_to_end(pipeline, runner)
    statistics = Statistics.load(files.join(work_dir, STATISTICS))
    check_input(statistics, max_bad_fraction)
    checksums = files.read_json(files.join(work_dir, CHECKSUMS_FILE))
    return (files.read_array(files.join(work_dir, COUNTS_FILE)).tolist(), statistics,
            {task.path: checksums[str(task.number)] for task in _first_tasks(tasks)})


# Options with the address of a server that this machine talks to.
_ENDPOINTS = ("job_endpoint", "artifact_endpoint", "flink_master", "spark_master_url", "spark_rest_url")
_ADDRESS = re.compile(r"(?:\w+://)?([\w.-]+):(\d+)(?:/.*)?")
_SECONDS_TO_ANSWER = 5
# What Beam adds to an error of a function that it ran.
_IN_A_WORKER = "[while running"


def make_pipeline(runner: str, workers: int, beam_options: Sequence[str]) -> beam.Pipeline:
    """An empty pipeline; see `pipeline_options`.

    Raises:
      UsageError: no such runner, options that do not fit it, or a server that does not answer.
    """
    options = pipeline_options(runner, workers, beam_options)
    _check_endpoints(options)
    try:
        return beam.Pipeline(options=options)
    except (ImportError, ValueError) as error:
        raise UsageError(f"runner={runner}: {_one_line(error)}") from None


def _check_endpoints(options: PipelineOptions) -> None:
    """Looks whether the servers answer. Beam would wait for them for minutes, or start one in Java."""
    values = options.get_all_options(retain_unknown_options=True)
    for name in _ENDPOINTS:
        if match := _ADDRESS.fullmatch(str(values.get(name) or "")):
            try:
                socket.create_connection((match[1], int(match[2])), _SECONDS_TO_ANSWER).close()
            except (OSError, OverflowError) as error:
                raise UsageError(f"--{name}={values[name]}: cannot be reached "
                                 f"({getattr(error, 'strerror', None) or reason(error)})") from None


def _one_line(error: Exception) -> str:
    """What an error of Beam or gRPC says; Beam puts a list under a line that ends in a colon."""
    if details := getattr(error, "details", None):
        return str(details() if callable(details) else details)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        return f"{lines[0]} {'; '.join(lines[1:])}"[:300]
    return reason(error)


def run_to_end(pipeline: beam.Pipeline, runner: str) -> None:
    """Runs the pipeline. A UsageError of a worker is raised here with its one line, and so is what a
    runner says that cannot be reached."""
    try:
        pipeline.run().wait_until_finish()
    except UsageError:
        raise
    except Exception as error:
        line = next((line for line in reversed(str(error).splitlines())
                     if "UsageError: " in line), None)
        logging.debug("in the runner: %s", error)
        if line is not None:
            message = line.split("UsageError: ", 1)[1].split(f" {_IN_A_WORKER}")[0]
            raise UsageError(message) from None
        if _IN_A_WORKER in str(error):  # A mistake of this program, whose traceback is worth reading.
            raise
        raise UsageError(f"runner={runner}: {_one_line(error)}") from None


def _build(pipeline: beam.Pipeline, tasks: Sequence[Task], job: Job, vocab_size: int,
           shard_files: Sequence[str], work_dir: str) -> None:
    keyed = pipeline | "Tasks" >> beam.Create([(task.number, task) for task in tasks])
    if job.dedup == "none":
        with_duplicates = keyed | "NoDuplicates" >> beam.MapTuple(
            lambda _, task: (task, Duplicates()))
    else:
        with_duplicates = _find_duplicates(keyed, job)
    outputs = (with_duplicates | "Spread" >> beam.Reshuffle()
               | "Process" >> beam.ParDo(_Process(job, vocab_size))
               .with_outputs("statistics", main="entries"))
    # Shards without records are written too.
    all_shards = pipeline | "Shards" >> beam.Create(
        [(shard, b"") for shard in range(len(shard_files))])
    counts = ((outputs.entries, all_shards) | beam.Flatten() | beam.GroupByKey()
              | "WriteShards" >> beam.ParDo(_WriteShard(list(shard_files))))
    _ = (counts | "AllCounts" >> beam.CombineGlobally(beam.combiners.ToListCombineFn())
         | "WriteCounts" >> beam.Map(_write_counts, work_dir))
    _ = (pipeline | "Files" >> beam.Create(_first_tasks(tasks))
         | "SpreadFiles" >> beam.Reshuffle()
         | "Checksums" >> beam.Map(lambda task: (task.number, files.checksum(task.path)))
         | "AllChecksums" >> beam.CombineGlobally(beam.combiners.ToDictCombineFn())
         | "WriteChecksums" >> beam.Map(_write_checksums, work_dir))
    _ = (outputs.statistics | "AddUp" >> beam.CombineGlobally(_AddUp(vocab_size))
         | "WriteStatistics" >> beam.Map(_write_statistics, work_dir))


def _find_duplicates(keyed: beam.PCollection, job: Job) -> beam.PCollection:
    """(number, task) -> (task, its documents that repeat earlier ones).

        (3, Task(3, "b.txt", ...)) -> ((0, 0x9f2c...), (3, 17)) -> (3, (17, 2, 0)) -> (Task(3), ...)
    """
    places = (
        keyed | "SpreadKeys" >> beam.Reshuffle()
        | "Keys" >> beam.FlatMapTuple(lambda number, task: _document_keys(number, task, job))
        | "SameKey" >> beam.GroupByKey()
        | "Ranks" >> beam.FlatMapTuple(lambda _, places: _ranks(places)))
    return ({"task": keyed, "documents": places} | beam.CoGroupByKey()
            | "Duplicates" >> beam.MapTuple(lambda _, groups: (
                next(iter(groups["task"])), _duplicates(groups["documents"], job.max_copies))))


def _ranks(places: Iterable[tuple[int, int]]) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """(task, (document, size of its group, documents of it that are earlier)), for groups of several."""
    ordered = sorted(places)
    if len(ordered) > 1:
        for rank, (task, document) in enumerate(ordered):
            yield task, (document, len(ordered), rank)


def _duplicates(documents: Iterable[tuple[int, int, int]], max_copies: int) -> Duplicates:
    """Those of one task, from the groups that its documents are in."""
    sizes: dict[int, int] = {}
    ranks: dict[int, int] = {}
    for document, size, rank in documents:
        sizes[document] = max(size, sizes.get(document, 0))
        ranks[document] = max(rank, ranks.get(document, 0))
    return Duplicates(
        frozenset(document for document, rank in ranks.items() if rank >= max_copies),
        tuple(sizes_by_range(
            size for document, size in sizes.items() if not ranks[document]).items()))


def _document_keys(number: int, task: Task, job: Job
                   ) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for index, keys in enumerate(document_keys(task, job).tolist()):
        for column, key in enumerate(keys):
            yield (column, key), (number, index)


class _Process(beam.DoFn):
    """(task, duplicates) -> (shard, entries), and its Statistics under the tag "statistics"."""

    def __init__(self, job: Job, vocab_size: int) -> None:
        self._job = job
        self._vocab_size = vocab_size

    def process(self, element: tuple[Task, Duplicates]) -> Iterator:
        task, duplicates = element
        statistics = Statistics.empty(self._vocab_size)
        for entries in pipeline_tasks.process_task(task, self._job, statistics, duplicates):
            yield from entries.items()
        yield beam.pvalue.TaggedOutput("statistics", statistics)


class _WriteShard(beam.DoFn):
    """(shard, entries of it) -> (shard, number of records), with the shard's file written."""

    def __init__(self, shard_files: list[str]) -> None:
        self._shard_files = shard_files

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[tuple[int, int]]:
        shard, pieces = element
        found = pipeline_tasks.merge_entries(pieces)
        if not files.exists(self._shard_files[shard]):
            with files.atomic_write(self._shard_files[shard]) as file:
                tfrecord.write_records(file, found)
        yield shard, len(found)


class _AddUp(beam.CombineFn):
    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size

    def create_accumulator(self) -> Statistics:
        return Statistics.empty(self._vocab_size)

    def add_input(self, accumulator: Statistics, statistics: Statistics) -> Statistics:
        accumulator.add(statistics)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Statistics]) -> Statistics:
        total = self.create_accumulator()
        for accumulator in accumulators:
            total.add(accumulator)
        return total

    def extract_output(self, accumulator: Statistics) -> Statistics:
        return accumulator


def _write_counts(counts: list[tuple[int, int]], work_dir: str) -> None:
    files.write_array(files.join(work_dir, COUNTS_FILE),
                      np.array([count for _, count in sorted(counts)], np.int64))


def _first_tasks(tasks: Sequence[Task]) -> list[Task]:
    """The first task of each file; names of files may hold what is no text, which Beam cannot send."""
    return list({task.path: task for task in reversed(tasks)}.values())


def _write_checksums(checksums: dict[int, str], work_dir: str) -> None:
    files.write_json(files.join(work_dir, CHECKSUMS_FILE), checksums)


def _write_statistics(statistics: Statistics, work_dir: str) -> None:
    statistics.save(files.join(work_dir, STATISTICS))
