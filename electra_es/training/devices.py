"""Which devices a run uses: TPU (local, named or grpc), GPUs, several workers, CPU."""

import collections
import contextlib
import json
import os
import re
import socket
from typing import NamedTuple

import tensorflow as tf
import tf_keras
from absl import logging

from electra_es.config import PretrainingConfig
from electra_es.errors import UsageError, quiet_libraries
from electra_es.hardware import local_tpu, nvidia_gpus, usable_cores
from electra_es.model.parts import cores_for_parts, divides_between

_CONNECT_SECONDS = 30
_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


class TpuAddress(NamedTuple):
    """Where the TPU is: `local` on a TPU VM, the name of a TPU node, or grpc://host:port."""

    name: str = ""
    zone: str = ""
    project: str = ""


def set_up_devices(config: PretrainingConfig, tpu: TpuAddress, *, trains: bool = True
                   ) -> tf.distribute.Strategy:
    """Makes the strategy and sets determinism and the seed of initial weights.

    Call it before anything else touches TensorFlow's devices.

    Raises:
      UsageError: the requested devices do not exist, or contradict each other.
    """
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    tf_keras.utils.set_random_seed(config.seed)
    strategy = _make_strategy(config, tpu)
    replicas = strategy.num_replicas_in_sync
    for name in ("train_batch_size", "eval_batch_size") if trains else ("eval_batch_size",):
        parts = replicas * (config.accumulation_steps if name == "train_batch_size" else 1)
        if getattr(config, name) % parts:
            raise UsageError(
                f"{name}={getattr(config, name)}: expected a multiple of {parts} "
                f"({replicas} replicas, {parts // replicas} micro-batches)")
    return strategy


def _make_strategy(config: PretrainingConfig, tpu: TpuAddress) -> tf.distribute.Strategy:
    kind = config.distribution
    if kind == "auto":
        gpus = tf.config.list_physical_devices("GPU")
        kind = "tpu" if tpu.name else "gpu" if gpus else "cpu"
    if tpu.name and kind != "tpu":
        raise UsageError(f"--tpu={tpu.name} contradicts distribution={kind}")
    if kind == "tpu":
        return _tpu_strategy(tpu)
    if kind == "multi_worker":
        return _multi_worker_strategy()
    if kind == "gpu":
        count = len(tf.config.list_physical_devices("GPU"))
        if not count:
            raise UsageError("distribution=gpu: expected at least one GPU, TensorFlow sees none "
                             "(`python -m electra_es.devices` says why)")
        return (tf.distribute.MirroredStrategy() if count > 1
                else tf.distribute.OneDeviceStrategy("device:GPU:0"))
    return _cpu_strategy(config)


def _cpu_strategy(config: PretrainingConfig) -> tf.distribute.Strategy:
    replicas = config.cpu_replicas
    if replicas == 1:
        _divide_batches_between_cores(config)
        return tf.distribute.OneDeviceStrategy("device:CPU:0")
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(replicas)])
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])


def _divide_batches_between_cores(config: PretrainingConfig) -> None:
    """Gives each operation one thread if every core can have a part of each batch (`model/parts.py`).
    Not if XLA compiles the whole step, if the user set TensorFlow's number of threads, or if TensorFlow
    has started its threads."""
    cores = usable_cores()
    batches = (config.train_batch_size // config.accumulation_steps, config.eval_batch_size)
    if (config.jit_compile == "on" or any(name in os.environ for name in _THREADS)
            or not all(divides_between(rows, cores) for rows in batches)):
        return
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_inter_op_parallelism_threads(cores)
        tf.config.threading.set_intra_op_parallelism_threads(1)


def _multi_worker_strategy() -> tf.distribute.Strategy:
    try:
        cluster = json.loads(os.environ["TF_CONFIG"])
        cluster["cluster"]["worker"], cluster["task"]["index"]
    except (KeyError, ValueError, TypeError):
        raise UsageError(
            'distribution=multi_worker: expected the environment variable TF_CONFIG, for example '
            '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
            '"task": {"type": "worker", "index": 0}}') from None
    with quiet_libraries():  # gRPC's server announces its start
        return tf.distribute.MultiWorkerMirroredStrategy()


def _tpu_strategy(tpu: TpuAddress) -> tf.distribute.TPUStrategy:
    if not tpu.name:
        raise UsageError("distribution=tpu: expected --tpu=local, --tpu=NAME or --tpu=grpc://…")
    if tpu.name == "local" and not any(map(tf.config.list_physical_devices, ("TPU_SYSTEM", "TPU"))):
        raise UsageError("--tpu=local: TensorFlow sees no TPU on this machine "
                         "(`python -m electra_es.devices` shows what is installed)")
    try:
        if tpu.name != "local" and not tpu.name.startswith("grpc://"):
            _match_runtime(tpu)
        for address in re.findall(r"grpc://([^,]+)", tpu.name):
            _check_answers(address)
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu.name, zone=tpu.zone or None, project=tpu.project or None)
        if tpu.name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:  # TensorFlow's, Google's clients' and the network's have no common base
        lines = str(error).splitlines() or [type(error).__name__]
        raise UsageError(f"--tpu={tpu.name}: no TPU can be reached there ({lines[0]}); "
                         "`python -m electra_es.devices` shows what is installed") from None
    return tf.distribute.TPUStrategy(resolver)


