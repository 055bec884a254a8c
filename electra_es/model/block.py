"""The transformer block, after `modeling.transformer_model` of google-research/electra.

The block is written here and not taken from Model Garden. With Model Garden's block, canonical names,
derived dropout and two corrections (its rate of dropout after attention, its softmax in bfloat16)
needed thirteen private attributes. Also, speed depends on the block, so we must be able to change it.
docs/fidelity.md says how both were compared.

Shapes: B batch, L length, H hidden, N heads, D = H / N.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tf_keras

from electra_es.config import ModelConfig
from electra_es.model.dropout import Dropout
from electra_es.model.kept import keep, kept_type, with_kept_derivative
from electra_es.model.layer_norm import LayerNorm


def gelu(x: tf.Tensor) -> tf.Tensor:
    """The exact, erf form of GELU, as the original (`modeling.gelu`)."""
    return tf.nn.gelu(x, approximate=False)


def gelu_and_derivative(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`gelu` and its derivative, of the shape and type of `x`."""
    below = 0.5 * (1.0 + tf.math.erf(x * math.sqrt(0.5)))
    return x * below, below + x * tf.exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))


def initializer(config: ModelConfig) -> tf_keras.initializers.Initializer:
    """Truncated normal (cut at two deviations), a fresh one per weight (`create_initializer`)."""
    return tf_keras.initializers.TruncatedNormal(stddev=config.initializer_range)


def layer_norm(config: ModelConfig, name: str) -> LayerNorm:
    """LayerNorm over the last axis, always in float32."""
    return LayerNorm(epsilon=config.layer_norm_epsilon, dtype=tf.float32, name=name)


