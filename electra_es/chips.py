"""Speeds and memory of the chips: the table for the utilisation, preflight and the choice of runtime.

TPU: Google Cloud's pages on the architecture of each version. GPU: NVIDIA's data sheets.
"""

import re
from typing import NamedTuple


class TpuChip(NamedTuple):
    """One version of the TPU.

    A device is what holds one replica: a core of v2 and v3, a chip of the later ones.
    """

    memory_gb: float  # HBM of a device, 10^9 bytes
    # bfloat16 TFLOP/s of a device. TPUs multiply float32 in bfloat16 unless told otherwise.
    peak_tflops: float
    memory_gbs: float  # HBM bandwidth of a device, GB/s
    link_gbs: float  # interconnect of a chip, GB/s in one direction
    # Of the matrix units: peak / (2 * 128 * 128 * units of a device), v6e: 2 * 256 * 256 * units.
    clock_ghz: float


TPUS = {
    "v2": TpuChip(8, 22.5, 350, 62, 0.7),
    "v3": TpuChip(16, 61.5, 450, 82, 0.94),
    "v4": TpuChip(32, 275, 1228, 150, 1.05),
    "v5e": TpuChip(16, 197, 819, 100, 1.5),
    "v5p": TpuChip(95, 459, 2765, 300, 1.75),
    "v6e": TpuChip(32, 918, 1640, 224, 1.75),
}
# Names that a TPU VM uses for its version, before the number of cores.
_OTHER_NAMES = {"v5lite": "v5e", "v5litepod": "v5e"}

# Dense TFLOP/s (no sparsity) in bfloat16, and in float32 as TF32, TensorFlow's default there. The
# key is the whole name of the device without maker, size of the memory and socket: the PCIe and NVL
# cards of a chip are slower than its SXM module, and a part of a card (MIG) is not listed.
GPUS = {
    "A10": (125.0, 62.5), "A10G": (70.0, 35.0), "A30": (165.0, 82.0), "A40": (149.7, 74.8),
    "A100": (312.0, 156.0), "A100 PCIE": (312.0, 156.0),
    "L4": (121.0, 60.0), "L40": (181.0, 90.5), "L40S": (362.0, 183.0),
    "H100 HBM3": (989.0, 494.0), "H100 PCIE": (756.0, 378.0), "H100 NVL": (835.0, 417.0),
    "H200": (989.0, 494.0), "H200 NVL": (835.0, 417.0),
    "GH200": (989.0, 494.0),
    "B200": (2250.0, 1125.0), "GB200": (2500.0, 1250.0),
}
_MAKER_MEMORY_SOCKET = re.compile(r"NVIDIA|TESLA|\d+GB|SXM\d")


def tpu_version(accelerator_type: str) -> str:
    """`v5e` of `v5litepod-8`; a version that is not in TPUS is returned unchanged."""
    name = accelerator_type.lower().partition("-")[0]
    return _OTHER_NAMES.get(name, name)


def gpu_peaks(device_name: str) -> tuple[float, float] | None:
    """TFLOP/s in bfloat16 and float32 of a GPU as its driver names it, such as
    `NVIDIA A100-SXM4-40GB`; None for a name that is not exactly one of GPUS."""
    words = [word for word in re.split(r"[\s-]+", device_name.upper())
             if word and not _MAKER_MEMORY_SOCKET.fullmatch(word)]
    return GPUS.get(" ".join(words))
