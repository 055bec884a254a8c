"""Compiles the project's training step for a TPU, without having one, and says whether it fits.

    pip install -r requirements-preflight.txt
    python -m electra_es.preflight --model_size=small --topology=v2-8 --train_batch_size=128
    python -m electra_es.preflight --model_size=medium --topology=v5e-8 --precision=bfloat16

The step (masks, both towers, sampling, backward pass, clipping, Adam) is traced for one core,
lowered to HLO by TensorFlow and compiled by libtpu, on any machine. Communication between the cores
is not compiled; it is estimated from the size of the gradients. docs/preflight.md explains the
figures. Exit codes: 0 it fits, 1 it does not or an operation is not supported, 2 wrong use.
"""

import os
import re
import time
from typing import Any, NamedTuple

from electra_es.hardware import do_without_tpu

# Before the imports, for libtpu: even on a TPU VM no chip is used.
do_without_tpu()
os.environ["JAX_PLATFORMS"] = "cpu"

import numpy as np
import tensorflow as tf
from absl import flags

from electra_es.chips import TPUS, TpuChip
from electra_es.config import SCHEDULE_SETTINGS, ModelConfig, PretrainingConfig, TextConfig
from electra_es.data.inputs import synthetic_batch
from electra_es.errors import CheckFailed, UsageError, import_optional, nearest_hint, run_main
from electra_es.flags import (
    command_line_settings,
    define,
    define_assignments,
    define_config_flags,
    names_of,
    parse_flags_only,
    refuse_unused,
    resolve,
)
from electra_es.model.batches import Inputs, VocabularyFacts
from electra_es.model.pretrainer import build_pretrainer
from electra_es.settings import NAME, PATH
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
    """The compiler's figures for the step on one device: bytes, operations and seconds."""

    arguments: int  # weights, moments and the batch; updated in place
    temporary: int
    code: int
    flops: float
    bytes_accessed: float
    optimal_seconds: float | None  # XLA's own estimate, where its cost model covers every operation

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
        text = re.sub(r"mhlo\.copy (%\S+)(?: \{[^}]*\})? : ", r"stablehlo.optimization_barrier \1 : ",
                      module.operation.get_asm())
        module = ir.Module.parse(text)  # libtpu's reader does not know the dialect of mhlo.copy
        try:
            executable = device.client.compile(
                module, xla_client.DeviceList((device,)), xla_client.CompileOptions())
        except Exception as error:  # jax has no stable class for it
            raise CheckFailed(_compiler_reason(str(error))) from None
    memory, costs = executable.get_compiled_memory_stats(), executable.cost_analysis()
    costs = costs[0] if isinstance(costs, list) else costs
    # The cost model counts -1 s for each operation that it does not cover.
    seconds = costs.get("optimal_seconds", -1.0)
    return Compiled(
        memory.argument_size_in_bytes, memory.temp_size_in_bytes,
        memory.generated_code_size_in_bytes, costs["flops"], costs["bytes accessed"],
        seconds if seconds > 0 else None)


