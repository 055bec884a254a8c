"""Two replicas, two processes and two micro-batches against one: the same losses and weights."""

import json
import socket

import numpy as np
import pytest
from engine_helpers import TrainingProcess, make_data, saved_state

from electra_es.errors import EXIT_STOPPED
from electra_es.training.checkpoint_files import completed_steps

# Without dropout, whose masks are drawn per replica.
MODEL = dict(hidden_dropout=0.0, attention_dropout=0.0)
RUN = dict(num_train_steps=20, restart_steps=(), learning_rate=1e-3, log_every=1, save_every=10)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def one_replica(data, tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("one") / "run"
    TrainingProcess(data, model_dir, MODEL, **RUN).wait()
    return model_dir


def losses(model_dir) -> list[float]:
    lines = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def assert_same_training(model_dir, other) -> None:
    assert len(losses(model_dir)) == 20
    np.testing.assert_allclose(losses(model_dir), losses(other), rtol=1e-5)
    first, second = saved_state(model_dir), saved_state(other)
    assert first.keys() == second.keys()
    for name in first:
        if "moments" not in name:
            np.testing.assert_allclose(first[name], second[name], rtol=1e-3, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("settings", [{"cpu_replicas": 2}, {"accumulation_steps": 2}],
                         ids=["two replicas", "two micro-batches"])
def test_parts_of_a_batch(data, one_replica, tmp_path, settings):
    TrainingProcess(data, tmp_path / "run", MODEL, **RUN, **settings).wait()
    assert_same_training(tmp_path / "run", one_replica)


def start_workers(data, model_dir) -> list[TrainingProcess]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        workers = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in (first, second)]
    return [
        TrainingProcess(
            data, model_dir, MODEL, **RUN, distribution="multi_worker", environment={
                "TF_CONFIG": json.dumps({"cluster": {"worker": workers},
                                         "task": {"type": "worker", "index": index}})})
        for index in range(2)]


def test_two_processes_one_of_which_is_signalled(data, one_replica, tmp_path):
    """Both leave at the same step with one checkpoint, from which a single process goes on."""
    chief, other = start_workers(data, tmp_path / "run")
    chief.wait_for_step(6)
    other.process.terminate()
    chief.wait(expected=EXIT_STOPPED)
    other.wait(expected=EXIT_STOPPED)
    stopped = completed_steps(str(tmp_path / "run"))[-1]
    assert 6 <= stopped < 20
    assert not list((tmp_path / "run" / "checkpoints").glob(".writing*"))
    TrainingProcess(data, tmp_path / "run", MODEL, **RUN).wait()
    assert_same_training(tmp_path / "run", one_replica)
