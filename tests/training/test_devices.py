"""Devices: how they are found, what a run prints about them, and the TPU's address for TensorFlow."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tensorflow as tf
from paths import ROOT

from electra_es import chips, devices, hardware
from electra_es.config import ModelConfig, PretrainingConfig
from electra_es.errors import UsageError, quiet_libraries
from electra_es.preflight.compiler import SLICES
from electra_es.training import devices as training_devices
from electra_es.training import flops
from electra_es.training.compilation import Compilation, compilation_for
from electra_es.training.devices import TpuAddress, check_reachable, devices_line, set_up_devices
from electra_es.training.evaluation import evaluate_run

# ---- Peaks of the chips

@pytest.mark.parametrize(("name", "bfloat16"), [
    ("NVIDIA L4", 121), ("NVIDIA L40", 181), ("NVIDIA L40S", 362),
    ("NVIDIA A100-SXM4-40GB", 312), ("NVIDIA A100-SXM4-80GB", 312), ("A100-PCIE-40GB", 312),
    ("NVIDIA A100 80GB PCIe", 312), ("NVIDIA A10", 125), ("NVIDIA A10G", 70), ("NVIDIA A30", 165),
    ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H100 NVL", 835),
    ("NVIDIA H200", 989), ("NVIDIA H200 NVL", 835), ("NVIDIA GH200 480GB", 989),
    ("NVIDIA B200", 2250), ("NVIDIA GB200", 2500),
])
def test_gpus_by_the_names_that_drivers_give(name, bfloat16):
    assert chips.gpu_peaks(name)[0] == bfloat16


@pytest.mark.parametrize("name", [
    "", "Tesla T4", "NVIDIA L4S", "NVIDIA H100 80GB HBM2e", "NVIDIA A100X", "NVIDIA H20",
    "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA RTX 4000 Ada Generation", "Quadro P4000",
    "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA B2000", "NVIDIA Graphics Device", "AMD L4"])
def test_an_unknown_gpu_has_no_peak(name):
    assert chips.gpu_peaks(name) is None


@pytest.fixture
def gpus(monkeypatch):
    """`gpus("NVIDIA L4", ...)`: TensorFlow then lists GPUs of these names."""
    def have(*names: str) -> None:
        found = [SimpleNamespace(device_type="GPU", device_name=name) for name in names]
        monkeypatch.setattr(tf.config, "list_physical_devices",
                            lambda kind: found if kind == "GPU" else [])
        monkeypatch.setattr(tf.config.experimental, "get_device_details",
                            lambda gpu: {"device_name": gpu.device_name})

    return have


def strategy_on(*used: str, kind: type = tf.distribute.MirroredStrategy):
    """A stand-in for a strategy whose replicas are on these devices."""
    strategy = object.__new__(kind)
    strategy.__dict__.update(_extended=SimpleNamespace(
        worker_devices=used, _num_replicas_in_sync=len(used)))
    return strategy


def test_peak_of_the_gpus_of_a_run(gpus):
    two = strategy_on("/device:GPU:0", "/device:GPU:1")
    gpus("NVIDIA L40S", "NVIDIA L40S")
    assert flops.peak_flops(PretrainingConfig(precision="bfloat16"), two) == 2 * 362e12
    assert flops.peak_flops(PretrainingConfig(), two) == 2 * 183e12
    gpus("NVIDIA L40S", "NVIDIA L4")
    assert flops.peak_flops(PretrainingConfig(), two) == 0
    assert flops.peak_flops(PretrainingConfig(peak_tflops=7.0), two) == 14e12


def test_preflight_and_utilisation_have_one_table():
    assert {tpu.version for tpu in SLICES.values()} == set(chips.TPUS)
    assert SLICES["v5e-8"].chip.peak_tflops == chips.TPUS[chips.tpu_version("v5litepod-8")].peak_tflops


# ---- What a run says of its devices

def test_the_line_names_what_is_used(gpus, monkeypatch):
    monkeypatch.setattr(training_devices, "usable_cores", lambda: 6)
    cpu = strategy_on("/device:CPU:0", kind=tf.distribute.OneDeviceStrategy)
    gpus()
    assert devices_line(cpu) == "devices: CPU (6 cores)"
    gpus("NVIDIA L4", "NVIDIA L4", "NVIDIA A30")
    all_three = strategy_on("/device:GPU:0", "/device:GPU:1", "/device:GPU:2")
    assert devices_line(all_three) == "devices: 2 x NVIDIA L4, 1 x NVIDIA A30"


def test_the_line_names_what_is_there_and_not_used(gpus, monkeypatch):
    monkeypatch.setattr(training_devices, "usable_cores", lambda: 6)
    cpu = strategy_on("/device:CPU:0", kind=tf.distribute.OneDeviceStrategy)
    gpus("NVIDIA L4")
    assert "CPU (6 cores); not used: 1 x NVIDIA L4 (--distribution=auto uses them)" in devices_line(cpu)
    gpus()
    monkeypatch.setattr(training_devices, "nvidia_gpus", lambda: 2)
    assert "not used: 2 NVIDIA GPU(s) that TensorFlow does not see" in devices_line(cpu)
    monkeypatch.setattr(training_devices, "local_tpu", lambda: "v4")
    assert devices_line(cpu).endswith(", TPU v4 (--tpu=local)")


# ---- The TPU: its address, its runtime

@pytest.fixture
def resolver_calls(monkeypatch):
    """No TPU can be reached; returns the arguments of the calls of the resolver."""
    calls = []

    def resolver(*arguments, **named):
        calls.append((arguments, named))
        raise RuntimeError("nobody\nis there")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", resolver)
    monkeypatch.setattr(training_devices, "_match_runtime", lambda tpu: None)
    return calls


def test_zone_and_project_reach_the_resolver(resolver_calls):
    with pytest.raises(UsageError, match=r"--tpu=mine: no TPU can be reached there \(nobody\)"):
        set_up_devices(PretrainingConfig(), TpuAddress("mine", "europe-west4-a", "selectra"))
    assert resolver_calls == [(("mine",), {"zone": "europe-west4-a", "project": "selectra"})]


def test_without_zone_and_project_the_resolver_looks_for_them(resolver_calls, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    with pytest.raises(UsageError, match="--tpu=local: no TPU can be reached there"):
        set_up_devices(PretrainingConfig(), TpuAddress("local"))
    assert resolver_calls == [(("local",), {"zone": None, "project": None})]


def test_local_without_a_tpu():
    with pytest.raises(UsageError, match="--tpu=local: TensorFlow sees no TPU on this machine"):
        set_up_devices(PretrainingConfig(), TpuAddress("local"))


def test_an_address_at_which_nothing_listens():
    """TensorFlow would wait for ever for such an address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"grpc://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"--tpu={address}: no TPU .* refused"):
            set_up_devices(PretrainingConfig(), TpuAddress(address))


