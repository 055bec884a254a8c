"""The builder through Beam's portable protocol, as Flink and Spark run it: a job service, and
workers in processes of their own that a worker pool starts. Both are Beam's own, on loopback."""

import os
import pathlib
import random
import sys

import pytest
from apache_beam.runners.portability.local_job_service import LocalJobServicer
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
from paths import ROOT

from data_prep.build.job import build_tfrecords
from data_prep.build.settings import BuildConfig
from electra_es.config import TextConfig
from electra_es.text.vocabulary import save_text_config


@pytest.fixture
def portable(monkeypatch, tmp_path):
    """Beam's options for the two servers."""
    # The pool starts `python`, wherever the job was started from.
    monkeypatch.setenv("PATH", f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    jobs = LocalJobServicer(str(tmp_path / "staging"))
    port = jobs.start_grpc_server()
    workers, server = BeamFnExternalWorkerPoolServicer.start(use_process=True)
    yield [f"--job_endpoint=localhost:{port}", "--environment_type=EXTERNAL",
           f"--environment_config={workers}"]
    server.stop(None)
    jobs.stop()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("dedup", ["none", "exact"])
def test_workers_elsewhere_write_the_bytes_of_this_process(portable, tmp_path, dedup):
    draws = random.Random(4)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "uno", "dos", "tres", "cuatro", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    save_text_config(tmp_path, TextConfig())
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text("\n\n".join(
            " ".join(draws.choices(pieces[5:], k=draws.randint(1, 3))) for _ in range(200)))
    built = {}
    for runner, options in (("local", []), ("PortableRunner", portable)):
        output = tmp_path / runner
        build_tfrecords(BuildConfig(
            input=f"{tmp_path}/?.txt", vocab_dir=str(tmp_path), output=str(output), max_seq_length=33,
            validation_fraction=0.2, dedup=dedup, runner=runner, workers=1), options)
        built[runner] = {path.name: path.read_bytes() for path in output.iterdir()}
    assert built["PortableRunner"] == built["local"] and "COMPLETED" in built["local"]
