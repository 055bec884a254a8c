"""What the compiler says of one transformer block on TPUs: cycles and memory, in half a minute each.

    pip install -r requirements-preflight.txt
    python -m benchmarks.tpu_block --topologies=v2-8,v5e-8 --precisions=float32,bfloat16

A whole step takes minutes to hours to compile (`python -m electra_es.preflight`), and nearly all of its
time goes into its blocks. Forward and backward pass of one block with dropout, on the examples that one
device has of a batch. Each row: millions of cycles, by attention, feed-forward part and the rest; then
milliseconds, the share of the matrix unit's peak, and temporary memory.
"""

import itertools
import os

from electra_es.hardware import do_without_tpu

# Before the imports, for libtpu.
do_without_tpu()
os.environ["JAX_PLATFORMS"] = "cpu"

import tensorflow as tf
from absl import flags

from electra_es.config import ModelConfig, model_config
from electra_es.errors import UsageError, run_main
from electra_es.flags import parse_flags_only
from electra_es.model.block import Block
from electra_es.model.dropout import dropout_seed
from electra_es.model.kept import kept_as
from electra_es.model.pretrainer import Precision, computing_in
from electra_es.preflight.compiler import SLICES, Compiled, compile_for_tpu

_SIZE = flags.DEFINE_string("model_size", "small", "Row of the table of model sizes.")
_GENERATOR = flags.DEFINE_bool("generator", False, "A block of the generator.")
_TOPOLOGIES = flags.DEFINE_list("topologies", ["v2-8"], f"TPU slices: {', '.join(SLICES)}.")
_PRECISIONS = flags.DEFINE_list("precisions", ["float32"], "float32, bfloat16.")
_BATCH = flags.DEFINE_integer("train_batch_size", 128, "Examples of a step, on all devices.")
_LENGTH = flags.DEFINE_integer("max_seq_length", 512, "Tokens per example.")


def block_hlo(config: ModelConfig, precision: Precision, batch_size: int, length: int, *,
              generator: bool) -> bytes:
    """Forward and backward pass of a block as a serialised HLO module."""
    hidden, heads, inner = (
        (config.generator_hidden_size, config.generator_num_heads, config.generator_intermediate_size)
        if generator else (config.hidden_size, config.num_heads, config.intermediate_size))
    with computing_in(precision):
        block = Block(config, hidden, heads, inner, itertools.count(), "layer_0")
        block(tf.zeros([1, 2, hidden]), tf.zeros([1, 1, 1, 2]))

    @tf.function(jit_compile=True, autograph=False)
    def step(x: tf.Tensor, bias: tf.Tensor, upstream: tf.Tensor, seed: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape, dropout_seed(seed), kept_as(tf.bfloat16):
            tape.watch(x)
            y = block(x, bias, training=True)
        return [y, *tape.gradient(y, [x, *block.trainable_variables], upstream)]

    x = tf.zeros([batch_size, length, hidden])
    return step.experimental_get_compiler_ir(
        x, tf.zeros([batch_size, 1, 1, length]), x, tf.constant([1, 2]))(stage="hlo_serialized")


def row(topology: str, precision: str, compiled: Compiled) -> str:
    chip, cycles = SLICES[topology].chip, compiled.cycles
    if cycles is None:
        return f"{topology:6} {precision:9} jaxlib cannot read the program that libtpu wrote"
    seconds = cycles.seconds(chip.clock_ghz)
    parts = [cycles.parts["attention"], cycles.parts["feed-forward"]]
    shown = "  ".join(f"{part / 1e6:6.2f}" for part in (
        cycles.total, *parts, cycles.total - sum(parts)))
    share = compiled.flops / seconds / 1e12 / chip.peak_tflops
    return (f"{topology:6} {precision:9} {shown}  {seconds * 1e3:6.2f} ms  {share:4.0%}  "
            f"{compiled.temporary / 1e6:5.0f} MB")


def main() -> None:
    parse_flags_only()
    config = model_config({"model_size": _SIZE.value})
    if wrong := set(_TOPOLOGIES.value) - SLICES.keys():
        raise UsageError(f"--topologies={wrong.pop()}: expected some of {', '.join(SLICES)}")
    if wrong := set(_PRECISIONS.value) - {"float32", "bfloat16"}:
        raise UsageError(f"--precisions={wrong.pop()}: expected float32 or bfloat16")
    print("                    total  attn.   feed.    rest")
    for topology, precision in itertools.product(_TOPOLOGIES.value, _PRECISIONS.value):
        hlo = block_hlo(config, precision, _BATCH.value // SLICES[topology].devices, _LENGTH.value,
                        generator=_GENERATOR.value)
        print(row(topology, precision, compile_for_tpu(hlo, SLICES[topology].topology)), flush=True)


if __name__ == "__main__":
    run_main(main)
