"""The compiled step of fine-tuning and the forward pass: one program for each length of a batch.

Losses, sums over replicas, clipping and what happens to a non-finite step are pretraining's
(`training/steps.py`). Shapes: B batch, L length.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from electra_es.config import PretrainingConfig
from electra_es.finetuning.batches import Batch
from electra_es.finetuning.heads import losses, probabilities
from electra_es.finetuning.model import FinetuningModel
from electra_es.model.dropout import dropout_seed
from electra_es.model.randomness import Key, stateless_seed
from electra_es.training.optimization import Adam
from electra_es.training.steps import (
    Sums,
    apply_gradients,
    no_garbage_collection,
    number_of_step,
    run_step,
)


class FinetuningStep:
    """One optimiser step, as a function of one replica's batch."""

    def __init__(self, model: FinetuningModel, optimizer: Adam, variables: list[tf.Variable],
                 config: PretrainingConfig, jit_compile: bool):
        self.model, self.optimizer, self.variables = model, optimizer, variables
        self.config = config
        self._gradients = tf.function(
            self._local_gradients, jit_compile=True if jit_compile else None, autograph=False)

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
                         ) -> tuple[tf.Tensor, list[tf.Tensor], Sums]:
        with tf.GradientTape() as tape, dropout_seed(seed):
            logits = self.model(batch.input_ids, batch.input_mask, batch.segment_ids, seed,
                                training=True)
            loss_sum = tf.reduce_sum(losses(self.model.kind, logits, batch) * batch.weights)
            loss = loss_sum / tf.maximum(total, 1.0)
        gradients = tape.gradient(loss, self.variables)
        return (loss, [tf.convert_to_tensor(g) for g in gradients],
                {"loss": loss_sum, "weight": tf.reduce_sum(batch.weights)})


def make_train_step(step: FinetuningStep, strategy: tf.distribute.Strategy
                    ) -> Callable[[Batch, Key], Sums]:
    """Returns `train(batch, dropout_key) -> sums` over all replicas, for a NumPy batch."""
    programs: dict[int, Callable] = {}

    def train(batch: Batch, dropout_key: Key) -> Sums:
        length = batch.input_ids.shape[1]
        parts = spread(strategy, batch)
        key = Key(*(tf.constant(part, tf.uint32) for part in dropout_key))
        if length not in programs:
            programs[length] = _program(
                lambda parts, key: run_step(step, strategy, parts, key), parts, key)
        return programs[length](parts, key)

    return train


def make_forward(model: FinetuningModel, strategy: tf.distribute.Strategy
                 ) -> Callable[[Batch], np.ndarray]:
    """Returns `forward(batch) -> float32 [B, ...]` for a NumPy batch: probabilities of labels; for
    the kinds without labels the logits."""
    programs: dict[int, Callable] = {}

    def replica_forward(batch: Batch) -> tf.Tensor:
        return probabilities(model.kind, model(*batch[:3]))

    def forward(batch: Batch) -> np.ndarray:
        length = batch.input_ids.shape[1]
        parts = spread(strategy, batch)
        if length not in programs:
            programs[length] = _program(
                lambda parts: strategy.run(replica_forward, args=(parts,)), parts)
        found = strategy.experimental_local_results(programs[length](parts))
        return np.concatenate([part.numpy() for part in found])

    return forward


def _program(function: Callable, *example: object) -> Callable:
    """The compiled form of `function` for arguments of these shapes. Each length has its own: one
    tf.function for all would warn of how often it is traced."""
    with no_garbage_collection():
        return tf.function(function, autograph=False).get_concrete_function(*example)


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