def _compiler_reason(message: str) -> str:
    """The reason in libtpu's message, in one line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    memory = [line for line in lines if re.search(r"Used .* of .* hbm|Exceeded hbm|limit", line)]
    return "the step cannot be compiled for this TPU: " + " ".join(memory[:1] or lines[:1])


def report_lines(compiled: Compiled, tpu: Slice, config: PretrainingConfig, parameters: int
                 ) -> list[str]:
    """The report of one compilation, for people."""
    chip, per_device = tpu.chip, config.train_batch_size // tpu.devices
    memory = chip.memory_gb * 1e9
    fixed = compiled.arguments + compiled.code
    # Only activations grow with the batch. Rounded down to a multiple of the number of devices.
    most = int((memory - fixed) / (compiled.temporary / per_device)) * tpu.devices
    compute = compiled.flops / (chip.peak_tflops * 1e12)
    transfer = compiled.bytes_accessed / (chip.memory_gbs * 1e9)
    # In a ring, each device sends all gradients twice, except for its own share.
    exchange = 2 * (tpu.devices - 1) / tpu.devices * 4 * parameters / (chip.link_gbs * 1e9)
    bound = max(compute, transfer)
    step = (compiled.optimal_seconds or bound) + exchange
    estimate = (f"{compiled.optimal_seconds * 1e3:.1f} ms" if compiled.optimal_seconds
                else "not given (its cost model does not cover every operation)")
    return [
        f"batch              {config.train_batch_size} x {config.max_seq_length} tokens, "
        f"{per_device} examples per device, {tpu.devices} devices",
        f"memory per device  {compiled.peak / 1e9:.2f} GB of {chip.memory_gb:.0f} GB "
        f"({compiled.arguments / 1e9:.2f} weights, moments, batch; {compiled.temporary / 1e9:.2f} "
        f"activations; {compiled.code / 1e9:.2f} program)",
        f"largest batch      about {most} (activations taken as proportional to the batch)",
        f"a step             {compiled.flops / 1e9:,.0f} GFLOP, "
        f"{compiled.bytes_accessed / 1e9:.1f} GB to and from memory per device",
        f"at the peak rates  {compute * 1e3:.1f} ms of arithmetic, {transfer * 1e3:.1f} ms of memory",
        f"XLA's estimate     {estimate}",
        f"gradient exchange  {exchange * 1e3:.1f} ms (estimated, {parameters:,} parameters)",
        f"the schedule       {config.num_train_steps:,} steps: {step * config.num_train_steps / 3600:.1f}"
        f" h from {'XLA' if compiled.optimal_seconds else 'the larger of both bounds'}; "
        "a real run takes longer",
    ]


# Settings that affect the compiled step, or the time of all steps.
_USED = {"topology", "hparams", "set", "vocab_size"} | names_of(ModelConfig) | {
    "max_seq_length", "train_batch_size", "accumulation_steps", "precision", "seed", "clip_norm",
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"} | SCHEDULE_SETTINGS


def main() -> int:
    define_config_flags(TextConfig, ModelConfig, PretrainingConfig, skip=("vocab_sha256",))
    topology = define("topology", str, "v2-8", f"TPU slice: {', '.join(SLICES)}.", NAME)
    hparams = define("hparams", str, "", "JSON file of settings; none: that of the model size.", PATH)
    assignments = define_assignments()
    parse_flags_only()
    overrides = command_line_settings(flags.FLAGS, assignments.value)
    refuse_unused("preflight", _USED)
    if topology.value not in SLICES:
        raise UsageError(f"--topology={topology.value}: expected one of {', '.join(SLICES)}"
                         f"{nearest_hint(topology.value, SLICES)}")
    tpu = SLICES[topology.value]
    model_config, config, text = resolve(overrides, hparams.value)
    if config.train_batch_size % (tpu.devices * config.accumulation_steps):
        raise UsageError(f"train_batch_size={config.train_batch_size}: expected a multiple of "
                         f"{tpu.devices * config.accumulation_steps} ({tpu.devices} devices)")
    vocab_size: Any = text.get("vocab_size", TextConfig().vocab_size)
    hlo, parameters = step_hlo(
        model_config, config, vocab_size, config.train_batch_size // tpu.devices)
    start = time.monotonic()
    compiled = compile_for_tpu(hlo, tpu.topology)
    print(f"{model_config.model_size} on {topology.value}, {config.precision}, vocabulary of "
          f"{vocab_size}: compiled in {time.monotonic() - start:.0f} s")
    for line in report_lines(compiled, tpu, config, parameters):
        print("  " + line)
    if compiled.peak > tpu.chip.memory_gb * 1e9:
        raise CheckFailed(f"{compiled.peak / 1e9:.2f} GB: expected at most {tpu.chip.memory_gb:.0f} GB")
    print("  it fits")
    return 0


if __name__ == "__main__":
    run_main(main)
