"""The pretraining model: generator, discriminator, losses and metrics.

Shapes: B batch, L length, K predictions, V vocabulary, H hidden, E embedding.
Source: `run_pretraining.PretrainingModel` of google-research/electra; paper section 3.
"""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Literal, NamedTuple

import tensorflow as tf
import tf_keras

from electra_es.config import ModelConfig
from electra_es.model.batches import Inputs, MaskedInputs, VocabularyFacts
from electra_es.model.block import initializer, layer_norm
from electra_es.model.dense import Dense
from electra_es.model.encoder import Direction, Embeddings, EncoderOutput, Tower
from electra_es.model.gelu import gelu
from electra_es.model.masking import candidate_positions, gather_positions, scatter_update
from electra_es.model.sampling import (
    Softmax,
    cross_entropy,
    sample,
    sample_from_softmax,
    softmax_of,
)

Precision = Literal["float32", "bfloat16"]


class Outputs(NamedTuple):
    """The results of a forward pass, float32 unless another type is named. Without a discriminator
    (`objective=mlm`) its results and the samples for it are None.

    A loss is the sum of `*_losses * *_weights` over a sum of weights that the caller counts
    over the whole step (all replicas and micro-batches), see `total_loss`.
    """

    mlm_logits: tf.Tensor  # [B, K, V]
    mlm_losses: tf.Tensor  # [B, K]; [B, L] for the two-tower generator
    mlm_weights: tf.Tensor  # of the same shape
    sampled_ids: tf.Tensor | None = None  # int32 [B, K]
    corrupted_ids: tf.Tensor | None = None  # int32 [B, L]
    labels: tf.Tensor | None = None  # int32 [B, L], 1 where a token was replaced
    discriminator_logits: tf.Tensor | None = None  # [B, L]
    discriminator_losses: tf.Tensor | None = None  # [B, L]
    discriminator_weights: tf.Tensor | None = None  # [B, L], 1 for all tokens but padding


class MaskedLMHead(tf_keras.layers.Layer):
    """Dense, GELU, LayerNorm, product with the word table, bias (`get_token_logits`)."""

    def __init__(self, config: ModelConfig, vocab_size: int, width: int):
        super().__init__(name="generator_predictions")
        self.vocab_size = vocab_size
        self.dense = Dense(
            width, activation=gelu, kernel_initializer=initializer(config), name="dense")
        self.norm = layer_norm(config, "LayerNorm")

    def build(self, input_shape: tf.TensorShape) -> None:
        self.output_bias = self.add_weight(
            name="output_bias", shape=[self.vocab_size], initializer="zeros")
        super().build(input_shape)

    def call(self, sequence: tf.Tensor, word_table: tf.Tensor) -> tf.Tensor:
        """[B, K, H] and [V, E] -> float32 [B, K, V]."""
        x = tf.cast(self.norm(self.dense(sequence)), self.compute_dtype)
        logits = tf.einsum("bke,ve->bkv", x, tf.cast(word_table, self.compute_dtype))
        return tf.cast(logits, tf.float32) + tf.cast(self.output_bias, tf.float32)


class DiscriminatorHead(tf_keras.layers.Layer):
    """Dense, GELU, dense to one logit (`_get_discriminator_output`): [B, L, H] -> float32 [B, L]."""

    def __init__(self, config: ModelConfig):
        super().__init__(name="discriminator_predictions")
        self.dense = Dense(
            config.hidden_size, activation=gelu, kernel_initializer=initializer(config),
            name="dense")
        # Glorot, as the original names no initialiser for this one.
        self.logit = Dense(1, name="dense_1")

    def call(self, sequence: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.squeeze(self.logit(self.dense(sequence)), -1), tf.float32)


