"""Elementwise work of a step on a CPU, in few passes over its arrays.

TensorFlow runs each operation by itself, and each reads and writes whole arrays. XLA makes one pass of a
chain of operations, but on a CPU its products are slower than TensorFlow's. So here XLA compiles the
chains, and TensorFlow computes the products. docs/performance.md has what it gives.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import tensorflow as tf

from electra_es.model.scoped import Scoped

Result = TypeVar("Result")

_fusing = Scoped(outside=False)


def fusing(on: bool) -> AbstractContextManager[None]:
    """Whether functions marked with `fused` are compiled when they are called inside the `with`."""
    return _fusing.set_to(on)


def is_fusing() -> bool:
    return _fusing.value


def fused(function: Callable[..., Result]) -> Callable[..., Result]:
    """Marks a function of tensors, Python numbers and None as one chain; it must not use variables."""
    compiled = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(*arguments: object) -> Result:
        return compiled(*arguments) if is_fusing() else function(*arguments)

    return call
