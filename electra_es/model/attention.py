"""Attention: its probabilities, and what training mixes with them.

Shapes: B batch, L length, N heads, D head size.
"""

from typing import Any

import tensorflow as tf

from electra_es.model.dropout import Draws, kept_entries
from electra_es.model.fused import fused, is_fusing
from electra_es.model.kept import keep, kept_type


def attention_probabilities(query: tf.Tensor, key: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """float32 [B, N, L, L] from [B, N, D, L] twice and a bias that is added to the scores."""
    return tf.nn.softmax(_products(query, key) + bias)


def _products(query: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    # In float32: with its 8 bits, bfloat16 cannot tell probabilities near 1 apart.
    if kept_type() is None:
        return tf.cast(tf.matmul(query, key, transpose_a=True), tf.float32)
    return tf.raw_ops.BatchMatMulV3(x=query, y=key, Tout=tf.float32, adj_x=True)


@fused
def _signed_weights(products: tf.Tensor, bias: tf.Tensor, draws: Draws | None, dtype: tf.DType
                    ) -> tuple[tf.Tensor, tf.Tensor | float]:
    """Softmax as [B, N, L, L] weights of `dtype`, with a minus where dropout sets them to 0, and the sums
    [B, N, 1, L] by which they have yet to be divided.

    On a device for which arrays are kept (`kept.py`), D numbers a row are divided by the sum, not L.
    """
    scores = products + bias
    if kept_type() is None:
        weights, total = tf.nn.softmax(scores), 1.0
    else:
        weights = tf.exp(scores - tf.reduce_max(scores, axis=-1, keepdims=True))
        total = tf.reduce_sum(weights, axis=-1)[:, :, tf.newaxis]
    kept = kept_entries(draws, scores.shape[0] or tf.shape(scores)[0])
    if kept is not None:
        if kept_type() is not None:
            kept = tf.linalg.matrix_transpose(kept)  # as the compiler stores the weights: no copy
        weights = tf.where(kept, weights, -weights)
    return tf.cast(weights, dtype), total


@fused
def _gradient_of_scores(signed: tf.Tensor, to_dropped: tf.Tensor, row: tf.Tensor, scale: float | None,
                        dtype: tf.DType) -> tf.Tensor:
    """[B, N, L, L] of `dtype`, from the gradient of the weights after dropout and its scale, and the sum
    over each row of weight times gradient, [B, N, L]."""
    weights, to_weights = tf.cast(signed, tf.float32), _times(tf.cast(to_dropped, tf.float32), scale)
    return tf.cast(tf.abs(weights) * (tf.where(weights > 0, to_weights, 0) - row[..., tf.newaxis]), dtype)


def attention(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, bias: tf.Tensor,
              draws: Draws | None, scale: float) -> tf.Tensor:
    """Attention with dropout of its probabilities, for training.

    The gradient is written here because the derived one reads and writes four more arrays of B N L L
    numbers. One such array is kept for it: weights that dropout sets to 0 are kept with a minus. The
    sum over a row of probability times its gradient, which softmax's derivative needs, equals the
    product of output and its gradient (Dao et al. 2022, "FlashAttention", appendix B.2): D numbers
    instead of L.

    Args:
      query, key, value: [B, N, D, L]; `query` is divided by sqrt(D) already.
      bias: float32 [B, 1, 1 or L, L].
      draws: for [B, N, L, L], decides which probabilities dropout keeps; None: all.
      scale: by which it multiplies them.

    Returns:
      [B, N, D, L].
    """
    @tf.custom_gradient
    def mix(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tuple[tf.Tensor, Any]:
        signed, total = _signed_weights(_products(query, key), bias, draws, value.dtype)
        signed = keep(signed)
        # Fused, the scale costs nothing where dropout is applied; else D numbers are cheaper than L.
        inside, outside = (scale, None) if is_fusing() else (None, scale / total)
        dropped = _dropped(signed, inside, value.dtype)
        mixed = _times(tf.matmul(value, dropped, transpose_b=True), outside)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            with tf.name_scope("attention_gradient"):
                scaled = _times(upstream, outside)
                row = tf.reduce_sum(tf.cast(scaled, tf.float32) * tf.cast(mixed, tf.float32), axis=2)
                row = row if outside is None else row / scale
                to_scores = _gradient_of_scores(
                    signed, tf.matmul(scaled, value, transpose_a=True), row, inside, value.dtype)
                return (tf.matmul(key, to_scores, transpose_b=True), tf.matmul(query, to_scores),
                        tf.matmul(scaled, dropped))

        return mixed, gradient

    return mix(query, key, value)


@fused
def _dropped(signed: tf.Tensor, scale: float | None, dtype: tf.DType) -> tf.Tensor:
    return tf.cast(_times(tf.nn.relu(signed), scale), dtype)


def _times(x: tf.Tensor, factor: tf.Tensor | float | None) -> tf.Tensor:
    return x if factor is None else tf.cast(tf.cast(x, tf.float32) * factor, x.dtype)
