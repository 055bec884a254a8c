"""Elementwise work of a step on a CPU, in few passes over its arrays.

TensorFlow runs each operation by itself, and each reads and writes whole arrays. XLA makes one pass of a
chain of operations, but on a CPU its products are slower than TensorFlow's. So here XLA compiles the
chains, and TensorFlow computes the products. docs/performance.md has what it gives.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import tensorflow as tf

Result = TypeVar("Result")

_fusing = threading.local()


@contextlib.contextmanager
def fusing(on: bool) -> Iterator[None]:
    """Whether functions marked with `fused` are compiled when they are called inside the `with`.

    Thread-local, because a strategy traces each replica in a thread of its own.
    """
    _fusing.on = on
    try:
        yield
    finally:
        _fusing.on = False


def is_fusing() -> bool:
    return getattr(_fusing, "on", False)


def fused(function: Callable[..., Result]) -> Callable[..., Result]:
    """Marks a function of tensors, Python numbers and None as one chain; it must not use variables."""
    compiled = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(*arguments: object) -> Result:
        return compiled(*arguments) if is_fusing() else function(*arguments)

    return call
