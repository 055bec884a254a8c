"""The estimate of memory against what a step takes, and what a run says of it."""

import concurrent.futures
import os
import pathlib
import re
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from engine_helpers import PROCESSES
from tensorflow.python.util import _pywrap_util_port

from electra_es import hardware
from electra_es.config import ModelConfig, PretrainingConfig, model_config
from electra_es.data.inputs import synthetic_batch
from electra_es.errors import UsageError
from electra_es.hardware import Memory
from electra_es.model.batches import VocabularyFacts
from electra_es.model.pretrainer import build_pretrainer
from electra_es.training import memory
from electra_es.training.memory import TOLERANCE, activation_bytes, check_memory, parameters
from electra_es.training.optimization import Adam, schedule_for
from electra_es.training.steps import TrainStep, make_train_loop

MEGABYTE = 1e6
# Most of the memory is kept of the layers' widths, of attention, of the vocabulary, and of micro-batches.
STEPS = {
    "layers": (dict(embedding_size=48, hidden_size=96, num_layers=3, num_heads=3, intermediate_size=384,
                    max_position_embeddings=64), 900, dict(train_batch_size=256, max_seq_length=64)),
    "attention": (dict(embedding_size=24, hidden_size=64, num_layers=2, num_heads=8,
                       intermediate_size=80, max_position_embeddings=256), 700,
                  dict(train_batch_size=48, max_seq_length=256)),
    "vocabulary": (dict(embedding_size=16, hidden_size=32, num_layers=2, num_heads=2,
                        intermediate_size=64, max_position_embeddings=96), 30_000,
                   dict(train_batch_size=72, max_seq_length=96)),
    "micro-batches": (dict(embedding_size=48, hidden_size=96, num_layers=3, num_heads=3,
                           intermediate_size=384, max_position_embeddings=64), 900,
                      dict(train_batch_size=768, max_seq_length=64, accumulation_steps=3)),
}


def train_step(settings: ModelConfig, config: PretrainingConfig, vocab_size: int) -> TrainStep:
    model = build_pretrainer(settings, VocabularyFacts(
        vocab_size, 0, 2, 3, 4, np.ones(vocab_size, bool)))
    optimizer = Adam(model.trainable_variables, schedule_for(config), config)
    return TrainStep(model, optimizer, settings, config)


def bytes_of_a_step(name: str) -> int:
    """By how much the process grows at most in its first two steps; call it in a process of its own."""
    model_settings, vocab_size, settings = STEPS[name]
    config = PretrainingConfig(**settings)
    loop = make_train_loop(train_step(ModelConfig(**model_settings), config, vocab_size),
                           tf.distribute.get_strategy())
    batches = iter(tf.data.Dataset.from_tensors(synthetic_batch(
        config.train_batch_size, config.max_seq_length, vocab_size)).repeat())
    arguments = batches, tf.constant(2), tf.constant(0.0)
    loop.get_concrete_function(*arguments)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    loop(*arguments)["tokens"].numpy()
    return resident("VmHWM") - before


def resident(kind: str) -> int:
    found = re.search(rf"^{kind}:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text(), re.M)
    assert found
    return int(found[1]) * 1024


@pytest.mark.skipif(not _pywrap_util_port.IsMklEnabled(),
                    reason="TensorFlow computes without oneDNN here: up to 1.5 times the estimate")
@pytest.mark.parametrize("name", STEPS)
def test_the_estimate_is_what_a_step_takes(name):
    model_settings, vocab_size, settings = STEPS[name]
    config = PretrainingConfig(**settings)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=PROCESSES) as pool:
        measured = pool.submit(bytes_of_a_step, name).result()
    estimated = activation_bytes(
        ModelConfig(**model_settings), config, vocab_size,
        config.train_batch_size / config.accumulation_steps)
    # Weights and moments were there before; graph and kernels are not counted.
    print(name, f"measured {measured / MEGABYTE:.0f} MB, estimated {estimated / MEGABYTE:.0f} MB")
    assert measured > 250 * MEGABYTE
    assert measured == pytest.approx(estimated, rel=TOLERANCE)


@pytest.mark.parametrize("sharing", ["tied", "gradient_disentangled"])
def test_a_step_looks_nothing_up_in_a_variable(sharing):
    """Else TensorFlow copies the variable, which may be the table of embeddings, at every other use."""
    settings = ModelConfig(num_layers=1, embedding_size=16, hidden_size=20, num_heads=2,
                           intermediate_size=24, max_position_embeddings=13, embedding_sharing=sharing)
    config = PretrainingConfig(train_batch_size=4, max_seq_length=13)
    graph = tf.function(train_step(settings, config, 61), autograph=False).get_concrete_function(
        synthetic_batch(4, 13, 61)).graph.as_graph_def()
    operations = {node.op for function in graph.library.function for node in function.node_def}
    assert "GatherV2" in operations and "ReadVariableOp" in operations
    assert not [name for name in operations if name.startswith(("ResourceGather", "ResourceScatter"))]


def test_parameters_are_those_of_the_matrices():
    """Biases, LayerNorm and positions, which are not counted, are a small part."""
    for settings in (dict(model_size="small"),
                     dict(model_size="small", embedding_sharing="gradient_disentangled"),
                     dict(model_size="base", objective="mlm")):
        built = build_pretrainer(model_config({**settings, "num_layers": 2}),
                                 VocabularyFacts(5000, 0, 2, 3, 4, np.ones(5000, bool)))
        exact = sum(int(v.shape.num_elements()) for v in built.trainable_variables)
        assert parameters(built.config, 5000) == pytest.approx(exact, rel=0.1), settings