def test_a_client_that_fails_is_one_line(monkeypatch):
    def fails(tpu: TpuAddress) -> None:
        raise OSError("no credentials")

    monkeypatch.setattr(training_devices, "_match_runtime", fails)
    with pytest.raises(UsageError, match="--tpu=mine: no TPU can be reached there .no credentials"):
        set_up_devices(PretrainingConfig(), TpuAddress("mine"))


def commands_for_a_tpu() -> list[str]:
    """Every command with --tpu=... in the documents and in the command's own description."""
    files = [ROOT / "README.md", ROOT / "run_pretraining.py", *ROOT.glob("*/*.md")]
    lines = [line for file in files
             for line in file.read_text().replace("\\\n", " ").splitlines()]
    return [line for line in lines if "run_pretraining.py" in line and "--tpu=" in line]


def test_commands_of_the_documents_are_not_refused():
    commands = commands_for_a_tpu()
    assert len(commands) >= 4
    for command in commands:
        flags = dict(re.findall(r"--(\w+)=(\S+)", command))
        check_reachable(TpuAddress(flags["tpu"]), data_dir=flags.get("data_dir", ""),
                        model_dir=flags.get("model_dir", ""))


def test_evaluation_on_another_machine_wants_gs_paths(tmp_path):
    with pytest.raises(UsageError, match=r"--model_dir=.*: expected a gs:// path"):
        evaluate_run(ModelConfig(), PretrainingConfig(), data_dir="gs://bucket/records",
                     vocab_dir="vocabulary", model_dir=str(tmp_path), tpu=TpuAddress("mine"))


