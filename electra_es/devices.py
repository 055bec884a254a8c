"""Says which TensorFlow is installed, which devices it sees, and what is wrong.

    python -m electra_es.devices

TensorFlow is imported in a separate process. If the import aborts, this command reports it in a line.
Exit codes: 0 nothing is wrong, 1 something is.
"""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from typing import NamedTuple

from electra_es.errors import EXIT_CHECK_FAILED, UsageError, run_main
from electra_es.flags import parse_flags_only
from electra_es.hardware import (
    has_nvidia_driver,
    local_tpu,
    nvidia_gpus,
    prepare_tpu_runtime,
    usable_cores,
)

# tensorflow-tpu 2.20.0 asks for libtpu~=0.0.14. 0.0.14, 0.0.17, 0.0.21 and 0.0.23 were tried and
# work; with 0.0.32 and 0.0.52, `import tensorflow` aborts.
LIBTPU_OLDEST, LIBTPU_NEWEST = (0, 0, 14), (0, 0, 23)

_PROBE = """
import json, sys
import tensorflow as tf
import tensorflow_text, tf_keras
devices = []
for device in tf.config.list_physical_devices():
    details = {}
    if device.device_type == "GPU":
        details = tf.config.experimental.get_device_details(device)
    devices.append([device.device_type, details.get("device_name", "")])
print(json.dumps({"version": tf.__version__, "cuda": tf.test.is_built_with_cuda(),
                  "devices": devices}))
"""
_PROBE_SECONDS = 300


class TensorFlowImport(NamedTuple):
    """The result of importing TensorFlow; `error` is empty if it worked."""

    error: str
    version: str = ""
    has_cuda: bool = False
    devices: tuple[tuple[str, str], ...] = ()  # (type, name of a GPU)
    log: str = ""

    def count(self, kind: str) -> int:
        return sum(device == kind for device, _ in self.devices)


def main() -> int:
    parse_flags_only()
    packages = tensorflow_packages()
    libtpu = version_of("libtpu")
    problems = package_problems(packages, libtpu)
    print(f"Python        {sys.version.split()[0]}")
    print("TensorFlow    " + (", ".join(f"{name} {version_of(name)}" for name in packages) or "none"))
    print(f"libtpu        {libtpu or 'none'}")
    print(f"this machine  {usable_cores()} cores, TPU: {local_tpu() or 'none'}, "
          f"NVIDIA GPUs: {nvidia_gpus()}")
    if packages:
        try:
            prepare_tpu_runtime()
        except UsageError as error:
            problems.append(str(error))
        imported = import_tensorflow()
        print(f"devices       {imported.error or device_list(imported)}")
        if imported.error and not problems:
            problems.append(f"TensorFlow cannot be imported ({imported.error}): make the environment "
                            "anew (docs/install.md)")
        if not imported.error:
            problems += device_problems(packages, imported)
    for problem in problems:
        print(f"wrong: {problem}")
    if not problems:
        print("nothing is wrong")
    return EXIT_CHECK_FAILED if problems else 0


def version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def tensorflow_packages() -> list[str]:
    """The installed packages whose files lie in the folder `tensorflow`; two overwrite each other."""
    names = metadata.packages_distributions().get("tensorflow", [])
    return sorted({name.lower().replace("_", "-") for name in names})


def package_problems(packages: list[str], libtpu: str) -> list[str]:
    """Problems that show without an import: no or two TensorFlows, a libtpu that does not fit."""
    problems = []
    if not packages:
        problems.append("TensorFlow is not installed: pip install -r requirements.txt")
    if len(packages) > 1:
        owner = owner_of_libraries(packages)
        problems.append(
            f"{' and '.join(packages)} are installed over each other, the libraries are those of "
            f"{owner or 'neither'}: make the environment anew, for a TPU with `make tpu`")
    if "tensorflow-tpu" in packages:
        if not libtpu:
            problems.append("libtpu is not installed: pip install --no-deps -r requirements-tpu.txt")
        elif not LIBTPU_OLDEST <= numbers(libtpu)[:3] <= LIBTPU_NEWEST:
            problems.append(
                f"libtpu {libtpu}: tensorflow-tpu works with {dotted(LIBTPU_OLDEST)} to "
                f"{dotted(LIBTPU_NEWEST)}: pip install --no-deps -r requirements-tpu.txt")
    if packages:
        minor = numbers(version_of(packages[-1]))[:2]
        for package in ("tensorflow-text", "tf-keras"):
            version = version_of(package)
            if numbers(version)[:2] != minor:
                problems.append(f"{package} {version or 'is not installed'}: expected {dotted(minor)}.*, "
                                "as TensorFlow is: pip install -r requirements.txt")
    return problems


