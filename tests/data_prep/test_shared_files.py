"""One large compressed file: read by one process, its pieces worked on by all, with the same result."""

import bz2
import gzip
import json
import lzma
import os
import pathlib
import random
import signal
import subprocess
import sys

import pytest
import zstandard
from builder_helpers import config, digests, sentence, stats_of, stop_job
from paths import ROOT

from data_prep.build import kept
from data_prep.build import tasks as pipeline_tasks
from data_prep.build.job import build_tfrecords
from data_prep.build.workers import Workers
from data_prep.corpus.readers import read_documents
from data_prep.words import counting
from electra_es.config import TextConfig
from electra_es.errors import UsageError

pytestmark = pytest.mark.usefixtures("small_tasks")

EVERYTHING = dict(dedup="near", quality="fineweb2_es", min_chars=60, max_copies=2, language="es")


def prose(draws: random.Random) -> str:
    """A document that the rules keep: of many words, two of them stop words."""
    words = ["".join(draws.choices("abcdeñé", k=draws.randint(3, 9)))
             for _ in range(draws.randint(60, 90))]
    return " ".join(["de", "la", *words, "fin."])


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """230 documents as JSON, some twice, some short, some in another language."""
    draws = random.Random(11)
    texts = [prose(draws) for _ in range(150)] + [sentence(draws) for _ in range(50)]
    texts += texts[:30]
    draws.shuffle(texts)
    return [json.dumps({"text": text, "language": draws.choice(["es", "es", "es", "en"])},
                       ensure_ascii=False).encode() + b"\n" for text in texts]


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(pipeline_tasks, "BLOCK_BYTES", 7_000)
    monkeypatch.setattr(kept, "_BATCH_CHARACTERS", 3_000)


@pytest.fixture
def shared_work(monkeypatch) -> list[str]:
    """Labels of the calls that gave pieces to workers."""
    labels: list[str] = []
    real = Workers.in_order

    def noted(self, label, function, arguments):
        labels.append(label)
        return real(self, label, function, arguments)

    monkeypatch.setattr(Workers, "in_order", noted)
    return labels