@pytest.fixture
def bus(tmp_path, monkeypatch):
    """`bus((maker, number, class), ...)`: the machine then has these devices."""
    monkeypatch.setattr(hardware, "_PCI_DEVICES", tmp_path)
    monkeypatch.delenv("TPU_ACCELERATOR_TYPE", raising=False)

    def have(*found: tuple[str, str, str]) -> None:
        for number, device in enumerate(found):
            folder = tmp_path / f"0000:00:{number:02}.0"
            folder.mkdir()
            for name, value in zip(("vendor", "device", "class"), device, strict=True):
                (folder / name).write_text(value + "\n")

    return have


def test_what_is_on_the_bus(bus):
    assert (hardware.local_tpu(), hardware.nvidia_gpus()) == ("", 0)
    bus(("0x1ae0", "0x0042", "0x020000"),  # Google's network card
        ("0x10de", "0x10f1", "0x040300"),  # NVIDIA's sound
        ("0x10de", "0x27b8", "0x030200"), ("0x1ae0", "0x0063", "0x120000"))
    assert (hardware.local_tpu(), hardware.nvidia_gpus()) == ("v5e", 1)


@pytest.mark.parametrize(("accelerator", "asked_for", "uses_pjrt"), [
    ("v2-8", None, False), ("v3-8", None, False), ("v4-16", None, False), ("", None, False),
    ("v5litepod-8", None, True), ("v5p-8", None, True), ("v6e-4", None, True), ("tpu7x-8", None, True),
    ("", "TPU", True), ("v4-8", "TPU", True), ("v6e-4", "CPU", False)])
def test_runtime_by_chip_or_by_wish(bus, monkeypatch, accelerator, asked_for, uses_pjrt):
    environment = {"TPU_ACCELERATOR_TYPE": accelerator}
    if asked_for:
        environment["PJRT_DEVICE"] = asked_for
    monkeypatch.setattr(os, "environ", dict(environment))
    monkeypatch.setitem(sys.modules, "libtpu", SimpleNamespace(get_library_path=lambda: "lib/libtpu.so"))
    hardware.prepare_tpu_runtime()
    if uses_pjrt:
        environment |= {"PJRT_DEVICE": "TPU", "NEXT_PLUGGABLE_DEVICE_USE_C_API": "true",
                        "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": "lib/libtpu.so"}
    assert os.environ == environment


def test_pjrt_without_libtpu(bus, monkeypatch):
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v6e-4")
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(UsageError, match="TPU v6e: libtpu is not installed"):
        hardware.prepare_tpu_runtime()


# ---- `python -m electra_es.devices`

def versions(monkeypatch, **packages: str) -> None:
    installed = {name.replace("_", "-"): version for name, version in packages.items()}
    monkeypatch.setattr(devices, "version_of", lambda name: installed.get(name, ""))


FITTING = dict(tensorflow_text="2.20.1", tf_keras="2.20.1")