def owner_of_libraries(packages: list[str]) -> str:
    """The package to which the compiled libraries on the disk belong, by their sizes."""
    for package in packages:
        libraries = [file for file in metadata.files(package) or ()
                     if re.match(r"tensorflow/lib\w+\.so\.\d", str(file))]
        if libraries and all(os.path.exists(file.locate())
                             and os.path.getsize(file.locate()) == file.size for file in libraries):
            return package
    return ""


def import_tensorflow() -> TensorFlowImport:
    """Imports TensorFlow in another process and lists its devices."""
    try:
        process = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False,
            timeout=_PROBE_SECONDS, errors="replace",
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"})
    except subprocess.TimeoutExpired:
        return TensorFlowImport(f"no answer in {_PROBE_SECONDS} s; does another process hold the TPU?")
    if process.returncode:
        ending = f"ends with signal {-process.returncode}" if process.returncode < 0 else "fails"
        return TensorFlowImport(f"`import tensorflow` {ending}: {reason(process.stderr)}",
                                log=process.stderr)
    answer = json.loads(process.stdout.splitlines()[-1])
    return TensorFlowImport("", answer["version"], answer["cuda"],
                            tuple((kind, name) for kind, name in answer["devices"]), process.stderr)


def reason(log: str) -> str:
    """The line of a log that says why a process ended."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    fatal = [line for line in lines if re.match(r"F\d{4} |\S+ \S+: F ", line) or "not available" in line]
    line = (fatal or lines or ["no message"])[0 if fatal else -1]
    return re.sub(r"^(F\d{4} \S+|\S+ \S+: F)\s+(\d+\s+)?\S+\] ", "", line)[:200]


def device_list(imported: TensorFlowImport) -> str:
    """`CPU, 2 x GPU NVIDIA L4`: equal devices are counted."""
    counted = {device: imported.devices.count(device) for device in dict.fromkeys(imported.devices)}
    return ", ".join((f"{number} x " if number > 1 else "") + f"{kind} {name}".strip()
                     for (kind, name), number in counted.items())


def device_problems(packages: list[str], imported: TensorFlowImport) -> list[str]:
    """Chips of this machine that TensorFlow does not see."""
    problems = []
    is_for_tpu = packages[-1] == "tensorflow-tpu"
    has_tpu = bool(imported.count("TPU_SYSTEM") or imported.count("TPU"))
    if local_tpu() and not is_for_tpu:
        problems.append(f"TPU {local_tpu()}: {packages[-1]} cannot use it: make an environment with "
                        "`make tpu`")
    elif is_for_tpu and not has_tpu and "lockfile" in imported.log:
        problems.append("another process holds the TPU; if none does, remove /tmp/libtpu_lockfile")
    elif is_for_tpu and not has_tpu:
        problems.append("tensorflow-tpu shows no TPU_SYSTEM, so that another TensorFlow's files are in "
                        "its place: make the environment anew with `make tpu`")
    if nvidia_gpus() and not imported.count("GPU"):
        problems.append(f"{nvidia_gpus()} NVIDIA GPU(s) that TensorFlow does not see: "
                        f"{why_no_gpu(imported)}")
    return problems


def why_no_gpu(imported: TensorFlowImport) -> str:
    """The likeliest reason, and what to do."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return f'CUDA_VISIBLE_DEVICES="{hidden}" hides them'
    if not has_nvidia_driver():
        return "no NVIDIA driver is loaded, or the container was started without --gpus=all"
    if not imported.has_cuda:
        return "this TensorFlow is built without CUDA: pip install -r requirements-gpu.txt"
    if "dlopen" in imported.log or "cuda drivers" in imported.log:
        return "CUDA's libraries were not found: pip install -r requirements-gpu.txt"
    return "run with TF_CPP_MIN_LOG_LEVEL=0 to see what TensorFlow says"


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


if __name__ == "__main__":
    run_main(main)
