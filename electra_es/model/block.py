"""The transformer block, after `modeling.transformer_model` of google-research/electra.

The block is written here and not taken from Model Garden. With Model Garden's block, canonical names,
derived dropout and two corrections (its rate of dropout after attention, its softmax in bfloat16)
needed thirteen private attributes. Also, speed depends on the block, so we must be able to change it.
docs/fidelity.md says how both were compared.

Shapes: B batch, L length, H hidden, N heads, D = H / N.
"""

import itertools
from collections.abc import Iterator

import tensorflow as tf
import tf_keras

from electra_es.config import ModelConfig
from electra_es.model.attention import attention, attention_probabilities
from electra_es.model.dropout import Dropout
from electra_es.model.gelu import gelu_of_sum
from electra_es.model.layer_norm import LayerNorm
from electra_es.model.products import positions_first, positions_last, product


def initializer(config: ModelConfig) -> tf_keras.initializers.Initializer:
    """Truncated normal (cut at two deviations), a fresh one per weight (`create_initializer`)."""
    return tf_keras.initializers.TruncatedNormal(stddev=config.initializer_range)


def layer_norm(config: ModelConfig, name: str) -> LayerNorm:
    """LayerNorm over the last axis, always in float32."""
    return LayerNorm(epsilon=config.layer_norm_epsilon, dtype=tf.float32, name=name)


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
        for layer in (self.query, self.key, self.value, self.attention_output, self.intermediate):
            layer.build(input_shape)
        self.feed_forward_output.build([self.intermediate.units])
        super().build(input_shape)

    def call(self, x: tf.Tensor, bias: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, L, H] and the bias of `attention_probabilities` -> float32 [B, L, H]."""
        with tf.name_scope("attention"):
            attended = self._attend(x, bias, training)
        x = self.attention_norm.of_sum(
            x, attended, self.attention_output.bias, self.attention_output_dropout, training)
        with tf.name_scope("feed_forward"):
            inner = gelu_of_sum(self._product(self.intermediate, x), self.intermediate.bias)
            output = self._product(self.feed_forward_output, inner)
        return self.feed_forward_norm.of_sum(
            x, output, self.feed_forward_output.bias, self.feed_forward_output_dropout, training)

    def _product(self, layer: tf_keras.layers.Dense, x: tf.Tensor) -> tf.Tensor:
        """[B, L, ...] by the kernel of `layer`, without its bias, which what follows adds in its pass."""
        return product(tf.cast(x, self.compute_dtype), tf.cast(layer.kernel, self.compute_dtype))

    def _attend(self, x: tf.Tensor, bias: tf.Tensor, training: bool) -> tf.Tensor:
        value = self._heads(self.value, x)
        if training:
            length = x.shape[1] or tf.shape(x)[1]
            batch = x.shape[0] or tf.shape(x)[0]
            draws = self.attention_dropout.draws([batch, self.num_heads, length, length])
            mixed = attention(self._queries(x), self._heads(self.key, x), value, bias, draws,
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
        return self._heads(self.query, x, self.head_size ** -0.5)

    def _heads(self, layer: tf_keras.layers.Dense, x: tf.Tensor, scale: float = 1.0) -> tf.Tensor:
        """[B, L, H] -> [B, N, D, L], by the kernel and bias of `layer` times `scale`.

        The positions are the last axis: a TPU's registers are 128 wide, so that an axis of D = 64 numbers
        at the end would leave half of each empty, and each change between both orders is a copy.
        """
        length = x.shape[1] or tf.shape(x)[1]
        x = tf.cast(x, self.compute_dtype)
        kernel, bias = (tf.cast(scale * v, x.dtype) for v in (layer.kernel, layer.bias))
        y = positions_last(x, kernel)
        return tf.reshape(y + tf.expand_dims(bias, -1), [-1, self.num_heads, self.head_size, length])

    def _project_heads(self, x: tf.Tensor) -> tf.Tensor:
        """[B, N, D, L] -> [B, L, H], by the kernel of `attention_output`, without its bias."""
        length = x.shape[3] or tf.shape(x)[3]
        x = tf.reshape(x, [-1, self.num_heads * self.head_size, length])
        return positions_first(x, tf.cast(self.attention_output.kernel, x.dtype))