@pytest.mark.parametrize(("packages", "libtpu", "message"), [
    (dict(FITTING), "", "TensorFlow is not installed"),
    (dict(FITTING, tensorflow_tpu="2.20.0"), "", "libtpu is not installed"),
    (dict(FITTING, tensorflow_tpu="2.20.0"), "0.0.52", "libtpu 0.0.52: .* works with 0.0.14 to 0.0.23"),
    (dict(FITTING, tensorflow_tpu="2.20.0"), "0.0.13", "libtpu 0.0.13"),
    (dict(FITTING, tensorflow="2.19.1"), "", "tensorflow-text 2.20.1: expected 2.19.*"),
    (dict(tensorflow="2.20.0", tf_keras="2.20.1"), "", "tensorflow-text is not installed"),
])
def test_packages_that_do_not_fit(monkeypatch, packages, libtpu, message):
    versions(monkeypatch, **packages)
    names = [name.replace("_", "-") for name in packages if name not in FITTING]
    assert re.search(message, "\n".join(devices.package_problems(names, libtpu)))


@pytest.mark.parametrize(("package", "libtpu"), [
    ("tensorflow", ""), ("tensorflow-tpu", "0.0.14"), ("tensorflow-tpu", "0.0.23")])
def test_packages_that_fit(monkeypatch, package, libtpu):
    versions(monkeypatch, **FITTING, **{package: "2.20.0"})
    assert devices.package_problems([package], libtpu) == []


def test_two_tensorflows_over_each_other(tmp_path, monkeypatch):
    """Two packages claim one folder, and the libraries are those of the last one, as after pip."""
    monkeypatch.syspath_prepend(tmp_path)
    library = tmp_path / "tensorflow" / "libtensorflow_cc.so.2"
    library.parent.mkdir()
    library.write_bytes(b"of the TPU's")
    for name, size in (("tensorflow", 7), ("tensorflow_tpu", 12)):
        folder = tmp_path / f"{name}-2.20.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.20.0\n")
        (folder / "top_level.txt").write_text("tensorflow\n")
        (folder / "RECORD").write_text(f"tensorflow/libtensorflow_cc.so.2,,{size}\n")
    packages = devices.tensorflow_packages()
    assert packages == ["tensorflow", "tensorflow-tpu"]
    (problem,) = [line for line in devices.package_problems(packages, "0.0.23") if "over each" in line]
    assert "the libraries are those of tensorflow-tpu: make the environment anew" in problem


