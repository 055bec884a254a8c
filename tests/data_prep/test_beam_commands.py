"""Beam jobs as commands, with workers in other processes: what stands in `__main__` does not reach them.
And runners that cannot be reached: one line."""

import os
import subprocess
import sys

import pytest
from paths import ROOT

from data_prep.build import engine_beam
from electra_es.errors import UsageError

pytest.importorskip("apache_beam")

TWO_WORKERS = ["--runner=DirectRunner", "--workers=2"]
THE_SAME = ["--runner=DirectRunner", "--workers=1", "--", "--direct_num_workers=2",
            "--direct_running_mode=multi_processing"]


def command(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True,
                          text=True, timeout=240, env={**os.environ, **environment})


@pytest.mark.timeout(300)
@pytest.mark.parametrize("options", [TWO_WORKERS, THE_SAME], ids=["--workers", "--direct_num_workers"])
def test_count_words(corpus, tmp_path, options):
    counts = {}
    for name, runner in (("local", ["--workers=1"]), ("beam", options)):
        output = tmp_path / f"{name}.tsv"
        result = command("data_prep.count_words", f"--input={corpus}/*", f"--output={output}", *runner)
        assert result.returncode == 0, result.stderr
        counts[name] = sorted(output.read_text(encoding="utf-8").splitlines())
    assert counts["beam"] == counts["local"] and len(counts["beam"]) > 500
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "beam.tsv", "beam.tsv.json", "local.tsv", "local.tsv.json"]


@pytest.mark.timeout(300)
def test_build_tfrecords(corpus, vocab_dir, tmp_path):
    shards = {}
    for name, runner in (("local", ["--workers=1"]), ("beam", THE_SAME)):
        output = tmp_path / name
        result = command("data_prep.build_tfrecords", f"--input={corpus}/*", f"--vocab_dir={vocab_dir}",
                         f"--output={output}", "--dedup=exact", "--min_chars=20", *runner)
        assert result.returncode == 0, result.stderr
        shards[name] = {path.name: path.read_bytes() for path in output.iterdir()}
    assert shards["beam"] == shards["local"] and "COMPLETED" in shards["local"]


def test_a_long_tmpdir(corpus, vocab_dir, tmp_path):
    """Sockets of worker processes lie there, and the system allows paths of 107 bytes."""
    long = tmp_path / ("t" * 120)
    long.mkdir()
    result = command("data_prep.build_tfrecords", f"--input={corpus}/*", f"--vocab_dir={vocab_dir}",
                     f"--output={tmp_path}/records", "--workers=2", TMPDIR=str(long))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("runner, options, message", [
    ("FlinkRunner", ["--flink_master=localhost:1"], "--flink_master=localhost:1: cannot be reached"),
    ("SparkRunner", ["--spark_master_url=spark://localhost:1"],
     r"--spark_master_url=spark://localhost:1: cannot be reached \(Connection refused\)"),
    ("PortableRunner", ["--job_endpoint=localhost:1"], "--job_endpoint=localhost:1: cannot be reached"),
    ("PortableRunner", ["--job_endpoint=nowhere.invalid:8099"], "invalid:8099: cannot be reached"),
    ("DataflowRunner", [], "runner=DataflowRunner: Pipeline has validations errors: .*project"),
])
def test_runners_that_cannot_be_reached_are_one_line(runner, options, message):
    with pytest.raises(UsageError, match=message) as error:
        engine_beam.make_pipeline(runner, 1, options)
    assert "\n" not in str(error.value)


class Pipeline:
    """One that fails as Beam's do."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def run(self):
        raise self.error


def test_what_a_runner_says_is_one_line_and_a_mistake_of_ours_is_not():
    with pytest.raises(UsageError, match="^runner=PrismRunner: Unable to fetch the binary$"):
        error = RuntimeError("Unable to fetch the binary\n  at x")
        engine_beam.run_to_end(Pipeline(error), "PrismRunner")
    with pytest.raises(UsageError, match="^a.txt: cannot be read$"):
        error = RuntimeError("Traceback\nelectra_es.errors.UsageError: a.txt: cannot be read "
                             "[while running 'Count']")
        engine_beam.run_to_end(Pipeline(error), "x")
    with pytest.raises(KeyError):
        engine_beam.run_to_end(Pipeline(KeyError("'a' [while running 'Count']")), "x")
