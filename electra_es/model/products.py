"""Products of activations with a layer's kernel, and their gradients.

Shapes: B batch, L length, I input width, O output width.
"""

from collections.abc import Callable

import tensorflow as tf

from electra_es.model.fused import is_fusing

Gradients = Callable[[tf.Tensor], tuple[tf.Tensor, ...]]


def product(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """[B, L, I] times the kernel [I, O] -> [B, L, O]."""
    return _product(x, kernel) if is_fusing() else tf.tensordot(x, kernel, 1)


def positions_last(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """[B, L, I] times the kernel [I, O] -> [B, O, L]."""
    return _positions_last(x, kernel) if is_fusing() else tf.einsum("bli,io->bol", x, kernel)


def positions_first(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """[B, I, L] times the kernel [I, O] -> [B, L, O]."""
    return _positions_first(x, kernel) if is_fusing() else tf.einsum("bil,io->blo", x, kernel)


@tf.custom_gradient
def _product(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
        rows = _rows(upstream)
        to_x = tf.reshape(tf.matmul(rows, kernel, transpose_b=True), tf.shape(x))
        if kernel.shape[0] <= kernel.shape[1]:
            return to_x, tf.matmul(_rows(x), rows, transpose_a=True)
        # On a CPU this takes three quarters of the time of a product with more rows than columns.
        return to_x, tf.transpose(tf.matmul(rows, _rows(x), transpose_a=True))

    return tf.tensordot(x, kernel, 1), gradient


# On a CPU `einsum` transposes the result, and the gradient twice. A product of each example with the
# kernel needs no transposition; the gradient of the kernel, a product of all rows at once, needs one.


@tf.custom_gradient
def _positions_last(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
        rows = _rows(tf.linalg.matrix_transpose(upstream))
        to_x = tf.reshape(tf.matmul(rows, kernel, transpose_b=True), tf.shape(x))
        return to_x, tf.matmul(_rows(x), rows, transpose_a=True)

    return tf.matmul(kernel, x, transpose_a=True, transpose_b=True), gradient


@tf.custom_gradient
def _positions_first(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
        to_x = tf.matmul(kernel, upstream, transpose_b=True)
        return to_x, tf.matmul(_rows(tf.linalg.matrix_transpose(x)), _rows(upstream), transpose_a=True)

    return tf.matmul(x, kernel, transpose_a=True), gradient


def _rows(x: tf.Tensor) -> tf.Tensor:
    """[B, L, O] -> [B L, O]."""
    return tf.reshape(x, [-1, x.shape[-1]])


def sum_of_rows(x: tf.Tensor) -> tf.Tensor:
    """[..., O] -> float32 [O]. On a CPU this takes half the time of `reduce_sum`, and of XLA's sum. In
    bfloat16 the operation would add in bfloat16 there: see `Dense`."""
    return tf.raw_ops.BiasAddGrad(out_backprop=tf.cast(x, tf.float32))
