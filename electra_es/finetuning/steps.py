"""The compiled step of fine-tuning and the forward pass.

Losses, sums over replicas, clipping and what happens to a non-finite step are pretraining's
(`training/steps.py`). Shapes: B batch, L length.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from electra_es.config import PretrainingConfig
from electra_es.finetuning.batches import Batch, bucket_of, fused_length, padded_to
from electra_es.finetuning.heads import losses, probabilities
from electra_es.finetuning.model import FinetuningModel
from electra_es.model.dropout import dropout_seed
from electra_es.model.parts import Part, joined_parts, sum_of_parts
from electra_es.model.randomness import Key, stateless_seed
from electra_es.training.compilation import Compilation
from electra_es.training.optimization import Adam
from electra_es.training.steps import (
    MicroBatch,
    Sums,
    apply_gradients,
    no_garbage_collection,
    number_of_step,
    run_step,
)


class FinetuningStep:
    """One optimiser step, as a function of one replica's batch."""

    def __init__(self, model: FinetuningModel, optimizer: Adam, variables: list[tf.Variable],
                 config: PretrainingConfig, compilation: Compilation):
        self.model, self.optimizer, self.variables = model, optimizer, variables
        self.config, self.compilation = config, compilation
        self._gradients = compilation.function(self._local_gradients)

    def __call__(self, batch: Batch, dropout_key: Key) -> Sums:
        """Trains on `batch`; call it inside `strategy.run`.

        Returns:
          sums of this replica: `loss` and `weight`; `bad`, `gradient_norm` (the same everywhere).
        """
        total = tf.distribute.get_replica_context().all_reduce(
            tf.distribute.ReduceOp.SUM, tf.reduce_sum(batch.weights))
        seed = stateless_seed(dropout_key, number_of_step(self.optimizer))
        loss, gradients, sums = self._gradients(batch, total, seed)
        return apply_gradients(self.optimizer, loss, gradients, sums, self.config.clip_norm)

    def _local_gradients(self, batch: Batch, total: tf.Tensor, seed: tf.Tensor
                         ) -> MicroBatch:
        return sum_of_parts(lambda batch, part: self._part(batch, total, seed, part), batch)

    def _part(self, batch: Batch, total: tf.Tensor, seed: tf.Tensor, part: Part | None) -> MicroBatch:
        with dropout_seed(seed, part), self.compilation.applied():
            with tf.GradientTape() as tape:
                logits = self.model(batch.input_ids, batch.input_mask, batch.segment_ids, seed,
                                    training=True)
                loss_sum = tf.reduce_sum(losses(self.model.kind, logits, batch) * batch.weights)
                loss = loss_sum / tf.maximum(total, 1.0)
            gradients = tape.gradient(loss, self.variables)
        return (loss, [tf.convert_to_tensor(g) for g in gradients],
                {"loss": loss_sum, "weight": tf.reduce_sum(batch.weights)})


def make_train_step(step: FinetuningStep, strategy: tf.distribute.Strategy, longest: int, *,
                    few_lengths: bool) -> Callable[[Batch, Key], Sums]:
    """Returns `train(batch, dropout_key) -> sums` over all replicas, for a NumPy batch.

    Args:
      longest: the greatest length of a batch.
      few_lengths: whether batches are padded to one of a few lengths, each with a program of its own,
        because the step is compiled for one length only.
    """
    program = Program(lambda batch, key: run_step(step, strategy, batch, key), strategy, longest,
                      few_lengths)

    def train(batch: Batch, dropout_key: Key) -> Sums:
        if step.compilation.fused:
            batch = padded_to(batch, fused_length(batch.input_ids.shape[1], longest))
        return program(batch, Key(*(tf.constant(part, tf.uint32) for part in dropout_key)))

    return train


def make_forward(model: FinetuningModel, strategy: tf.distribute.Strategy, longest: int
                 ) -> Callable[[Batch], np.ndarray]:
    """Returns `forward(batch) -> float32 [B, ...]` for a NumPy batch: probabilities of labels; for
    the kinds without labels the logits. For each row they are at least as long as the row."""
    forward_in_parts = joined_parts(lambda *inputs: probabilities(model.kind, model(*inputs)))

    def replica_forward(batch: Batch) -> tf.Tensor:
        return forward_in_parts(*batch[:3])

    program = Program(lambda batch: strategy.run(replica_forward, args=(batch,)), strategy, longest,
                      few_lengths=False)

    def forward(batch: Batch) -> np.ndarray:
        found = strategy.experimental_local_results(program(batch))
        return np.concatenate([part.numpy() for part in found])

    return forward


class Program:
    """A function of a batch, compiled: once for batches of any length where the device can do that, else
    once for each of a few lengths (on a TPU, with XLA, and with several replicas)."""

    def __init__(self, function: Callable, strategy: tf.distribute.Strategy, longest: int,
                 few_lengths: bool):
        self.function, self.strategy, self.longest = function, strategy, longest
        self.few_lengths = (few_lengths or strategy.num_replicas_in_sync > 1
                            or isinstance(strategy, tf.distribute.TPUStrategy))
        self._compiled: dict[int | None, Callable] = {}

    def __call__(self, batch: Batch, *others: object) -> Any:
        """Applies the function to a NumPy batch, in parts for the replicas, and to `others`."""
        if self.few_lengths:
            batch = padded_to(batch, bucket_of(batch.input_ids.shape[1], self.longest))
        parts = spread(self.strategy, batch)
        length = batch.input_ids.shape[1] if self.few_lengths else None
        if length not in self._compiled:
            example = parts if self.few_lengths else Batch(*map(_of_any_length, parts))
            # One tf.function for all lengths would warn of how often it is traced.
            with no_garbage_collection():
                self._compiled[length] = tf.function(
                    self.function, autograph=False).get_concrete_function(example, *others)
        return self._compiled[length](parts, *others)


def _of_any_length(tensor: tf.Tensor) -> tf.TensorSpec:
    """The shape [B] or [B, None]."""
    return tf.TensorSpec([tensor.shape[0], *(None for _ in tensor.shape[1:])], tensor.dtype)


def spread(strategy: tf.distribute.Strategy, batch: Batch) -> Batch:
    """The batch as tensors, an equal part of its rows on each replica."""
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return Batch(*map(tf.constant, batch))
    rows = len(batch.input_ids) // replicas

    def part_of(array: np.ndarray) -> tf.Tensor:
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(array[context.replica_id_in_sync_group * rows:][:rows]))

    return Batch(*map(part_of, batch))
