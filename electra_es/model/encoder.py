"""Embeddings and transformer towers, after `modeling.BertModel` of google-research/electra.

Shapes: B batch, L length, V vocabulary, H hidden size of a tower, E embedding.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import tensorflow as tf
import tf_keras

from electra_es.config import ModelConfig
from electra_es.model.block import Block, initializer, layer_norm
from electra_es.model.dense import Dense
from electra_es.model.dropout import Dropout

Direction = Literal["both", "left_to_right", "right_to_left"]


class EncoderOutput(NamedTuple):
    """Outputs of a tower; float32 or the compute type."""

    embeddings: tf.Tensor  # [B, L, H], after the projection
    layers: list[tf.Tensor]  # [B, L, H] each; the last one is the tower's output


class Embeddings(tf_keras.layers.Layer):
    """Sum of word, position and segment embeddings, normalised: [B, L] ids -> [B, L, E].

    With `base`, gradient-disentangled sharing (DeBERTaV3, He et al. 2021, section 3.3): word and
    position tables are those of `base` plus a delta. No gradient flows into `base`. The delta starts
    at zero, and this layer trains it. Segments and LayerNorm belong to this layer alone.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, width: int, name: str,
                 dropout_number: int, base: "Embeddings | None" = None):
        super().__init__(name=name)
        self.config, self.vocab_size, self.width = config, vocab_size, width
        self.base = base
        self.norm = layer_norm(config, "LayerNorm")
        self.dropout = Dropout(config.hidden_dropout, dropout_number)

    def build(self, input_shape: tf.TensorShape) -> None:
        config = self.config

        def table(name: str, rows: int, init: str | tf_keras.initializers.Initializer
                  ) -> tf.Variable:
            return self.add_weight(name=name, shape=[rows, self.width], initializer=init)

        learned = "zeros" if self.base is not None else initializer(config)
        self.word_embeddings = table("word_embeddings", self.vocab_size, learned)
        self.token_type_embeddings = table(
            "token_type_embeddings", config.type_vocab_size, initializer(config))
        learned = "zeros" if self.base is not None else initializer(config)
        self.position_embeddings = table(
            "position_embeddings", config.max_position_embeddings, learned)
        super().build(input_shape)

    @property
    def word_table(self) -> tf.Tensor:
        """[V, E], the table for the look-up of ids; the output layer of MLM uses it too."""
        return self._with_base("word_embeddings")

    def _with_base(self, name: str) -> tf.Tensor:
        # As a tensor: TensorFlow copies a variable in which something is looked up at every other use.
        own = tf.convert_to_tensor(getattr(self, name))
        return own if self.base is None else own + tf.stop_gradient(getattr(self.base, name))

    def call(self, input_ids: tf.Tensor, segment_ids: tf.Tensor) -> tf.Tensor:
        length = input_ids.shape[1] or tf.shape(input_ids)[1]
        x = tf.gather(self.word_table, input_ids)
        x += self._with_base("position_embeddings")[tf.newaxis, :length]
        # As in the original, a product with one-hot rows: on TPU it is far faster than a gather from a
        # table of two rows.
        one_hot = tf.one_hot(segment_ids, self.config.type_vocab_size, dtype=x.dtype)
        x += tf.matmul(one_hot, tf.cast(self.token_type_embeddings, x.dtype))
        return self.dropout(self.norm(x))


class Tower(tf_keras.layers.Layer):
    """Projection where widths differ, then transformer blocks: [B, L, E] -> [B, L, H]."""

    def __init__(self, config: ModelConfig, embedding_width: int, *, hidden_size: int,
                 num_layers: int, num_heads: int, intermediate_size: int, name: str,
                 dropout_numbers: Iterator[int], direction: Direction = "both"):
        super().__init__(name=name)
        self.direction = direction
        self.projection = None
        if embedding_width != hidden_size:
            # The original names no initialiser here; TF1's default is Glorot's.
            self.projection = Dense(hidden_size, name="embeddings_project")
        self.blocks = [
            Block(config, hidden_size, num_heads, intermediate_size, dropout_numbers, f"layer_{i}")
            for i in range(num_layers)
        ]

    def call(self, embeddings: tf.Tensor, input_mask: tf.Tensor) -> EncoderOutput:
        x = embeddings if self.projection is None else self.projection(embeddings)
        bias = self.attention_bias(input_mask)
        projected, outputs = x, []
        for block in self.blocks:
            x = block(x, bias)
            outputs.append(x)
        return EncoderOutput(projected, outputs)

    def attention_bias(self, input_mask: tf.Tensor) -> tf.Tensor:
        """[B, L] of 0 and 1 -> float32 [B, 1, 1, L], or [B, 1, L, L] where a token sees one side
        only: 0 where the token of a row may attend to the token of a column, -1e9 elsewhere."""
        visible = tf.cast(input_mask, tf.float32)[:, tf.newaxis, tf.newaxis]
        if self.direction != "both":
            length = tf.shape(input_mask)[1]
            lower, upper = (-1, 0) if self.direction == "left_to_right" else (0, -1)
            visible *= tf.linalg.band_part(tf.ones([length, length]), lower, upper)
        return (1.0 - visible) * -1e9
