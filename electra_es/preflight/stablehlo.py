"""HLO that TensorFlow wrote on a CPU, changed so that another device's compiler takes it. Needs no
TensorFlow."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from electra_es.errors import CheckFailed


def as_on_tpu(stablehlo: str) -> str:
    """The module with what TensorFlow would emit for a TPU in place of what it emits for a CPU.

    * Random bits: with AUTO_SELECT, TensorFlow takes XLA's default generator on a TPU and Philox on
      a CPU (`DefaultRngAlgForDeviceType` in tensorflow/compiler/tf2xla/kernels/rng_converter_utils.cc).
      libtpu writes Philox out as arithmetic, which made 80 % of the cycles of the small model. The
      default generator has a seed of 128 bits: Philox' third word, a counter, is left out.
    * `mhlo.copy`, see `without_copies`.

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
    return without_copies(text)


def without_copies(stablehlo: str) -> str:
    """`mhlo.copy`, which compilers other than TensorFlow's do not read, as a barrier that only keeps
    the order of operations."""
    return re.sub(
        r"mhlo\.copy (%\S+)(?: \{[^}]*\})? : ", r"stablehlo.optimization_barrier \1 : ", stablehlo)


@contextlib.contextmanager
def stablehlo_module(hlo: bytes, change: Callable[[str], str]) -> Iterator[Any]:
    """A serialised HLO module as a module of StableHLO for JAX's compilers, inside the `with`.

    Args:
      change: what to change in its text.
    """
    # Before them, JAX itself: its modules find their libraries through it.
    import jax  # noqa: F401
    from jax._src.interpreters import mlir
    from jax._src.lib.mlir import ir
    from jaxlib import xla_client

    with mlir.make_ir_context():
        module = ir.Module.parse(xla_client._xla.mlir.hlo_to_stablehlo(hlo))
        # With the names of TensorFlow's operations, by which cycles are attributed.
        yield ir.Module.parse(change(str(module.operation.get_asm(enable_debug_info=True))))
