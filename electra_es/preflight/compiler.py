"""What libtpu makes of the training step, without a TPU."""

import re
from typing import Any, NamedTuple

from electra_es.chips import TPUS, TpuChip
from electra_es.errors import CheckFailed, import_optional
from electra_es.preflight.cycles import Cycles, count_cycles
from electra_es.preflight.stablehlo import as_on_tpu, stablehlo_module


class Slice(NamedTuple):
    """A TPU slice of 8 TensorCores (v5e, v6e: of 8 chips)."""

    version: str  # of TPUS
    topology: str  # as libtpu names it
    devices: int

    @property
    def chip(self) -> TpuChip:
        return TPUS[self.version]


SLICES = {
    "v2-8": Slice("v2", "v2:2x2", 8),
    "v3-8": Slice("v3", "v3:2x2", 8),
    "v4-8": Slice("v4", "v4:2x2x1", 4),
    "v5e-8": Slice("v5e", "v5e:2x4", 8),
    "v5p-8": Slice("v5p", "v5p:2x2x1", 4),
    "v6e-8": Slice("v6e", "v6e:2x4", 8),
}


class Compiled(NamedTuple):
    """The compiler's figures for the step on one device: bytes, operations and cycles."""

    arguments: int  # weights, moments and the batch; updated in place
    temporary: int
    code: int
    flops: float
    bytes_accessed: float
    cycles: Cycles | None  # None: jaxlib cannot read the compiled program

    @property
    def peak(self) -> int:
        return self.arguments + self.temporary + self.code


def compile_for_tpu(hlo: bytes, topology: str) -> Compiled:
    """Compiles an HLO module for one device of `topology`.

    Raises:
      UsageError: jax and libtpu are not installed.
      CheckFailed: it does not fit or cannot be compiled; the message has the compiler's reason.
    """
    for module in ("libtpu", "jax"):  # jax looks for libtpu
        import_optional(module, "requirements-preflight.txt")
    from jax.experimental import topologies
    from jaxlib import xla_client

    device: Any = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
    with stablehlo_module(hlo, as_on_tpu) as module:
        try:
            executable = device.client.compile(
                module, xla_client.DeviceList((device,)), xla_client.CompileOptions())
        except Exception as error:  # jax has no stable class for it
            raise CheckFailed(_compiler_reason(str(error))) from None
    memory, costs = executable.get_compiled_memory_stats(), executable.cost_analysis()
    costs = costs[0] if isinstance(costs, list) else costs
    return Compiled(
        memory.argument_size_in_bytes, memory.temp_size_in_bytes,
        memory.generated_code_size_in_bytes, costs["flops"], costs["bytes accessed"],
        cycles_of(executable))


def cycles_of(executable: Any) -> Cycles | None:
    """The compiler's cycles; None where jaxlib cannot read the program that libtpu wrote. jaxlib 0.10.2
    cannot read the asynchronous slices of the whole step for v6e in float32."""
    try:
        return count_cycles(executable.hlo_modules()[0].to_string())
    except RuntimeError:  # jax.errors.JaxRuntimeError is one
        return None


def _compiler_reason(message: str) -> str:
    """The reason in libtpu's message, in one line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    memory = [line for line in lines if re.search(r"Used .* of .* hbm|Exceeded hbm|limit", line)]
    return "the step cannot be compiled for this TPU: " + " ".join(memory[:1] or lines[:1])
