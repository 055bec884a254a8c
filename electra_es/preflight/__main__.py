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
import time
from typing import Any

from electra_es.hardware import do_without_tpu

# Before the imports, for libtpu: even on a TPU VM no chip is used.
do_without_tpu()
os.environ["JAX_PLATFORMS"] = "cpu"

from absl import flags

from electra_es.chips import TpuChip
from electra_es.config import SCHEDULE_SETTINGS, ModelConfig, PretrainingConfig, TextConfig
from electra_es.errors import CheckFailed, UsageError, nearest_hint, run_main
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
from electra_es.preflight.compiler import SLICES, Compiled, Slice, compile_for_tpu
from electra_es.preflight.program import synthetic_program
from electra_es.settings import NAME, PATH, Range


def report_lines(compiled: Compiled, tpu: Slice, config: PretrainingConfig, parameters: int,
                 price_per_hour: float = 0.0) -> list[str]:
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
    seconds = {"at the peak rates": max(compute, transfer)}
    if compiled.cycles:
        seconds = {"by the cycles": compiled.cycles.seconds(chip.clock_ghz), **seconds}
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
        *_cycle_lines(compiled, chip),
        f"gradient exchange  {exchange * 1e3:.1f} ms (estimated, {parameters:,} parameters)",
        f"the schedule       {config.num_train_steps:,} steps: "
        + ", ".join(_duration(name, (of_step + exchange) * config.num_train_steps / 3600, price_per_hour)
                    for name, of_step in seconds.items())
        + "; a real run takes longer",
    ]


def _cycle_lines(compiled: Compiled, chip: TpuChip) -> list[str]:
    cycles = compiled.cycles
    if cycles is None:
        return ["compiler's cycles  not known: jaxlib cannot read the program that libtpu wrote"]
    seconds = cycles.seconds(chip.clock_ghz)
    used = compiled.flops / seconds / 1e12
    uncounted = ", ".join(f"{n} {opcode}" for opcode, n in sorted(cycles.uncounted.items()))
    return [
        f"compiler's cycles  {cycles.total / 1e6:.1f} M: {seconds * 1e3:.1f} ms at "
        f"{chip.clock_ghz} GHz, {used:.1f} TFLOP/s ({used / chip.peak_tflops:.0%} of the peak)",
        *(f"                   {n / 1e6:6.1f} M {n / cycles.total:4.0%}  {part}"
          for part, n in cycles.parts.items()),
        f"not in the cycles  {uncounted or 'nothing'}",
    ]


def _duration(name: str, hours: float, price_per_hour: float) -> str:
    price = f" ({hours * price_per_hour:,.0f} of the currency of --price_per_hour)"
    return f"{hours:.1f} h {name}{price if price_per_hour else ''}"


# Settings that affect the compiled step, or the time of all steps.
_USED = {"topology", "price_per_hour", "hparams", "set", "vocab_size"} | names_of(ModelConfig) | {
    "max_seq_length", "train_batch_size", "accumulation_steps", "precision", "seed", "clip_norm",
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"} | SCHEDULE_SETTINGS


def main() -> int:
    define_config_flags(TextConfig, ModelConfig, PretrainingConfig, skip=("vocab_sha256",))
    topology = define("topology", str, "v2-8", f"TPU slice: {', '.join(SLICES)}.", NAME)
    hparams = define("hparams", str, "", "JSON file of settings; none: that of the model size.", PATH)
    price = define("price_per_hour", float, 0.0, "Price of the slice for an hour; 0: no price is shown.",
                   Range(low=0, high=1e6, why="no slice costs more"))
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
    hlo, parameters = synthetic_program(
        model_config, config, vocab_size, config.train_batch_size // tpu.devices)
    start = time.monotonic()
    compiled = compile_for_tpu(hlo, tpu.topology)
    print(f"{model_config.model_size} on {topology.value}, {config.precision}, vocabulary of "
          f"{vocab_size}: compiled in {time.monotonic() - start:.0f} s")
    for line in report_lines(compiled, tpu, config, parameters, price.value):
        print("  " + line)
    if compiled.peak > tpu.chip.memory_gb * 1e9:
        raise CheckFailed(f"{compiled.peak / 1e9:.2f} GB: expected at most {tpu.chip.memory_gb:.0f} GB")
    print("  it fits")
    return 0


if __name__ == "__main__":
    run_main(main)
