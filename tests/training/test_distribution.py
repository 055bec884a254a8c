"""Two replicas, two processes and two micro-batches against one: the same losses and weights."""

import json
import pathlib
import shutil
import socket
import types

import numpy as np
import pytest
import tensorflow as tf
from engine_helpers import TrainingProcess, make_data, saved_state

from electra_es.errors import EXIT_STOPPED, EXIT_WRONG_USE
from electra_es.training.checkpoint_files import completed_steps
from electra_es.training.devices import worker_index

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


def start_workers(data, model_dirs, tasks=(("worker", 0), ("worker", 1)), settings=({}, {})
                  ) -> list[TrainingProcess]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in (first, second)]
    cluster: dict[str, list[str]] = {}
    for (kind, _), address in zip(tasks, addresses, strict=True):
        cluster.setdefault(kind, []).append(address)
    return [
        TrainingProcess(
            data, model_dir, MODEL, **{**RUN, **own}, distribution="multi_worker", environment={
                "TF_CONFIG": json.dumps({"cluster": cluster,
                                         "task": {"type": kind, "index": index}})})
        for (kind, index), model_dir, own in zip(tasks, model_dirs, settings, strict=True)]


@pytest.mark.parametrize("tasks", [(("worker", 0), ("worker", 1)), (("chief", 0), ("worker", 0))],
                         ids=["two workers", "chief and worker"])
def test_two_processes_one_of_which_is_signalled(data, one_replica, tmp_path, tasks):
    """Both stop at the same step with one checkpoint, and a single process continues from it."""
    chief, other = start_workers(data, [tmp_path / "run"] * 2, tasks)
    chief.wait_for_step(6)
    other.process.terminate()
    chief.wait(expected=EXIT_STOPPED)
    other.wait(expected=EXIT_STOPPED)
    assert "step 6/20" not in other.log.read_text(), "only one of them is the chief"
    stopped = completed_steps(str(tmp_path / "run"))[-1]
    assert 6 <= stopped < 20
    assert not list((tmp_path / "run" / "checkpoints").glob(".writing*"))
    TrainingProcess(data, tmp_path / "run", MODEL, **RUN).wait()
    assert_same_training(tmp_path / "run", one_replica)


def test_workers_that_find_different_checkpoints_stop(data, one_replica, tmp_path):
    """The workers have different directories; the second one does not have the last checkpoint."""
    copies = [pathlib.Path(shutil.copytree(one_replica, tmp_path / name)) for name in ("a", "b")]
    shutil.rmtree(copies[1] / "checkpoints" / "step-00000020")
    for worker, copy in zip(start_workers(data, copies), copies, strict=True):
        printed = worker.wait(expected=EXIT_WRONG_USE)
        assert (f"error: {copy}: the workers do not find the same checkpoint there (those of steps "
                "10, 20)") in printed
        assert "Traceback" not in printed


@pytest.mark.parametrize("rates, lines", [
    ([1e-3, 2e-3], ["error: learning_rate=0.001 is not what every worker has",
                    "error: learning_rate=0.002 is not what every worker has"]),
    ([2e-3, 2e-3], ["holds a run with learning_rate=0.001, this one has learning_rate=0.002",
                    "error: 1 other worker(s) cannot go on"]),
], ids=["other settings", "refused by the chief"])
def test_what_one_worker_cannot_do_none_begins(data, one_replica, tmp_path, rates, lines):
    run = shutil.copytree(one_replica, tmp_path / "run")
    workers = start_workers(data, [run, run], settings=[dict(learning_rate=rate) for rate in rates])
    for worker, line in zip(workers, lines, strict=True):
        assert line in worker.wait(expected=EXIT_WRONG_USE)


class Resolver:
    def __init__(self, task_type: str, task_id: int, **cluster: int):
        self.task_type, self.task_id = task_type, task_id
        self._cluster = tf.train.ClusterSpec(
            {kind: [f"{kind}{i}:1" for i in range(count)] for kind, count in cluster.items()})

    def cluster_spec(self) -> tf.train.ClusterSpec:
        return self._cluster


@pytest.mark.parametrize("resolver, index", [
    (None, 0), (Resolver("worker", 0, worker=3), 0), (Resolver("worker", 2, worker=3), 2),
    (Resolver("chief", 0, chief=1, worker=2), 0), (Resolver("worker", 0, chief=1, worker=2), 1),
    (Resolver("worker", 1, chief=1, worker=2), 2),
])
def test_numbers_of_workers(resolver, index):
    """Each worker has its own number, and the chief has number 0."""
    assert worker_index(types.SimpleNamespace(cluster_resolver=resolver)) == index
