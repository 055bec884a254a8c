"""Worker processes: results, crashes, signals; and a job that continues after each of them."""

import logging
import os
import signal
import subprocess
import sys
import time
import uuid

import pytest
from builder_helpers import digests, stop_job
from paths import ROOT

from data_prep.build import tasks as pipeline_tasks
from data_prep.build import workers
from data_prep.build.job import build_tfrecords
from data_prep.build.settings import BuildConfig
from data_prep.progress import PROGRESS_SECONDS, Progress
from electra_es.config import TextConfig
from electra_es.errors import UsageError
from electra_es.text.vocabulary import save_text_config


def square(number: int) -> int:
    if number == 13:
        raise UsageError("13: expected another number")
    return number * number


@pytest.mark.parametrize("count", [1, 2])
def test_every_call_gives_its_result_under_its_number(count):
    with workers.pool(count) as run_all:
        arguments = [(number,) for number in range(3, 9)]
        found = list(run_all("numbers", square, arguments, [1] * 6))
        assert sorted(found) == [(0, 9), (1, 16), (2, 25), (3, 36), (4, 49), (5, 64)]


def test_the_largest_call_is_begun_first(monkeypatch):
    started = []

    class Executor(workers.ProcessPoolExecutor):
        def submit(self, function, *arguments):
            started.append(arguments[0])
            return super().submit(function, *arguments)

    monkeypatch.setattr(workers, "ProcessPoolExecutor", Executor)
    with workers.pool(2) as run_all:
        list(run_all("numbers", square, [(3,), (4,), (5,), (6,)], [20, 1, 400, 20]))
    assert started == [5, 3, 6, 4]


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_of_a_worker_comes_back_as_it_is(count):
    with pytest.raises(UsageError, match=r"^13: expected another number$"), (
            workers.pool(count)) as run_all:
        list(run_all("numbers", square, [(3,), (13,), (4,)], [1, 1, 1]))


def test_a_worker_that_dies_ends_the_work_in_one_line():
    with pytest.raises(UsageError, match="a worker died while shards were worked on, perhaps out of "
                       "memory: the same command with fewer than --workers=2 goes on"), (
            workers.pool(2)) as run_all:
        list(run_all("shards", os._exit, [(9,)], [1]))


@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_the_order_of_the_arguments_which_are_taken_as_needed(count):
    taken = []
    with workers.pool(count) as run_all:
        found = run_all.in_order("numbers", square, (taken.append(n) or n for n in range(20, 50)))
        assert next(found) == (20, 400)
        assert len(taken) <= 1 + 3 * count
        assert list(found) == [(number, number * number) for number in range(21, 50)]


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_of_a_piece_comes_back_as_it_is(count):
    with pytest.raises(UsageError, match=r"^13: expected another number$"), (
            workers.pool(count)) as run_all:
        list(run_all.in_order("numbers", square, [3, 13, 4]))


def test_a_worker_that_dies_over_a_piece_ends_the_work_in_one_line():
    with pytest.raises(UsageError, match="a worker died while pieces were worked on"), (
            workers.pool(2)) as run_all:
        list(run_all.in_order("pieces", os._exit, [9]))


def test_progress_tells_rate_and_time_left(caplog, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress("shards", [300_000_000, 500_000_000, 1_000_000_000])
    with caplog.at_level(logging.INFO):
        now[0] += PROGRESS_SECONDS - 1
        progress.add(300_000_000)
        assert caplog.messages == []
        now[0] += 7
        progress.add(500_000_000)
    assert caplog.messages == ["shards: 2 of 3, 0.80 of 1.80 GB, 50.0 MB/s, ETA 20s"]


def test_progress_within_a_part_and_without_those_that_need_no_work(caplog, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress("files", [300_000_000, 500_000_000, 900_000_000])
    with caplog.at_level(logging.INFO):
        progress.leave_out(300_000_000)
        progress.add(100_000_000, parts=0)
        now[0] += PROGRESS_SECONDS
        progress.add(100_000_000, parts=0)
    assert caplog.messages == ["files: 0 of 2, 0.20 of 1.40 GB, 20.0 MB/s, ETA 1m00s"]


def test_parts_of_a_large_corpus_are_larger():
    def parts(*sizes, name="a.txt"):
        return pipeline_tasks.plan_tasks([(f"{i}-{name}", size) for i, size in enumerate(sizes)])

    step = pipeline_tasks.TASK_BYTES
    assert [(t.start, t.end) for t in parts(2 * step + 7)] == [
        (0, step), (step, 2 * step), (2 * step, 2 * step + 7)]
    assert len(parts(pipeline_tasks.MAX_TASKS * step)) == pipeline_tasks.MAX_TASKS
    large = parts(pipeline_tasks.MAX_TASKS * step + 1, 5)
    assert [task.number for task in large] == list(range(1026))
    assert sum(task.size for task in large) == pipeline_tasks.MAX_TASKS * step + 6
    assert large[1].start == large[0].end == 2 * step
    assert [(t.start, t.end, t.size) for t in parts(9 * step, 3, name="a.txt.gz")] == [
        (0, None, 9 * step), (0, None, 3)]


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> list[str]:
    """Flags of a job of 60 parts, long enough to be stopped in the middle."""
    root = tmp_path_factory.mktemp("job")
    (root / "vocabulary").mkdir()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "uno", "dos", "tres", "."]
    (root / "vocabulary" / "vocab.txt").write_text("\n".join(pieces) + "\n")
    save_text_config(root / "vocabulary", TextConfig())
    (root / "text").write_text("\n\n".join(f"uno dos {'tres ' * (i % 23)}." for i in range(6_000)))
    (root / "corpus").mkdir()
    for number in range(60):
        os.link(root / "text", root / "corpus" / f"{number:02}.txt")
    return [f"--input={root}/corpus", f"--vocab_dir={root}/vocabulary", "--workers=2"]


@pytest.fixture(scope="module")
def expected(job, tmp_path_factory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("expected") / "records"
    settings = dict(flag.removeprefix("--").split("=") for flag in job)
    build_tfrecords(BuildConfig(**{**settings, "workers": 1, "output": str(output)}))
    return digests(output)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to look for processes")
@pytest.mark.parametrize("number, whole_group, code", [
    (signal.SIGKILL, False, -signal.SIGKILL), (signal.SIGTERM, False, 3), (signal.SIGINT, True, 3)],
    ids=["kill -9", "SIGTERM", "Ctrl-C"])
def test_a_stopped_job_leaves_no_process_and_goes_on(job, expected, tmp_path, number, whole_group, code):
    output = tmp_path / "records"
    command = [sys.executable, "-m", "data_prep.build_tfrecords", *job, f"--output={output}"]
    errors = stop_job(command, output, "_unfinished/task-*.json", number, code, whole_group=whole_group)
    if code == 3:
        assert errors.endswith("stopped by a signal: the same command goes on from what is done\n")
        assert "Traceback" not in errors
    (output / f"info.json.tmp-{uuid.uuid4().hex}").write_text("as a killed process leaves it")

    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert "of 60 parts of the input are done already" in again.stderr
    assert digests(output) == expected