def attention_probabilities(query: tf.Tensor, key: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """float32 [B, N, L, L] from [B, N, D, L] twice and a bias that is added to the scores."""
    return tf.nn.softmax(_scores(query, key, bias))


def _scores(query: tf.Tensor, key: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    # In float32: with its 8 bits, bfloat16 cannot tell probabilities near 1 apart.
    if kept_type() is None:
        return tf.cast(tf.matmul(query, key, transpose_a=True), tf.float32) + bias
    return tf.raw_ops.BatchMatMulV3(x=query, y=key, Tout=tf.float32, adj_x=True) + bias


def _weights(scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | float]:
    """Softmax as [B, N, L, L] weights, and the sums [B, N, 1, L] by which they have yet to be divided.

    On a device for which arrays are kept (`kept.py`), D numbers a row are divided by the sum, not L.
    """
    if kept_type() is None:
        return tf.nn.softmax(scores), 1.0
    weights = tf.exp(scores - tf.reduce_max(scores, axis=-1, keepdims=True))
    return weights, tf.reduce_sum(weights, axis=-1)[:, :, tf.newaxis]


def attention(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, bias: tf.Tensor,
              kept: tf.Tensor | None, scale: float) -> tf.Tensor:
    """Attention with dropout of its probabilities, for training.

    The gradient is written here because the derived one reads and writes four more arrays of B N L L
    numbers. One such array is kept for it: weights that dropout sets to 0 are kept with a minus. The
    sum over a row of probability times its gradient, which softmax's derivative needs, equals the
    product of output and its gradient (Dao et al. 2022, "FlashAttention", appendix B.2): D numbers
    instead of L.

    Args:
      query, key, value: [B, N, D, L]; `query` is divided by sqrt(D) already.
      bias: float32 [B, 1, 1 or L, L].
      kept: bool [B, N, L, L], which probabilities dropout keeps; None: all.
      scale: by which it multiplies them.

    Returns:
      [B, N, D, L].
    """
    @tf.custom_gradient
    def mix(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tuple[tf.Tensor, Any]:
        weights, total = _weights(_scores(query, key, bias))
        signed = weights if kept is None else tf.where(kept, weights, -weights)
        signed = keep(tf.cast(signed, value.dtype))
        factor = scale / total
        mixed = _times(tf.matmul(value, _dropped(signed, value.dtype), transpose_b=True), factor)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            with tf.name_scope("attention_gradient"):
                scaled = _times(upstream, factor)
                to_value = tf.matmul(scaled, _dropped(signed, value.dtype))
                to_weights = tf.cast(tf.matmul(scaled, value, transpose_a=True), tf.float32)
                row = tf.reduce_sum(
                    tf.cast(scaled, tf.float32) * tf.cast(mixed, tf.float32), axis=2) / scale
                weights = tf.cast(signed, tf.float32)
                to_scores = tf.abs(weights) * (
                    tf.where(weights > 0, to_weights, 0) - row[..., tf.newaxis])
                to_scores = tf.cast(to_scores, value.dtype)
                return (tf.matmul(key, to_scores, transpose_b=True),
                        tf.matmul(query, to_scores), to_value)

        return mixed, gradient

    return mix(query, key, value)


def _dropped(signed: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.cast(tf.nn.relu(signed), dtype)


def _times(x: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    return tf.cast(tf.cast(x, tf.float32) * factor, x.dtype)


class Block(tf_keras.layers.Layer):
    """Self-attention, then a feed-forward part; LayerNorm after each residual sum."""

    def __init__(self, config: ModelConfig, hidden_size: int, num_heads: int,
                 intermediate_size: int, dropout_numbers: Iterator[int], name: str):
        super().__init__(name=name)
        self.num_heads, self.head_size = num_heads, hidden_size // num_heads

        def dense(name: str, width: int) -> tf_keras.layers.Dense:
            return tf_keras.layers.Dense(width, kernel_initializer=initializer(config), name=name)

        # The second number stays unused: it belonged to a layer inside Model Garden's block. So the
        # other layers keep their numbers, and their dropout masks do not change.
        after_attention, _, after_feed_forward, inside = itertools.islice(dropout_numbers, 4)
        self.query = dense("query", hidden_size)
        self.key = dense("key", hidden_size)
        self.value = dense("value", hidden_size)
        self.attention_dropout = Dropout(config.attention_dropout, inside)
        self.attention_output = dense("attention_output", hidden_size)
        self.attention_output_dropout = Dropout(config.hidden_dropout, after_attention)
        self.attention_norm = layer_norm(config, "attention_layer_norm")
        self.intermediate = dense("intermediate", intermediate_size)
        self.feed_forward_output = dense("feed_forward_output", hidden_size)
        self.feed_forward_output_dropout = Dropout(config.hidden_dropout, after_feed_forward)
        self.feed_forward_norm = layer_norm(config, "feed_forward_layer_norm")

    def build(self, input_shape: tf.TensorShape) -> None:
        for layer in (self.query, self.key, self.value, self.attention_output):
            layer.build(input_shape)
        super().build(input_shape)

    def call(self, x: tf.Tensor, bias: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, L, H] and the bias of `attention_probabilities` -> float32 [B, L, H]."""
        with tf.name_scope("attention"):
            attended = self._attend(x, bias, training)
        x = self.attention_norm(x + self.attention_output_dropout(attended))
        # GELU is computed in float32, as in Model Garden: it reports worse convergence in bfloat16.
        inner = tf.cast(self.intermediate(x), tf.float32)
        inner = gelu(inner) if kept_type() is None else with_kept_derivative(gelu_and_derivative)(inner)
        output = self.feed_forward_output_dropout(self.feed_forward_output(inner))
        return self.feed_forward_norm(x + tf.cast(output, tf.float32))

    def _attend(self, x: tf.Tensor, bias: tf.Tensor, training: bool) -> tf.Tensor:
        value = self._heads(self.value, x)
        if training:
            length = x.shape[1] or tf.shape(x)[1]
            batch = x.shape[0] or tf.shape(x)[0]
            kept = self.attention_dropout.kept([batch, self.num_heads, length, length])
            if kept is not None and kept_type() is not None:
                kept = tf.linalg.matrix_transpose(kept)  # as the compiler stores the weights: no copy
            mixed = attention(self._queries(x), self._heads(self.key, x), value, bias, kept,
                              self.attention_dropout.scale)
        else:  # without a written gradient, which exported graphs would have to hold
            probabilities = tf.cast(self.attention_probabilities(x, bias), value.dtype)
            mixed = tf.matmul(value, probabilities, transpose_b=True)
        return self._project_heads(mixed)

    def attention_probabilities(self, x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """float32 [B, N, L, L]: how much a token (third axis) attends to each token (last axis).

        Args:
          x: [B, L, H].
          bias: float32 [B, 1, 1 or L, L], added to the scores: 0, or very low where a token must
            not attend.
        """
        return attention_probabilities(self._queries(x), self._heads(self.key, x), bias)

    def _queries(self, x: tf.Tensor) -> tf.Tensor:
        return self._heads(self.query, x) * self.head_size ** -0.5

    def _heads(self, layer: tf_keras.layers.Dense, x: tf.Tensor) -> tf.Tensor:
        """[B, L, H] -> [B, N, D, L], by the kernel and bias of `layer`.

        The positions are the last axis: a TPU's registers are 128 wide, so that an axis of D = 64 numbers
        at the end would leave half of each empty, and each change between both orders is a copy.
        """
        length = x.shape[1] or tf.shape(x)[1]
        x = tf.cast(x, self.compute_dtype)
        y = tf.einsum("blh,hf->bfl", x, tf.cast(layer.kernel, x.dtype))
        y += tf.expand_dims(tf.cast(layer.bias, x.dtype), -1)
        return tf.reshape(y, [-1, self.num_heads, self.head_size, length])

    def _project_heads(self, x: tf.Tensor) -> tf.Tensor:
        """[B, N, D, L] -> [B, L, H], by the kernel and bias of `attention_output`."""
        length = x.shape[3] or tf.shape(x)[3]
        x = tf.reshape(x, [-1, self.num_heads * self.head_size, length])
        layer = self.attention_output
        return (tf.einsum("bhl,ho->blo", x, tf.cast(layer.kernel, x.dtype))
                + tf.cast(layer.bias, x.dtype))