def said(monkeypatch, free: float, total: float, **settings) -> str:
    """What `check_memory` says of small, 128 x 128, on a machine with so many GB."""
    monkeypatch.setattr(memory, "host_memory", lambda: Memory(int(total * 1e9), int(free * 1e9)))
    config = PretrainingConfig(**{**dict(train_batch_size=128, max_seq_length=128), **settings})
    return check_memory(model_config({"model_size": "small"}), config, 50_000,
                        tf.distribute.OneDeviceStrategy("device:CPU:0"))


def test_a_run_that_fits_is_silent(monkeypatch):
    assert said(monkeypatch, 60, 64) == ""


def test_a_warning_names_micro_batches_that_fit(monkeypatch):
    line = said(monkeypatch, 7, 16)
    assert re.match(r"train_batch_size=128, max_seq_length=128: a step takes about [\d.]+ GB, and 7.0 GB "
                    r"of 16 GB are free; .*: --accumulation_steps=\d+, which takes about", line), line
    parts, batch = (int(re.search(rf"{name}=(\d+)", line)[1])
                    for name in ("--accumulation_steps", "--train_batch_size"))
    assert parts * batch == 128
    assert said(monkeypatch, 7, 16, accumulation_steps=parts) == ""
    assert "accumulation_steps=2: a step takes" in said(monkeypatch, 4, 16, accumulation_steps=2)


def test_what_no_machine_of_this_size_can_do_is_refused(monkeypatch):
    with pytest.raises(UsageError, match="a step takes at least .* GB, this machine has 5.0 GB: "
                                         "expected --accumulation_steps="):
        said(monkeypatch, 4, 5)
    with pytest.raises(UsageError, match="expected shorter examples, a smaller model or a larger"):
        said(monkeypatch, 0.6, 0.65, train_batch_size=16, max_seq_length=512)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes files of control groups: `__` stands for `/`, `_dot_` for `.`."""
    monkeypatch.setattr(hardware, "_PROC", tmp_path)
    monkeypatch.setattr(hardware, "_CGROUPS", tmp_path / "cgroup")

    def write(**files: object) -> None:
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return write


def test_cores_of_a_container(write, monkeypatch):
    """Time on cores, of both kinds of control groups and of those around the process."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert hardware.usable_cores() == 8
    write(self__cgroup="0::/a/b", cgroup__a__b__cpu_dot_max="max 100000")
    assert hardware.usable_cores() == 8
    write(cgroup__a__cpu_dot_max="350000 100000")
    assert hardware.usable_cores() == 3
    write(cgroup__a__cpu_dot_max="50000 100000")
    assert hardware.usable_cores() == 1
    write(self__cgroup="4:cpu,cpuacct:/not/seen/inside", cgroup__cpu__cpu_dot_cfs_quota_us=-1,
          cgroup__cpu__cpu_dot_cfs_period_us=100_000)
    assert hardware.usable_cores() == 8
    write(cgroup__cpu__cpu_dot_cfs_quota_us=600_000)
    assert hardware.usable_cores() == 6


def test_memory_of_a_container(write):
    """The least of the machine, of both kinds of control groups, and of those around the process."""
    write(meminfo="MemTotal: 1000 kB\nMemAvailable: 600 kB\nSwapTotal: 100 kB\nSwapFree: 50 kB")
    write(self__cgroup="0::/a/b")
    assert hardware.host_memory() == (1100 * 1024, 650 * 1024)
    write(cgroup__a__b__memory_dot_max="max", cgroup__a__b__memory_dot_current=5)
    assert hardware.host_memory() == (1100 * 1024, 650 * 1024)
    write(cgroup__a__memory_dot_max=500_000, cgroup__a__memory_dot_current=300_000,
          cgroup__a__memory_dot_stat="anon 7\ninactive_file 40000")
    assert hardware.host_memory() == (500_000, 240_000)
    write(self__cgroup="9:name=systemd:/\n4:cpu,memory:/not/seen/inside",
          cgroup__memory__memory_dot_limit_in_bytes=400_000,
          cgroup__memory__memory_dot_usage_in_bytes=390_000)
    assert hardware.host_memory() == (400_000, 10_000)


def test_memory_of_devices(monkeypatch):
    """A GPU has what TensorFlow may take of it; a replica has the host's memory beside it."""
    from tensorflow.python.client import device_lib

    strategy = SimpleNamespace(num_replicas_in_sync=2, extended=SimpleNamespace(
        worker_devices=("/job:localhost/device:GPU:0", "/job:localhost/device:GPU:1")))
    monkeypatch.setattr(memory, "host_memory", lambda: Memory(64 * 10**9, 60 * 10**9))
    monkeypatch.setattr(device_lib, "list_local_devices", lambda: [
        SimpleNamespace(device_type="CPU", memory_limit=1),
        *(SimpleNamespace(device_type="GPU", memory_limit=int(gb * 1e9)) for gb in (16, 4))])
    config = PretrainingConfig(train_batch_size=256, max_seq_length=512)
    line = check_memory(model_config({"model_size": "small"}), config, 50_000, strategy)
    assert "and 4.0 GB of 4.0 GB are free" in line and "--accumulation_steps=" in line
