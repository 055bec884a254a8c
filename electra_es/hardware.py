"""The hardware of this machine, found without TensorFlow or network; and the runtime of its TPU."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from electra_es.chips import tpu_version
from electra_es.errors import UsageError

_PCI_DEVICES = Path("/sys/bus/pci/devices")
_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# Files of a control group: limit, use, and the line of memory.stat with what may be dropped at any time.
_MEMORY_FILES = {"": ("memory.max", "memory.current", "inactive_file"),  # version 2
                 "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")}
_GOOGLE, _NVIDIA = "0x1ae0", "0x10de"
# PCI number of the chip -> version. One number stands for v2 and v3.
_TPU_NUMBERS = {"0x0027": "v2 or v3", "0x005e": "v4", "0x0062": "v5p", "0x0063": "v5e",
                "0x006f": "v6e", "0x0076": "tpu7x"}
# TensorFlow drives these versions itself, and later ones through PJRT.
_WITHOUT_PJRT = ("v2", "v3", "v2 or v3", "v4")


def usable_cores() -> int:
    """Cores that this process may use; a container or `taskset` may allow fewer than there are. If a
    container limits the time on cores (`docker run --cpus`), so many whole ones."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for kind, folder in _control_groups("cpu"):
        times = _read(folder / "cpu.max").split() if not kind else [
            _read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        if len(times) == 2 and all(map(str.isdigit, times)):  # else there is no limit
            cores = min(cores, max(1, int(times[0]) // int(times[1])))
    return cores


class Memory(NamedTuple):
    """Memory of this machine, or of the container that this process is in; bytes."""

    total: int  # swap included
    free: int  # of it, for what this process wants beyond what it has


def host_memory() -> Memory:
    """The least of what the machine has and what its containers allow."""
    found = {name: 1024 * int(size) for name, size in re.findall(
        r"^(\w+): +(\d+) kB", _read(_PROC / "meminfo"), re.MULTILINE)}
    if "MemTotal" in found:
        total = found["MemTotal"] + found.get("SwapTotal", 0)
        free = found.get("MemAvailable", total) + found.get("SwapFree", 0)
    else:  # not Linux
        total = free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for kind, folder in _control_groups("memory"):
        limit_file, use_file, droppable = _MEMORY_FILES[kind]
        limit, use = _read(folder / limit_file), _read(folder / use_file)
        if not (limit.isdigit() and use.isdigit()):  # no limit
            continue
        cache = re.search(rf"^{droppable} (\d+)$", _read(folder / "memory.stat"), re.MULTILINE)
        total = min(total, int(limit))
        free = min(free, int(limit) - int(use) + (int(cache[1]) if cache else 0))
    return Memory(total, max(free, 0))


def _control_groups(controller: str) -> Iterator[tuple[str, Path]]:
    """The folders of this process's control group and of those around it, each with "" for version 2 and
    the controller for version 1. Within a container the path may be that outside, so that only the top is
    there."""
    for line in _read(_PROC / "self/cgroup").splitlines():
        _, kinds, path = line.split(":", 2)
        kind = controller if controller in kinds.split(",") else kinds
        if kind in ("", controller):
            top = _CGROUPS / kind
            group = top / path.lstrip("/")
            for folder in (group, *group.parents):
                yield kind, folder
                if folder == top:
                    break


def _read(path: Path) -> str:
    """The text without space around it; empty if it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def local_tpu() -> str:
    """The version of this TPU VM's chips, such as `v5e`; empty on any other machine."""
    if named := os.environ.get("TPU_ACCELERATOR_TYPE"):
        return tpu_version(named)
    found = [_TPU_NUMBERS[number] for maker, number, _ in _pci_devices()
             if maker == _GOOGLE and number in _TPU_NUMBERS]
    return found[0] if found else ""


def may_have_tpu() -> bool:
    """Whether this machine may have a TPU, including versions that `local_tpu` does not know."""
    return bool(local_tpu() or any(Path("/dev").glob("accel*")) or any(Path("/dev/vfio").glob("[0-9]*")))


def nvidia_gpus() -> int:
    """Number of NVIDIA graphics processors in this machine, with or without a driver."""
    return sum(maker == _NVIDIA and kind.startswith("0x03") for maker, _, kind in _pci_devices())


def has_nvidia_driver() -> bool:
    """Whether this process can reach a GPU through NVIDIA's driver (the second path: on WSL)."""
    return any(os.path.exists(path) for path in ("/dev/nvidiactl", "/dev/dxg"))


def _pci_devices() -> list[tuple[str, str, str]]:
    """(maker, number, class) of each device on the bus."""
    devices = []
    for folder in sorted(_PCI_DEVICES.glob("*")):
        try:
            maker, number, kind = ((folder / name).read_text().strip()
                                   for name in ("vendor", "device", "class"))
        except OSError:
            continue
        devices.append((maker, number, kind))
    return devices


def do_without_tpu() -> None:
    """Makes libtpu load silently on a machine without a TPU. It does not ask the metadata server, which
    would take minutes, and other processes can load it too, because no chip is in use."""
    for name, value in {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost",
                        "TPU_CHIPS_PER_HOST_BOUNDS": "2,2,1", "TPU_HOST_BOUNDS": "1,1,1",
                        "TPU_STDERR_LOG_LEVEL": "3", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}.items():
        os.environ.setdefault(name, value)


def prepare_tpu_runtime() -> None:
    """Sets what TensorFlow needs to drive a TPU v5e or later: call it before `import tensorflow`.

    Does nothing on older TPUs and without a TPU, unless PJRT_DEVICE=TPU requests it. Variables that
    are already set keep their values.

    Raises:
      UsageError: the machine has such a TPU, but libtpu is not installed.
    """
    version = local_tpu()
    if os.environ.get("PJRT_DEVICE", "TPU" if version not in ("", *_WITHOUT_PJRT) else "") != "TPU":
        return
    try:
        import libtpu
    except ImportError:
        raise UsageError(f"TPU {version}: libtpu is not installed: expected an environment made with "
                         "`make tpu` (docs/install.md)") from None
    for name, value in {"PJRT_DEVICE": "TPU", "NEXT_PLUGGABLE_DEVICE_USE_C_API": "true",
                        "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": libtpu.get_library_path()}.items():
        os.environ.setdefault(name, value)
