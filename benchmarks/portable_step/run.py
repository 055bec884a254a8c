"""Runs an exported training step with JAX and NumPy, without TensorFlow."""

import argparse
import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.portable_step.folder import (
    PROGRAM_FILE,
    State,
    StepFacts,
    endless_batches,
    read_facts,
    read_state,
    write_state,
)
from benchmarks.speed_table import speed_lines
from benchmarks.turns import take_turns
from electra_es import files
from electra_es.chips import TPUS, gpu_peaks
from electra_es.config import ModelConfig, from_dict
from electra_es.errors import CheckFailed, UsageError, import_optional
from electra_es.preflight.stablehlo import as_on_tpu, stablehlo_module, without_copies

_REQUIREMENTS = "requirements-preflight.txt"


class PortableStep:
    """The compiled step and its state on one device.

    Attributes:
      device: of JAX.
      step: how many steps the state has behind it.
    """

    def __init__(self, folder: str, platform: str = ""):
        """Args:
          platform: cpu, cuda or tpu; empty: what JAX takes.

        Raises:
          UsageError: JAX is not installed, or has no such device.
        """
        os.environ["JAX_ENABLE_X64"] = "1"  # places of examples, steps and seeds have 64 bits
        # The memory is shared with PyTorch in the same process.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        self._jax = import_optional("jax", _REQUIREMENTS)
        self._jax.config.update("jax_enable_x64", True)
        self.facts = read_facts(folder)
        try:
            self.device = self._jax.devices(platform or None)[0]
        except RuntimeError as error:
            raise UsageError(f"--platform={platform}: JAX has no such device ({error})") from None
        self._executable = _compile(files.read_bytes(os.path.join(folder, PROGRAM_FILE)), self.device)
        state = read_state(folder, self.facts)
        self.step, self._examples_seen = state.step, state.examples_seen
        self._variables = [self._put(state.values[array.name]) for array in self.facts.variables]
        self._batches = endless_batches(folder, self.facts)

    def _put(self, array: np.ndarray) -> Any:
        return self._jax.device_put(array, self.device)

    def __call__(self) -> dict[str, Any]:
        """Trains on the next batch; returns the metric sums, which may still be under way."""
        batch = [self._put(array) for array in next(self._batches)]
        results = self._executable.execute_sharded(
            [*batch, *self._variables]).disassemble_into_single_device_arrays()
        results = [result[0] for result in results]
        self._variables = results[len(self.facts.metrics):]
        self.step += 1
        self._examples_seen += self.facts.batch_size
        return dict(zip(self.facts.metrics, results, strict=False))

    def state(self, *, with_moments: bool) -> State:
        """The state on the host. Without moments a run can be evaluated, but not continued."""
        wanted = None if with_moments else {*self.facts.weights, "step"}
        return State(self.step, self._examples_seen, {
            array.name: np.asarray(value) for array, value in zip(
                self.facts.variables, self._variables, strict=True)
            if wanted is None or array.name in wanted})

    def memory(self) -> float:
        """Bytes of arguments, temporary arrays and code."""
        stats = self._executable.get_compiled_memory_stats()
        return float(stats.argument_size_in_bytes + stats.temp_size_in_bytes
                     + stats.generated_code_size_in_bytes)


def _compile(hlo: bytes, device: Any) -> Any:
    from jaxlib import xla_client

    change = as_on_tpu if device.platform == "tpu" else without_copies
    with stablehlo_module(hlo, change) as module:
        return device.client.compile_and_load(
            module, xla_client.DeviceList((device,)), xla_client.CompileOptions())


def peak_tflops(device: Any, facts: StepFacts) -> float:
    """Of the device for the type of the step; 0 if it is not known."""
    if device.platform == "tpu":
        return next((chip.peak_tflops for name, chip in TPUS.items()
                     if device.device_kind.lower().endswith(name)), 0.0)
    peaks = gpu_peaks(device.device_kind)
    return peaks[facts.config["pretraining"]["precision"] == "float32"] if peaks else 0.0


def train(step: PortableStep, *, steps: int, seconds: float, log_every: int) -> None:
    """Trains for a number of steps, or of seconds; prints all metrics every `log_every` steps."""
    start, first = time.monotonic(), step.step
    for number in itertools.count(1):
        sums = step()
        is_last = number == steps if steps else False
        if number % log_every and not is_last:
            continue
        values = {name: float(value) for name, value in sums.items()}  # waits for the device
        spent = time.monotonic() - start
        print(f"step {step.step}  {number * step.facts.batch_size / spent:,.1f} examples/s  "
              + "  ".join(f"{name} {value:.7g}" for name, value in values.items()), flush=True)
        if is_last or (seconds and spent > seconds):
            break
    print(f"{step.step - first} steps in {spent:.0f} s, compiling not counted")