def _check_answers(address: str) -> None:
    """Raises OSError or ValueError if nothing listens there. TensorFlow would wait for ever and would not
    react to Ctrl-C."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


def _match_runtime(tpu: TpuAddress) -> None:
    """Waits until a TPU node is healthy and runs this TensorFlow's version.

    The import is here because the client library needs Google credentials, which other machines
    do not have.
    """
    from cloud_tpu_client import Client

    client = Client(tpu=tpu.name, zone=tpu.zone or None, project=tpu.project or None)
    logging.info("waiting for TPU %s to be healthy", tpu.name)
    client.configure_tpu_version(tf.__version__, restart_type="ifNeeded")
    client.wait_for_healthy()


def devices_used(strategy: tf.distribute.Strategy) -> str:
    """`2 x NVIDIA L4`, `CPU (2 cores)`, `8 x TPU v3`: what the run computes on."""
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return f"{strategy.num_replicas_in_sync} x TPU {local_tpu()}".rstrip()
    used = _count_names(_gpus_used(strategy)) or f"CPU ({usable_cores()} cores)"
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        workers = strategy.cluster_resolver.cluster_spec().num_tasks("worker")
        used = f"{workers} worker(s), this one with {used}"
    return used


def devices_line(strategy: tf.distribute.Strategy) -> str:
    """`devices: 2 x NVIDIA L4`: the devices that the run uses, then those that it does not use."""
    line = f"devices: {devices_used(strategy)}"
    if cores_for_parts() > 1:
        line += ", each core computes a part of the batch"
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return line
    gpus = tf.config.list_physical_devices("GPU")
    unused = []
    if names := _count_names(gpus[len(_gpus_used(strategy)):]):
        unused.append(f"{names} (--distribution=auto uses them)")
    elif nvidia_gpus() and not gpus:
        unused.append(f"{nvidia_gpus()} NVIDIA GPU(s) that TensorFlow does not see "
                      "(`python -m electra_es.devices` says why)")
    if local_tpu():
        unused.append(f"TPU {local_tpu()} (--tpu=local)")
    return line + (f"; not used: {', '.join(unused)}" if unused else "")


def _gpus_used(strategy: tf.distribute.Strategy) -> list[tf.config.PhysicalDevice]:
    if not any("GPU" in device for device in strategy.extended.worker_devices):
        return []
    gpus = tf.config.list_physical_devices("GPU")
    return gpus[:1] if isinstance(strategy, tf.distribute.OneDeviceStrategy) else gpus


def gpu_names(gpus: list[tf.config.PhysicalDevice]) -> list[str]:
    """The driver's name of each of these GPUs."""
    return [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]


def _count_names(gpus: list[tf.config.PhysicalDevice]) -> str:
    """`2 x NVIDIA L4, 1 x NVIDIA A30`; empty for none."""
    return ", ".join(f"{number} x {name}"
                     for name, number in collections.Counter(gpu_names(gpus)).items())


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """Number of this process in a multi-worker strategy, otherwise 0. Number 0 is the process that
    writes: the task "chief" if TF_CONFIG names one; the workers follow it."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type != "worker":
        return 0
    chiefs = resolver.cluster_spec().as_dict().get("chief", [])
    return len(chiefs) + (resolver.task_id or 0)



def check_reachable(tpu: TpuAddress, **directories: str) -> None:
    """Checks that a remote TPU's host, which reads and writes itself, can reach the directories.

    Raises:
      UsageError: a local directory with a remote TPU.
    """
    for name, path in directories.items():
        if tpu.name not in ("", "local") and "://" not in path:
            raise UsageError(f"--{name}={path}: expected a gs:// path, as --tpu={tpu.name} is another "
                             "machine; on a TPU VM itself use --tpu=local")
