"""The training step as HLO, and what libtpu makes of it, without a TPU."""

import re
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from electra_es.chips import TPUS, TpuChip
from electra_es.config import ModelConfig, PretrainingConfig
from electra_es.data.inputs import synthetic_batch
from electra_es.errors import CheckFailed, import_optional
from electra_es.model.batches import Inputs, VocabularyFacts
from electra_es.model.pretrainer import build_pretrainer
from electra_es.preflight.cycles import Cycles, count_cycles
from electra_es.training.optimization import Adam, schedule_for
from electra_es.training.steps import TrainStep


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
    cycles: Cycles

    @property
    def peak(self) -> int:
        return self.arguments + self.temporary + self.code


def step_hlo(model_config: ModelConfig, config: PretrainingConfig, vocab_size: int,
             batch_size: int) -> tuple[bytes, int]:
    """The training step on `batch_size` examples as a serialised HLO module.

    Returns:
      the module, and the number of trained parameters.
    """
    vocab = VocabularyFacts(vocab_size, 0, 2, 3, 4, np.ones(vocab_size, bool))
    model = build_pretrainer(model_config, vocab, config.precision)
    optimizer = Adam(model.trainable_variables, schedule_for(config), config)
    train_step = TrainStep(model, optimizer, model_config, config)

    @tf.function(jit_compile=True)
    def step(*batch: tf.Tensor) -> dict[str, tf.Tensor]:
        return train_step(Inputs(*batch))

    batch = synthetic_batch(batch_size, config.max_seq_length, vocab_size)
    hlo = step.experimental_get_compiler_ir(*batch)(stage="hlo_serialized")
    return hlo, sum(int(v.shape.num_elements()) for v in model.trainable_variables)


def compile_for_tpu(hlo: bytes, topology: str) -> Compiled:
    """Compiles an HLO module for one device of `topology`.

    Raises:
      UsageError: jax and libtpu are not installed.
      CheckFailed: it does not fit or cannot be compiled; the message has the compiler's reason.
    """
    for module in ("libtpu", "jax"):  # jax looks for libtpu
        import_optional(module, "requirements-preflight.txt")
    from jax._src.interpreters import mlir
    from jax._src.lib.mlir import ir
    from jax.experimental import topologies
    from jaxlib import xla_client

    device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
    with mlir.make_ir_context():
        module = ir.Module.parse(xla_client._xla.mlir.hlo_to_stablehlo(hlo))
        # With the names of TensorFlow's operations, by which cycles are attributed.
        module = ir.Module.parse(as_on_tpu(module.operation.get_asm(enable_debug_info=True)))
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
        count_cycles(executable.hlo_modules()[0].to_string()))


def as_on_tpu(stablehlo: str) -> str:
    """The module with what TensorFlow would emit for a TPU in place of what it emits for a CPU.

    * Random bits: with AUTO_SELECT, TensorFlow takes XLA's default generator on a TPU and Philox on
      a CPU (`DefaultRngAlgForDeviceType` in tensorflow/compiler/tf2xla/kernels/rng_converter_utils.cc).
      libtpu writes Philox out as arithmetic, which made 80 % of the cycles of the small model. The
      default generator has a seed of 128 bits: Philox' third word, a counter, is left out.
    * `mhlo.copy`, which libtpu's reader does not know, is replaced by a barrier that only keeps order.

    Raises:
      CheckFailed: Philox is left, so the program would not be that of a TPU.
    """
    text = re.sub(
        r"( *)(\S+), (\S+) = stablehlo\.rng_bit_generator %(\S+), algorithm = *PHILOX : "
        r"\(tensor<3xui64>\) -> \(tensor<3xui64>, (\S+)\)",
        r"\1%seed_\4 = stablehlo.slice %\4 [0:2] : (tensor<3xui64>) -> tensor<2xui64>\n"
        r"\1%state_\4, \3 = stablehlo.rng_bit_generator %seed_\4, algorithm = DEFAULT : "
        r"(tensor<2xui64>) -> (tensor<2xui64>, \5)\n"
        r"\1\2 = stablehlo.optimization_barrier %\4 : tensor<3xui64>", stablehlo)
    if re.search(r"algorithm = *PHILOX", text):
        raise CheckFailed(
            "the step draws with Philox: expected XLA's default generator, which a TPU uses")
    return re.sub(r"mhlo\.copy (%\S+)(?: \{[^}]*\})? : ", r"stablehlo.optimization_barrier \1 : ", text)


def _compiler_reason(message: str) -> str:
    """The reason in libtpu's message, in one line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    memory = [line for line in lines if re.search(r"Used .* of .* hbm|Exceeded hbm|limit", line)]
    return "the step cannot be compiled for this TPU: " + " ".join(memory[:1] or lines[:1])