def run(*, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    """The command; modules in `path` come before installed ones."""
    environment = {**os.environ, **environment}
    if path:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run([sys.executable, "-m", "electra_es.devices"], cwd=ROOT, env=environment,
                          text=True, capture_output=True, check=False, timeout=300)


def test_an_import_that_aborts_is_a_line(tmp_path):
    (tmp_path / "tensorflow.py").write_text(
        "import os, sys\n"
        "sys.stderr.write('2026-01-02 03:04:05.6: F tensorflow/core/tpu/x.cc:41] "
        "ConfigureDistributedTpuOp_DoWork not available in this library.\\n')\n"
        "sys.stderr.flush()\n"
        "os.abort()\n")
    done = run(path=tmp_path)
    assert done.returncode == 1 and done.stderr == ""
    assert ("`import tensorflow` ends with signal 6: "
            "ConfigureDistributedTpuOp_DoWork not available in this library.") in done.stdout
    assert "wrong: TensorFlow cannot be imported" in done.stdout


def test_the_command_here():
    done = run()
    assert done.stderr == ""
    assert re.search(r"^TensorFlow    tensorflow(-\w+)? 2\.20\.", done.stdout, re.MULTILINE)
    assert re.search(r"^devices       CPU", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(("environment", "driver", "cuda", "log", "message"), [
    ("-1", True, True, "", 'CUDA_VISIBLE_DEVICES="-1" hides them'),
    ("0", False, True, "", "no NVIDIA driver is loaded"),
    ("0", True, False, "", "built without CUDA"),
    ("0", True, True, "Cannot dlopen some GPU libraries.", "requirements-gpu.txt"),
])
def test_why_a_gpu_is_not_seen(monkeypatch, environment, driver, cuda, log, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", environment)
    monkeypatch.setattr(devices, "nvidia_gpus", lambda: 1)
    monkeypatch.setattr(devices, "has_nvidia_driver", lambda: driver)
    found = devices.TensorFlowImport("", "2.20.0", cuda, (("CPU", ""),), log)
    (problem,) = devices.device_problems(["tensorflow"], found)
    assert message in problem


def test_tensorflow_for_tpu_that_shows_no_tpu_system():
    without = devices.TensorFlowImport("", "2.20.0", False, (("CPU", ""),))
    (problem,) = devices.device_problems(["tensorflow-tpu"], without)
    assert "shows no TPU_SYSTEM" in problem
    (problem,) = devices.device_problems(["tensorflow-tpu"], without._replace(
        log="FindAndLoadTpuLibrary failed with ABORTED: Internal error when accessing libtpu "
            "multi-process lockfile."))
    assert problem.startswith("another process holds the TPU")
    with_it = without._replace(devices=(("CPU", ""), ("TPU_SYSTEM", "")))
    assert devices.device_problems(["tensorflow-tpu"], with_it) == []


# ---- Nothing but our own messages on stderr

def test_tensorflow_is_silent_on_a_cpu():
    """A missing GPU (cuInit) and int64 products (oneDNN) print no errors."""
    program = ("import electra_es, tensorflow as tf\n"
               "tf.config.list_physical_devices()\n"
               "tf.linalg.matmul(tf.ones([2, 3], tf.int64), tf.ones([3, 2], tf.int64))\n")
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("TF_", "TPU_"))}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, text=True,
                          capture_output=True, check=True, timeout=300)
    assert done.stderr == ""


def test_the_servers_of_workers_start_in_silence():
    """gRPC's server announces its start on stderr, before a warning of absl."""
    program = ("import json, os, socket\n"
               "with socket.socket() as free:\n"
               "    free.bind(('127.0.0.1', 0))\n"
               "    worker = f'127.0.0.1:{free.getsockname()[1]}'\n"
               "os.environ['TF_CONFIG'] = json.dumps({'cluster': {'worker': [worker]},\n"
               "                                      'task': {'type': 'worker', 'index': 0}})\n"
               "from electra_es.config import PretrainingConfig\n"
               "from electra_es.training.devices import TpuAddress, devices_line, set_up_devices\n"
               "config = PretrainingConfig(distribution='multi_worker')\n"
               "print(devices_line(set_up_devices(config, TpuAddress())))\n")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True,
                          check=True, timeout=300)
    assert done.stderr == ""
    assert done.stdout.startswith("devices: 1 worker(s), this one with CPU (")


def test_what_libraries_wrote_is_shown_when_they_fail(capfd):
    with pytest.raises(ZeroDivisionError), quiet_libraries():
        os.write(2, b"the reason\n")
        raise ZeroDivisionError
    with quiet_libraries():
        os.write(2, b"nothing of note\n")
    assert capfd.readouterr().err == "the reason\n"


@pytest.mark.parametrize(("precision", "jit_compile", "expected"), [
    ("bfloat16", "on", Compilation(whole=True, kept=tf.bfloat16)),
    ("float32", "on", Compilation(whole=True)),
    ("bfloat16", "off", Compilation()), ("float32", "auto", Compilation(fused=True))])
def test_what_is_compiled_and_kept(precision, jit_compile, expected):
    """bfloat16 is kept only where the products take no more and XLA compiles; on a TPU always."""
    config = PretrainingConfig(precision=precision, jit_compile=jit_compile, distribution="cpu")
    strategy = tf.distribute.OneDeviceStrategy("device:CPU:0")
    assert compilation_for(config, strategy) == expected
    tpu = object.__new__(tf.distribute.TPUStrategy)
    assert compilation_for(config, tpu) == Compilation(kept=tf.bfloat16)