class ElectraPretrainer(tf_keras.layers.Layer):
    """Both towers and their heads. The configuration decides which parts exist:

    * masked_lm: generator tower with the discriminator's embeddings (or its own, if untied);
    * shared, or objective mlm: one full-size tower, that of the discriminator;
    * two_tower: a left-to-right and a right-to-left generator (electric);
    * uniform: no generator at all.
    """

    def __init__(self, config: ModelConfig, vocab: VocabularyFacts):
        super().__init__(name="electra")
        self.config, self.vocab = config, vocab
        self.dropout_numbers = itertools.count()
        self._add_embeddings()
        self.discriminator = Tower(
            config, config.embedding_size, hidden_size=config.hidden_size,
            num_layers=config.num_layers, num_heads=config.num_heads,
            intermediate_size=config.intermediate_size, name="discriminator",
            dropout_numbers=self.dropout_numbers)
        self.generators: list[Tower] = []
        if config.generator_kind == "two_tower":
            self.generators = [self._generator("generator_ltr", "left_to_right"),
                               self._generator("generator_rtl", "right_to_left")]
        elif config.uses_full_size_generator:
            self.generators = [self.discriminator]
        elif config.generator_kind == "masked_lm":
            self.generators = [self._generator("generator", "both")]
        self.mlm_head: MaskedLMHead | None = None
        if self.generators:
            self.mlm_head = MaskedLMHead(config, vocab.size, self.generator_embeddings.width)
        self.discriminator_head = DiscriminatorHead(config) if config.objective != "mlm" else None

    def _add_embeddings(self) -> None:
        config = self.config
        if config.uses_full_size_generator or config.embedding_sharing == "tied":
            self.embeddings = self._embeddings("embeddings", config.embedding_size)
            self.generator_embeddings = self.embeddings
        elif config.embedding_sharing == "gradient_disentangled":
            self.generator_embeddings = self._embeddings(
                "generator_embeddings", config.embedding_size)
            self.embeddings = self._embeddings(
                "embeddings", config.embedding_size, base=self.generator_embeddings)
        else:
            # Untied embeddings are as wide as the generator, as in the original.
            self.embeddings = self._embeddings("embeddings", config.embedding_size)
            self.generator_embeddings = self._embeddings(
                "generator_embeddings", config.generator_hidden_size)

    def _embeddings(self, name: str, width: int, base: Embeddings | None = None) -> Embeddings:
        return Embeddings(
            self.config, self.vocab.size, width, name, next(self.dropout_numbers), base)

    def _generator(self, name: str, direction: Direction) -> Tower:
        config = self.config
        return Tower(
            config, self.generator_embeddings.width, hidden_size=config.generator_hidden_size,
            num_layers=config.generator_num_layers, num_heads=config.generator_num_heads,
            intermediate_size=config.generator_intermediate_size, name=name, direction=direction,
            dropout_numbers=self.dropout_numbers)

    def generator_sequence(self, input_ids: tf.Tensor, input_mask: tf.Tensor,
                           segment_ids: tf.Tensor) -> tf.Tensor:
        """[B, L, H of the generator]; 2 H for two towers, each seeing one side of a token."""
        embedded = self.generator_embeddings(input_ids, segment_ids)
        outputs = [tower(embedded, input_mask).layers[-1] for tower in self.generators]
        if len(outputs) == 1:
            return outputs[0]
        left_to_right, right_to_left = outputs
        # The state of the neighbour predicts a token, because it has not seen the token. The original's
        # `roll` shifts by slices that wrap around, and tf.roll does the same with the opposite sign.
        return tf.concat([tf.roll(left_to_right, 1, axis=1), tf.roll(right_to_left, -1, axis=1)], -1)

    def mlm_logits(self, masked: MaskedInputs, inputs: Inputs) -> tf.Tensor:
        """float32 [B, K, V] at the selected positions."""
        if self.mlm_head is None:
            return tf.zeros([*tf.unstack(tf.shape(masked.positions)), self.vocab.size])
        sequence = self.generator_sequence(masked.input_ids, inputs.input_mask, inputs.segment_ids)
        return self.mlm_head(
            gather_positions(sequence, masked.positions), self.generator_embeddings.word_table)

    def cloze_logits(self, inputs: Inputs) -> tf.Tensor:
        """float32 [B, L, V]: the two-tower generator's prediction of every token from the others."""
        assert self.mlm_head is not None
        sequence = self.generator_sequence(
            inputs.input_ids, inputs.input_mask, inputs.segment_ids)
        return self.mlm_head(sequence, self.generator_embeddings.word_table)

    def encode(self, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor
               ) -> EncoderOutput:
        """`EncoderOutput` of the discriminator: what fine-tuning and embeddings use."""
        return self.discriminator(self.embeddings(input_ids, segment_ids), input_mask)

    def discriminator_logits(self, input_ids: tf.Tensor, input_mask: tf.Tensor,
                   segment_ids: tf.Tensor) -> tf.Tensor:
        """float32 [B, L]; above 0: the discriminator classifies the token as replaced."""
        assert self.discriminator_head is not None, "a model with objective=mlm has no discriminator"
        return self.discriminator_head(self.encode(input_ids, input_mask, segment_ids).layers[-1])

    def call(self, inputs: Inputs, masked: MaskedInputs, draws: tf.Tensor | None = None,
             sampled_ids: tf.Tensor | None = None, training: bool = False) -> Outputs:
        """One forward pass of the objective.

        Args:
          inputs: the batch.
          masked: its selected positions.
          draws: float32 [B, K] in [0, 1), for sampling; not needed with objective mlm.
          sampled_ids: int32 [B, K], instead of sampling (tests against fixed numbers).
          training: whether dropout is on; Keras passes it on to every layer inside.
        """
        config = self.config
        if config.generator_kind == "two_tower":
            cloze = self.cloze_logits(inputs)
            logits = gather_positions(cloze, masked.positions)
            candidates = candidate_positions(inputs, self.vocab)
            softmax = None
            mlm_losses = _cross_entropy(cloze, inputs.input_ids)
            mlm_weights = tf.cast(candidates, tf.float32)
        else:
            cloze = None
            logits = self.mlm_logits(masked, inputs)
            with tf.name_scope("vocabulary_softmax"):
                softmax = softmax_of(logits)
                mlm_losses = cross_entropy(logits, masked.original_ids, softmax.log_partition)
            mlm_weights = masked.weights
        discriminator_weights = tf.cast(inputs.input_mask, tf.float32)
        if self.discriminator_head is None:
            return Outputs(logits, mlm_losses, mlm_weights,
                           discriminator_weights=discriminator_weights)
        if sampled_ids is None:
            sampled_ids = self._sampled_ids(logits, softmax, masked.original_ids, draws)
        corrupted_ids, written = scatter_update(inputs.input_ids, sampled_ids, masked.positions)
        differs = tf.cast(corrupted_ids != inputs.input_ids, tf.int32)
        labels = written if config.objective == "electric" else written * differs
        discriminator_logits = self.discriminator_logits(
            corrupted_ids, inputs.input_mask, inputs.segment_ids)
        if config.objective == "electric":
            discriminator_logits += self._noise_log_odds(cloze, corrupted_ids)
        discriminator_losses = tf.nn.sigmoid_cross_entropy_with_logits(
            tf.cast(labels, tf.float32), discriminator_logits)
        return Outputs(logits, mlm_losses, mlm_weights, sampled_ids, corrupted_ids, labels,
                       discriminator_logits, discriminator_losses, discriminator_weights)

    def _sampled_ids(self, logits: tf.Tensor, softmax: Softmax | None, original_ids: tf.Tensor,
                     draws: tf.Tensor) -> tf.Tensor:
        """int32 [B, K]; with `softmax` of the loss where replacements have the same distribution."""
        config = self.config
        with tf.name_scope("sampling"):
            if softmax and config.temperature == 1 and not config.disallow_correct:
                return sample(softmax, draws)
            return sample_from_softmax(logits / config.temperature, draws,
                                       original_ids if config.disallow_correct else None)

    def _noise_log_odds(self, cloze: tf.Tensor, corrupted_ids: tf.Tensor) -> tf.Tensor:
        """[B, L]: log q(token) + log(p / (1 - p)), which turns the energy into the logit of
        noise-contrastive estimation (Clark et al. 2020, "Pre-training transformers as
        energy-based cloze models")."""
        log_q = -_cross_entropy(cloze, corrupted_ids)
        p = self.config.mask_prob
        return tf.stop_gradient(log_q) + tf.math.log(p / (1 - p))


