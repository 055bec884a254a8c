"""What the trials of a run share: the model, its optimiser and the compiled programs.

Built once for one set of settings; `begin` puts it back to the start of a trial. So a program is
compiled once and not for every trial.
"""

import itertools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from electra_es.finetuning.batches import Batch
from electra_es.finetuning.model import FinetuningModel, Pretrained
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.steps import FinetuningStep, make_forward, make_train_step
from electra_es.finetuning.tasks import Task
from electra_es.model.randomness import Key, derive_key
from electra_es.monitoring.progress import Silence
from electra_es.training.compilation import compilation_for
from electra_es.training.interruption import Interrupted, StopSignal
from electra_es.training.optimization import Adam, schedule_for


class TrialKeys:
    """Keys of all that a trial draws, from the run's seed and the trial's number (from 1)."""

    def __init__(self, seed: int, trial: int):
        self._name = f"trial {trial}"
        self._seed = seed

    @property
    def head(self) -> tuple[int, int]:
        """Seed of the head's first weights, for TensorFlow's stateless operations."""
        key = derive_key(self._seed, f"{self._name}/head")
        return int(key.high) & 0x7FFFFFFF, int(key.low) & 0x7FFFFFFF

    @property
    def encoder(self) -> int:
        """Seed of the encoder's first weights, where they are not pretrained."""
        return int(derive_key(self._seed, f"{self._name}/encoder").high) & 0x7FFFFFFF

    @property
    def dropout(self) -> Key:
        return derive_key(self._seed, f"{self._name}/dropout")

    def order(self, epoch: int) -> Key:
        return derive_key(self._seed, f"{self._name}/order of epoch {epoch}")


class Finetuner:
    """Trains and applies one model with one set of settings.

    Attributes:
      pretrained: what each trial starts from.
      model: encoder and head.
      config: the settings.
      engine: the same for pretraining's parts, with the number of steps.
      train: (batch, dropout key) -> sums.
      forward: batch -> NumPy array.
      state: what a checkpoint of a trial holds.
      seconds: how long the trial was trained, part of the state.
    """

    def __init__(self, pretrained: Pretrained, task: Task, config: FinetuningConfig, num_steps: int,
                 strategy: tf.distribute.Strategy):
        self.config, self.engine = config, config.for_training(num_steps)
        self.pretrained = pretrained
        with strategy.scope():
            self.model = FinetuningModel(
                pretrained.model, task.kind, len(task.labels), config.head_dropout)
            rated = self.model.rate_multipliers(config.layer_decay)
            variables = [variable for variable, _ in rated]
            self.optimizer = Adam(variables, schedule_for(self.engine), self.engine,
                                  [multiplier for _, multiplier in rated])
            self.seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="seconds")
        self.state = tf.train.Checkpoint(
            model=self.model, optimizer=self.optimizer, seconds=self.seconds)
        compilation = compilation_for(self.engine, strategy)
        step = FinetuningStep(self.model, self.optimizer, variables, self.engine, compilation)
        self.train = make_train_step(step, strategy, config.max_seq_length,
                                     few_lengths=compilation.whole)
        self.forward = make_forward(self.model, strategy, config.max_seq_length)

    def scoring_forward(self, split: str, stop: StopSignal) -> Callable[[Batch], np.ndarray]:
        """`forward` for the batches of a split. It raises Interrupted after a signal, and says how far
        it is if scoring takes long."""
        silence, done = Silence(), itertools.count()

        def forward(batch: Batch) -> np.ndarray:
            if stop.requested():
                print(f"stopped by a signal while {split} was scored; what was trained is saved. The "
                      "same command goes on", flush=True)
                raise Interrupted
            number = next(done)
            if silence.is_long():
                print(f"scoring {split}: {number:,} batches are done", flush=True)
            return self.forward(batch)

        return forward

    def begin(self, keys: TrialKeys) -> None:
        """Puts the pretrained weights (from scratch: the trial's own), a new head and a fresh
        optimiser in place."""
        for variable, value in zip(self.pretrained.model.variables,
                                   self.pretrained.first_weights(keys.encoder), strict=True):
            variable.assign(value)
        self.model.head.draw(keys.head)
        optimizer = self.optimizer
        for variable in (optimizer.iterations, *optimizer.first_moments, *optimizer.second_moments,
                         self.seconds):
            variable.assign(tf.zeros_like(variable))
