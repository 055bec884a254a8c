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
from electra_es.model.dropout import Dropout


def gelu(x: tf.Tensor) -> tf.Tensor:
    """The exact, erf form of GELU, as the original (`modeling.gelu`)."""
    return tf.nn.gelu(x, approximate=False)


def initializer(config: ModelConfig) -> tf_keras.initializers.Initializer:
    """Truncated normal (cut at two deviations), a fresh one per weight (`create_initializer`)."""
    return tf_keras.initializers.TruncatedNormal(stddev=config.initializer_range)


def layer_norm(config: ModelConfig, name: str) -> tf_keras.layers.LayerNormalization:
    """LayerNorm over the last axis, always in float32."""
    return tf_keras.layers.LayerNormalization(
        epsilon=config.layer_norm_epsilon, dtype=tf.float32, name=name)


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

    def call(self, x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """[B, L, H] and the bias of `attention_probabilities` -> float32 [B, L, H]."""
        probabilities = self.attention_dropout(self.attention_probabilities(x, bias))
        mixed = tf.einsum("bnqk,bknd->bqnd", probabilities, self._heads(self.value(x)))
        attention = self.attention_output(tf.reshape(mixed, tf.shape(x)))
        x = self.attention_norm(x + self.attention_output_dropout(attention))
        # GELU is computed in float32, as in Model Garden: it reports worse convergence in bfloat16.
        inner = gelu(tf.cast(self.intermediate(x), tf.float32))
        output = self.feed_forward_output_dropout(self.feed_forward_output(inner))
        return self.feed_forward_norm(x + tf.cast(output, tf.float32))

    def attention_probabilities(self, x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """float32 [B, N, L, L]: how much a token (third axis) attends to each token (last axis).

        Args:
          x: [B, L, H].
          bias: float32 [B, 1, 1 or L, L], added to the scores: 0, or very low where a token must
            not attend.
        """
        query = self._heads(self.query(x)) * self.head_size ** -0.5
        scores = tf.einsum("bqnd,bknd->bnqk", query, self._heads(self.key(x)))
        # In float32: with its 8 bits, bfloat16 cannot tell probabilities near 1 apart.
        return tf.nn.softmax(tf.cast(scores, tf.float32) + bias)

    def _heads(self, x: tf.Tensor) -> tf.Tensor:
        """[B, L, H] -> [B, L, N, D]."""
        length = x.shape[1] or tf.shape(x)[1]
        return tf.reshape(x, [-1, length, self.num_heads, self.head_size])