def measure(step: PortableStep, *, steps: int, turns: int, peak: float, with_pytorch: bool) -> None:
    """Turns of `steps` steps, with those of PyTorch in between; prints the table of `speed_lines`."""
    last: dict[str, Any] = {}

    def run() -> None:
        for _ in range(steps):
            last.update(step())
        for value in last.values():
            value.block_until_ready()

    facts = step.facts
    actions: dict[str, Callable[[], None]] = {f"this step, {step.device.device_kind}": run}
    if with_pytorch:
        actions |= _pytorch_actions(facts, steps, step.device.platform)
    seconds = take_turns(actions, turns)
    print("  ".join(f"{name} {float(value):.7g}" for name, value in last.items()))
    for line in speed_lines(seconds, steps=steps, batch_size=facts.batch_size, flops=facts.flops,
                            peak_tflops=peak):
        print(line)


def _pytorch_actions(facts: StepFacts, steps: int, platform: str) -> dict[str, Callable[[], None]]:
    """PyTorch's step of the same size and precision: as it is, and with everything that makes it fast."""
    from benchmarks.pytorch_step import Options, pytorch_steps

    batch_size, length = facts.batch[0].shape
    plain = Options("cuda" if platform == "gpu" else "cpu", facts.config["pretraining"]["precision"])
    model = from_dict(ModelConfig, facts.config["model"])
    return {str(options): pytorch_steps(
        model, batch_size, length, facts.config["text"]["vocab_size"], steps, options)
        for options in (plain, plain._replace(compiled=True, fused=True))}


def main() -> None:
    parser = argparse.ArgumentParser(prog="portable_step run", description=__doc__)
    parser.add_argument("folder", help="what `export` wrote")
    parser.add_argument("--platform", choices=("cpu", "cuda", "tpu"), default="",
                        help="device of JAX; default: the best that it sees")
    parser.add_argument("--steps", type=int, default=0, help="how many steps; of each turn, with --turns")
    parser.add_argument("--seconds", type=float, default=0.0, help="train that long instead")
    parser.add_argument("--turns", type=int, default=0, help="measure so many turns, by their median")
    parser.add_argument("--with_pytorch", action="store_true", help="PyTorch takes turns with it")
    parser.add_argument("--log_every", type=int, default=1, help="steps between two lines of metrics")
    parser.add_argument("--peak_tflops", type=float, default=0.0, help="of the device, if not known")
    parser.add_argument("--output", default="", help="folder for the trained state")
    parser.add_argument("--with_moments", action="store_true", help="the optimiser's state too")
    parser.add_argument("--piece_mb", type=float, default=15.0, help="largest file of the state")
    values = parser.parse_args()
    if bool(values.steps) == bool(values.seconds):
        raise UsageError("expected either --steps or --seconds")
    if values.turns and not values.steps:
        raise UsageError(f"--turns={values.turns}: expected --steps, the steps of each turn")
    if values.output and os.path.exists(values.output):
        raise UsageError(f"--output={values.output}: exists already: expected a new path")
    start = time.monotonic()
    step = PortableStep(values.folder, values.platform)
    peak = values.peak_tflops or peak_tflops(step.device, step.facts)
    print(f"{step.device.device_kind}: compiled in {time.monotonic() - start:.1f} s, "
          f"{step.memory() / 1e9:.2f} GB", flush=True)
    if values.turns:
        measure(step, steps=values.steps, turns=values.turns, peak=peak,
                with_pytorch=values.with_pytorch)
    else:
        train(step, steps=values.steps, seconds=values.seconds, log_every=values.log_every)
    if values.output:
        save(step, values.output, with_moments=values.with_moments, piece_mb=values.piece_mb)


def save(step: PortableStep, output: str, *, with_moments: bool, piece_mb: float) -> None:
    """Writes the state to a new folder that `load` reads.

    Raises:
      CheckFailed: a weight is not finite; nothing is written.
    """
    state = step.state(with_moments=with_moments)
    wrong = [name for name, value in state.values.items() if not np.isfinite(value).all()]
    if wrong:
        raise CheckFailed(f"step {step.step}: {wrong[0]} has values that are not finite numbers")
    scratch = f"{output}.writing"
    files.remove(scratch)
    files.make_directory(scratch)
    step.facts.write(scratch)
    write_state(scratch, state, int(piece_mb * 1e6))
    files.rename(scratch, output)
    print(f"{output}: the state of step {step.step}")