def _cross_entropy(logits: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    return cross_entropy(logits, ids, softmax_of(logits).log_partition)


def loss_denominators(inputs: Inputs, masked: MaskedInputs, config: ModelConfig,
                      vocab: VocabularyFacts) -> tf.Tensor:
    """float32 [2]: sums of the weights of both losses, known before the forward pass."""
    mlm = masked.weights
    if config.generator_kind == "two_tower":
        mlm = tf.cast(candidate_positions(inputs, vocab), tf.float32)
    return tf.stack([tf.reduce_sum(mlm), tf.reduce_sum(tf.cast(inputs.input_mask, tf.float32))])


def total_loss(outputs: Outputs, denominators: tf.Tensor, config: ModelConfig) -> tf.Tensor:
    """generator_weight * MLM + discriminator_weight * discriminator; each a weighted sum over its
    denominator + 1e-6, as the original.

    The denominators count all replicas and micro-batches. So the sum of all losses (and of all
    gradients) is that of one large batch. The original divides by each replica's own count and
    averages, which gives tokens of sparse replicas more weight.
    """
    mlm = tf.reduce_sum(outputs.mlm_losses * outputs.mlm_weights)
    loss = config.generator_weight * mlm / (denominators[0] + 1e-6)
    if outputs.discriminator_losses is None:
        return loss
    discriminator = tf.reduce_sum(outputs.discriminator_losses * outputs.discriminator_weights)
    return loss + config.discriminator_weight * discriminator / (denominators[1] + 1e-6)


def build_pretrainer(config: ModelConfig, vocab: VocabularyFacts,
                     precision: Precision = "float32") -> ElectraPretrainer:
    """A model with all its variables; build it under the strategy's scope.

    Args:
      config: its shape and objective.
      vocab: facts about the vocabulary of its records.
      precision: the type in which its towers compute; variables are always float32.
    """
    with computing_in(precision):
        model = ElectraPretrainer(config, vocab)
        ids = tf.zeros([1, 2], tf.int32)
        inputs = Inputs(ids, tf.ones_like(ids), ids, tf.zeros([1], tf.int64))
        masked = MaskedInputs(ids, ids[:, :1], ids[:, :1], tf.zeros([1, 1]))
        model(inputs, masked, tf.zeros([1, 1]))
    return model


@contextlib.contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Sets the compute type of the layers that are made inside the `with`. Keras takes it from a global
    policy. Without a reset, models made later in the process, for an export say, would get it too."""
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(
        "mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(before)


def count_parameters(layers: list[tf_keras.layers.Layer]) -> int:
    """Number of distinct trainable numbers in `layers`."""
    variables = {v.ref(): v for layer in layers for v in layer.trainable_variables}
    return sum(int(v.shape.num_elements()) for v in variables.values())


def discriminator_parameters(model: ElectraPretrainer) -> int:
    """Parameters of the published model: embeddings, tower, head."""
    heads = [model.discriminator_head] if model.discriminator_head is not None else []
    return count_parameters([model.embeddings, model.discriminator, *heads])
