"""Embeddings and transformer towers, after `modeling.BertModel` of google-research/electra.

The transformer blocks are Model Garden's. What they do not offer is added here: dropout whose
masks are derived from (seed, step), so that a resumed run repeats them bit for bit.

Shapes: B batch, L length, V vocabulary, H hidden (of the tower at hand), E embedding.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Literal, NamedTuple

import tensorflow as tf
import tf_keras
from official.nlp.modeling import layers as garden

from electra_es.config import ModelConfig

Direction = Literal["both", "left_to_right", "right_to_left"]


class EncoderOutput(NamedTuple):
    """Outputs of a tower; float32 or the compute type."""

    embeddings: tf.Tensor  # [B, L, H], after the projection
    layers: list[tf.Tensor]  # [B, L, H] each; the last one is the tower's output


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


class Embeddings(tf_keras.layers.Layer):
    """Sum of word, position and segment embeddings, normalised: [B, L] ids -> [B, L, E].

    With `base`, gradient-disentangled sharing (DeBERTaV3, He et al. 2021, section 3.3): word and
    position tables are those of `base`, through which no gradient flows, plus a delta that starts
    at zero and that this layer trains; segments and LayerNorm are its own.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, width: int, name: str,
                 base: "Embeddings | None" = None):
        super().__init__(name=name)
        self.config, self.vocab_size, self.width = config, vocab_size, width
        self.base = base
        self.norm = layer_norm(config, "LayerNorm")
        self.dropout = tf_keras.layers.Dropout(config.hidden_dropout)

    def build(self, input_shape) -> None:
        config = self.config

        def table(name: str, rows: int, init) -> tf.Variable:
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
        """[V, E], what ids are looked up in and MLM logits are tied to."""
        return self._with_base("word_embeddings")

    def _with_base(self, name: str) -> tf.Tensor:
        own = getattr(self, name)
        return own if self.base is None else own + tf.stop_gradient(getattr(self.base, name))

    def call(self, input_ids: tf.Tensor, segment_ids: tf.Tensor) -> tf.Tensor:
        length = input_ids.shape[1] or tf.shape(input_ids)[1]
        x = tf.gather(self.word_table, input_ids)
        x += self._with_base("position_embeddings")[tf.newaxis, :length]
        # A product with one-hot rows is the original's way, and far faster on TPU than a gather
        # from a table of two rows.
        one_hot = tf.one_hot(segment_ids, self.config.type_vocab_size, dtype=x.dtype)
        x += tf.matmul(one_hot, tf.cast(self.token_type_embeddings, x.dtype))
        return self.dropout(self.norm(x))


class Block(garden.TransformerEncoderBlock):
    """Model Garden's block, but dropout after attention has the rate of outputs, as in the original
    and in Model Garden's documentation; its code takes the rate of attention probabilities."""

    def build(self, input_shape) -> None:
        super().build(input_shape)
        self._attention_dropout.rate = self._output_dropout_rate


class Tower(tf_keras.layers.Layer):
    """Projection where widths differ, then transformer blocks: [B, L, E] -> [B, L, H]."""

    def __init__(self, config: ModelConfig, embedding_width: int, *, hidden_size: int,
                 num_layers: int, num_heads: int, intermediate_size: int, name: str,
                 direction: Direction = "both"):
        super().__init__(name=name)
        self.direction = direction
        self.attention_mask = garden.SelfAttentionMask()
        self.projection = None
        if embedding_width != hidden_size:
            # The original names no initialiser here, and TF1's default is Glorot's.
            self.projection = tf_keras.layers.Dense(hidden_size, name="embeddings_project")
        self.blocks = [
            Block(
                num_attention_heads=num_heads,
                inner_dim=intermediate_size,
                inner_activation=gelu,
                kernel_initializer=initializer(config),
                norm_epsilon=config.layer_norm_epsilon,
                output_dropout=config.hidden_dropout,
                attention_dropout=config.attention_dropout,
                name=f"layer_{i}",
            )
            for i in range(num_layers)
        ]

    def call(self, embeddings: tf.Tensor, input_mask: tf.Tensor) -> EncoderOutput:
        x = embeddings if self.projection is None else self.projection(embeddings)
        # [B, L, L]: 1 where a row's token may look at a column's token
        mask = self.attention_mask(x, input_mask)
        if self.direction == "left_to_right":
            mask = tf.linalg.band_part(mask, -1, 0)
        elif self.direction == "right_to_left":
            mask = tf.linalg.band_part(mask, 0, -1)
        projected, outputs = x, []
        for block in self.blocks:
            x = block([x, mask])
            outputs.append(x)
        return EncoderOutput(projected, outputs)


_AUTO_SELECT = 3  # tf.random.Algorithm.AUTO_SELECT: the device's own generator
_dropout_seed = threading.local()


@contextlib.contextmanager
def dropout_seed(seed: tf.Tensor) -> Iterator[None]:
    """Derives every dropout mask drawn inside from `seed`, int32 [2].

    Thread-local, because a strategy traces each replica in a thread of its own.
    """
    _dropout_seed.value = seed
    try:
        yield
    finally:
        _dropout_seed.value = None


class _DerivedDropout:
    """Stands in for the random generator of a Keras dropout layer.

    tf_keras draws from a stateful stream, which no checkpoint restores. Its layers ask
    `_random_generator.dropout` for the mask; this one derives it from the step's seed and the
    layer's number.

    The number goes into the generator's key by one addition, and the comparison is the mask: with
    `stateless_fold_in` and `tf.nn.experimental.stateless_dropout` the step of the small model needs
    a fifth more memory for activations on a TPU (docs/preflight.md).
    """

    def __init__(self, number: int):
        self.number = number

    def dropout(self, inputs: tf.Tensor, rate: float, noise_shape: tf.Tensor | None = None) -> tf.Tensor:
        seed = getattr(_dropout_seed, "value", None)
        if seed is None:
            raise RuntimeError("dropout outside `dropout_seed`: call with training=False")
        key = tf.bitcast(seed, tf.uint64) + tf.constant(self.number, tf.uint64)
        noise = tf.raw_ops.StatelessRandomUniformV2(
            shape=tf.shape(inputs) if noise_shape is None else noise_shape, key=key[tf.newaxis],
            counter=tf.zeros([2], tf.uint64), alg=_AUTO_SELECT)
        return tf.where(noise >= rate, inputs / tf.cast(1.0 - rate, inputs.dtype), 0)


def keep_softmax_in_float32(model: tf.Module) -> None:
    """Has attention weights computed in float32 whatever the compute type: Model Garden's blocks
    would take bfloat16, whose 8 bits leave probabilities near 1 no room."""
    for layer in model.submodules:
        if isinstance(layer, tf_keras.layers.Softmax):
            layer._set_dtype_policy("float32")


def derive_dropout(model: tf.Module) -> int:
    """Puts all dropout of a built model under `dropout_seed`; returns how many layers there are."""
    dropouts = [m for m in model.submodules if isinstance(m, tf_keras.layers.Dropout)]
    for number, layer in enumerate(dropouts):
        layer._random_generator = _DerivedDropout(number)
    return len(dropouts)
