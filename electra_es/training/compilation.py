"""How a step is compiled: by XLA as a whole, in part, or not at all."""

import contextlib
import functools
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf

from electra_es.config import PretrainingConfig
from electra_es.errors import quiet_libraries
from electra_es.model.fused import fusing
from electra_es.model.kept import kept_as


class Compilation(NamedTuple):
    """The defaults are those of a step that XLA does not compile."""

    whole: bool = False  # XLA is asked to compile the step; on a TPU it does without being asked
    fused: bool = False  # XLA compiles chains of elementwise operations, and no more (`model/fused.py`)
    kept: tf.DType | None = None  # the type of large arrays for the backward pass (`kept_as`)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Model and gradients that are traced inside the `with` have this form."""
        with kept_as(self.kept), fusing(self.fused):
            yield

    def function(self, of: object) -> tf.types.experimental.PolymorphicFunction:
        """A step's forward and backward pass, `of`, compiled."""
        return tf.function(of, jit_compile=True if self.whole else None, autograph=False)


@functools.cache
def _start_xla() -> None:
    """Compiles a first program, of which XLA tells on stderr, where nobody is told."""
    with quiet_libraries():
        tf.function(lambda x: x + 1, jit_compile=True, autograph=False)(tf.constant(0))


def compilation_for(config: PretrainingConfig, strategy: tf.distribute.Strategy) -> Compilation:
    """As `jit_compile` says. With "auto", XLA compiles the whole step for a GPU. On a CPU, where its
    products are slower than TensorFlow's, it compiles elementwise work only."""
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return Compilation(kept=tf.bfloat16)  # its products take no more, whatever the precision
    on_gpu = bool(tf.config.list_physical_devices("GPU")) and config.distribution != "cpu"
    whole = config.jit_compile == "on" or (config.jit_compile == "auto" and on_gpu)
    fused = config.jit_compile == "auto" and not on_gpu
    if whole or fused:
        _start_xla()
    return Compilation(
        whole, fused,
        kept=tf.bfloat16 if whole and config.precision == "bfloat16" else None)