@pytest.mark.parametrize("settings", [{}, EVERYTHING], ids=["plain", "every rule"])
@pytest.mark.parametrize("name, compress", [
    ("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.compress), ("a.txt.xz", lzma.compress),
    ("a.ndjson", bz2.compress)])
def test_same_bytes_with_any_number_of_workers(
        lines, small_pieces, shared_work, vocab_dir, tmp_path, name, compress, settings):
    data = b"".join(lines)
    if ".txt" in name:
        data = b"\n\n".join(json.loads(line)["text"].encode() for line in lines)
    (tmp_path / name).write_bytes(compress(data))
    (tmp_path / "small.txt").write_text("casa\n\n" * 30)  # and a part that one worker has alone
    found = []
    for workers in (1, 2, 3) if "gz" in name else (1, 2):
        output = tmp_path / f"records-{workers}"
        build_tfrecords(config(tmp_path, vocab_dir, output, workers=workers, **settings,
                               input=f"{tmp_path}/a.*,{tmp_path}/small.txt"))
        found.append(digests(output))
        assert bool(shared_work) == (workers > 1)
    assert all(each == found[0] for each in found[1:])
    if settings:
        assert {"parts of the input", "parts searched for duplicates"} == set(shared_work)
        assert len(stats_of(output)["dropped_documents"]) >= (3 if ".txt" in name else 4)


def test_bad_input_is_counted_as_by_one_worker(lines, small_pieces, shared_work, vocab_dir, tmp_path):
    spoilt = [*lines[:80], b"{no JSON\n", b'{"title": "no text"}\n', *lines[80:150], b'{"text": 7}\n',
              b'{"text": "nul \\u0000"}\n', *lines[150:]]
    data = gzip.compress(b"".join(spoilt))
    (tmp_path / "a.jsonl.gz").write_bytes(data[:len(data) * 4 // 5])
    stats = []
    for workers in (1, 2):
        output = tmp_path / f"records-{workers}"
        settings = config(tmp_path, vocab_dir, output, workers=workers, input=f"{tmp_path}/a.jsonl.gz")
        with pytest.raises(UsageError) as error:
            build_tfrecords(settings)
        stats.append(str(error.value))
        build_tfrecords(config(tmp_path, vocab_dir, output, workers=workers, overwrite=True,
                               input=f"{tmp_path}/a.jsonl.gz", max_bad_fraction=0.9))
        stats.append(stats_of(output))
    assert stats[0] == stats[2] and stats[1] == stats[3] and shared_work
    assert stats[1]["bad_input"]["truncated_file"] == 1 and len(stats[1]["bad_input"]) >= 4


def test_an_error_in_a_worker_leaves_nothing_finished(lines, small_pieces, vocab_dir, tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"".join(lines)))
    settings = config(tmp_path, vocab_dir, tmp_path / "records", workers=2, dedup="near",
                      input=f"{tmp_path}/a.jsonl.gz", near_duplicate_threshold=0.99)
    with pytest.raises(UsageError, match="near_duplicate_threshold=0.99: expected at most"):
        build_tfrecords(settings)
    assert not (tmp_path / "records/COMPLETED").exists()


@pytest.fixture(scope="module")
def large_file(tmp_path_factory, vocab_dir) -> tuple[str, dict[str, str]]:
    """A compressed file of more text than a part of another file has; the files that are made of it."""
    root, draws = tmp_path_factory.mktemp("large"), random.Random(2)
    data = "".join(json.dumps({"text": prose(draws)}) + "\n" for _ in range(7_000)).encode()
    (root / "a.jsonl.gz").write_bytes(gzip.compress(data, 0))
    settings = config(root, vocab_dir, root / "records", input=f"{root}/a.jsonl.gz")
    build_tfrecords(settings)
    return settings.input, digests(root / "records")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to look for processes")
@pytest.mark.parametrize("number, code", [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 3)])
def test_a_stopped_job_leaves_no_process_and_goes_on(vocab_dir, tmp_path, large_file, number, code):
    path, expected = large_file
    output = tmp_path / "records"
    command = [sys.executable, "-m", "data_prep.build_tfrecords", "--workers=2", f"--input={path}",
               f"--vocab_dir={vocab_dir}", f"--output={output}", "--max_seq_length=40",
               "--validation_fraction=0.1"]
    errors = stop_job(command, output, "_unfinished/task-00000.spill.tmp-*", number, code,
                      whole_group=code == 3, seconds=120)
    assert "Traceback" not in errors
    subprocess.run(command, cwd=ROOT, check=True, timeout=120, capture_output=True)
    assert digests(output) == expected


def test_words_of_one_file_are_counted_by_all(lines, shared_work, tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(lines)))
    alone, together = (counting.count_files(str(path), TextConfig(), sample_fraction=0.8,
                                            held_out_fraction=0.1, workers=workers)
                       for workers in (1, 2))
    assert alone == together and len(alone) > 1_000 and shared_work == ["parts of the input"]


def test_which_files_are_shared():
    def shared(workers: int, *sizes: int, name: str = "a.txt.gz") -> list[int]:
        tasks = pipeline_tasks.plan_tasks([(f"{i}-{name}", size) for i, size in enumerate(sizes)])
        return [task.size for task in pipeline_tasks.shared_tasks(tasks, workers)[0]]

    large = pipeline_tasks.TASK_BYTES
    assert shared(2, large) == [large]
    assert shared(1, large) == []
    assert shared(2, large, name="a.txt") == []
    assert shared(2, large // 3) == []  # it has no more text than a part of another file
    assert shared(2, large, large, large, 10 * large) == [10 * large]
    assert shared(2, *[large] * 3) == [large] * 3  # one worker would have two of them
    assert shared(8, *[large] * 7) == []  # a worker for each is quicker than one reader for all


def test_a_reader_tells_how_much_it_has_read(lines, tmp_path):
    for name, data in (("a.jsonl.gz", gzip.compress(b"".join(lines))), ("a.jsonl", b"".join(lines))):
        path, sizes = pathlib.Path(tmp_path / name), list[int]()
        path.write_bytes(data)
        assert len(list(read_documents(str(path), on_read=sizes.append))) == len(lines)
        assert sum(sizes) == len(data)
