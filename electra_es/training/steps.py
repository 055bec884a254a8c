"""The compiled steps: training (a loop of them on the device) and evaluation.

How losses are scaled: they are sums divided by weights that are counted over the whole step, that is
over all replicas and micro-batches. So gradients are *summed* over micro-batches and replicas. The
result is the gradient of one batch of the same examples on one device. Gradients are clipped after
the sum. (The original clips on each replica and averages.)

Shapes: B batch of a replica, A micro-batches, L length.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from electra_es.config import ModelConfig, PretrainingConfig
from electra_es.model.batches import Inputs, MaskedInputs
from electra_es.model.dropout import dropout_seed
from electra_es.model.masking import mask_tokens
from electra_es.model.parts import Part, sum_of_parts
from electra_es.model.pretrainer import ElectraPretrainer, Outputs, loss_denominators, total_loss
from electra_es.model.randomness import Key, derive_key, fold_in, stateless_seed, uniform
from electra_es.training.compilation import Compilation, compilation_for
from electra_es.training.floor import id_histograms
from electra_es.training.metrics import auc_histograms, metric_names, metric_sums
from electra_es.training.optimization import Adam, clip_by_global_norm

Sums = dict[str, tf.Tensor]
MicroBatch = tuple[tf.Tensor, list[tf.Tensor], Sums]  # loss, gradients, metric sums
EvaluationForward = Callable[[Inputs], tuple[MaskedInputs, Outputs]]


class Keys(NamedTuple):
    """The keys for the random draws of a step."""

    masking: Key
    sampling: Key
    dropout: Key


def training_keys(seed: int) -> Keys:
    return Keys(derive_key(seed, "masking"), derive_key(seed, "sampling"),
                derive_key(seed, "dropout"))


def evaluation_keys(seed: int) -> Keys:
    """Keys that differ from those of training; each evaluation has the same masks and samples."""
    return Keys(derive_key(seed, "evaluation masking"), derive_key(seed, "evaluation sampling"),
                derive_key(seed, "dropout"))


class TrainStep:
    """One optimiser step, as a function of one replica's batch."""

    def __init__(self, model: ElectraPretrainer, optimizer: Adam, model_config: ModelConfig,
                 config: PretrainingConfig, compilation: Compilation | None = None):
        """
        Args:
          compilation: None: as a run with this configuration and the strategy of the scope.
        """
        self.model, self.optimizer = model, optimizer
        self.model_config, self.config = model_config, config
        self.compilation = compilation or compilation_for(config, tf.distribute.get_strategy())
        self.keys = training_keys(config.seed)
        self.variables = model.trainable_variables
        self._gradients = self.compilation.function(self._local_gradients)

    def __call__(self, inputs: Inputs) -> Sums:
        """Trains on `inputs` [B, L]; call it inside `strategy.run`.

        Returns:
          metric sums of this replica, and `bad`, `gradient_norm` (the same on every replica).
        """
        replica = tf.distribute.get_replica_context()
        with tf.name_scope("masks"):
            masked = mask_tokens(inputs, self.model_config, self.model.vocab, self.keys.masking)
        denominators = replica.all_reduce(tf.distribute.ReduceOp.SUM, loss_denominators(
            inputs, masked, self.model_config, self.model.vocab))
        seed = stateless_seed(self.keys.dropout, number_of_step(self.optimizer))
        loss, gradients, sums = self._gradients(inputs, masked, denominators, seed)
        return apply_gradients(self.optimizer, loss, gradients, sums, self.config.clip_norm)

    def _local_gradients(self, inputs: Inputs, masked: MaskedInputs, denominators: tf.Tensor,
                         seed: tf.Tensor) -> MicroBatch:
        """Loss, gradients and metric sums of this replica, over its micro-batches."""
        parts = self.config.accumulation_steps
        if parts == 1:
            return self._micro_batch(inputs, masked, denominators, seed)
        split = [tf.reshape(x, [parts, -1, *x.shape[1:]]) for x in (*inputs, *masked)]

        def add_part(part: tf.Tensor, total: MicroBatch) -> tuple[tf.Tensor, MicroBatch]:
            micro = [x[part] for x in split]
            result = self._micro_batch(
                Inputs(*micro[:4]), MaskedInputs(*micro[4:]), denominators,
                tf.random.experimental.stateless_fold_in(seed, part))
            return part + 1, tf.nest.map_structure(tf.add, total, result)

        zeros = (tf.constant(0.0), [tf.zeros(v.shape) for v in self.variables],
                 {name: tf.constant(0.0) for name in metric_names(self.model_config)})
        # One after the other: TensorFlow would run all of them at once, with the memory of all.
        return tf.while_loop(lambda part, total: part < parts, add_part, (0, zeros),
                             parallel_iterations=1)[1]

    def _micro_batch(self, inputs: Inputs, masked: MaskedInputs, denominators: tf.Tensor,
                     seed: tf.Tensor) -> MicroBatch:
        return sum_of_parts(lambda batch, part: self._part(batch[0], batch[1], denominators, seed, part),
                            (inputs, masked))

    def _part(self, inputs: Inputs, masked: MaskedInputs, denominators: tf.Tensor, seed: tf.Tensor,
              part: Part | None) -> MicroBatch:
        draws = sampling_draws(self.keys, inputs, masked, self.model_config)
        with dropout_seed(seed, part), self.compilation.applied():
            with tf.GradientTape() as tape:
                outputs = self.model(inputs, masked, draws, training=True)
                loss = total_loss(outputs, denominators, self.model_config)
            gradients = tape.gradient(
                loss, self.variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return (loss, [tf.convert_to_tensor(g) for g in gradients],
                metric_sums(outputs, masked, self.model_config))


def number_of_step(optimizer: Adam) -> tf.Tensor:
    """int64: another number for each step and replica; call it inside `strategy.run`."""
    replica = tf.distribute.get_replica_context()
    return optimizer.iterations * replica.num_replicas_in_sync + tf.cast(
        replica.replica_id_in_sync_group, tf.int64)


def apply_gradients(optimizer: Adam, loss: tf.Tensor, gradients: list[tf.Tensor], sums: Sums,
                    clip_norm: float) -> Sums:
    """The second half of a step: sum over replicas, clip, update; call it inside `strategy.run`.

    Args:
      loss, gradients, sums: of this replica.

    Returns:
      the sums, and `bad`, `gradient_norm` (the same on every replica).
    """
    replica = tf.distribute.get_replica_context()
    gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    loss = replica.all_reduce(tf.distribute.ReduceOp.SUM, loss)
    with tf.name_scope("optimizer"):
        scale, norm = clip_by_global_norm(gradients, clip_norm)
        is_finite = tf.math.is_finite(norm) & tf.math.is_finite(loss)
        optimizer.apply(gradients, is_finite, scale)
    # A step that is not applied does not count in the metrics either.
    sums = {name: tf.where(is_finite, value, 0.0) for name, value in sums.items()}
    sums["bad"] = tf.cast(~is_finite, tf.float32)
    sums["gradient_norm"] = norm
    return sums


def sampling_draws(keys: Keys, inputs: Inputs, masked: MaskedInputs, config: ModelConfig
                   ) -> tf.Tensor | None:
    """float32 [B, K]: one number per selected position, derived from the example's index; None
    if there is no discriminator that needs samples."""
    if config.objective == "mlm":
        return None
    return uniform(fold_in(keys.sampling, inputs.example_index), masked.positions.shape[1])


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """For tracing, which makes hundreds of thousands of objects that stay: looking for garbage among them
    again and again was a fifth of its time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def no_sums(config: ModelConfig) -> Sums:
    """What the loop begins to add to."""
    return {name: tf.constant(0.0) for name in (*metric_names(config), "bad", "gradient_norm")}


def make_train_loop(step: TrainStep, strategy: tf.distribute.Strategy) -> Callable[..., Sums]:
    """Returns a compiled `loop(iterator, num_steps, bad_in_row, before=None) -> sums`.

    The steps run in one `tf.while` on the device; the host waits once, for the sums. These are
    metric sums over all replicas and steps, `bad` (the number of steps that were not applied),
    `bad_in_loop`, `bad_in_row`, `last_bad_step` and `gradient_norm` (of the last step). The loop adds
    them to `before`, the sums of earlier loops with the names of `no_sums`. So they are the same bits
    whether the steps are run in one loop or in many.
    """
    # AutoGraph would rewrite all Python code of the model, which takes longer than tracing it.
    @tf.function(autograph=False)
    def loop(iterator: tf.data.Iterator, num_steps: tf.Tensor, bad_in_row: tf.Tensor,
             before: Sums | None = None) -> Sums:
        def add_step(number: tf.Tensor, sums: Sums, bad_in_row: tf.Tensor, last_bad: tf.Tensor
                     ) -> tuple[tf.Tensor, Sums, tf.Tensor, tf.Tensor]:
            new = run_step(step, strategy, iterator.get_next())
            sums = {name: sums[name] + new[name] for name in sums}
            sums["gradient_norm"] = new["gradient_norm"]
            return (number + 1, sums, (bad_in_row + 1.0) * new["bad"],
                    tf.where(new["bad"] > 0, step.optimizer.iterations, last_bad))

        first = before or no_sums(step.model_config)
        with no_garbage_collection():
            _, sums, bad_in_row, last_bad = tf.while_loop(
                lambda number, *_: number < num_steps, add_step,
                (0, first, bad_in_row, tf.constant(0, tf.int64)))
        return {**sums, "bad_in_loop": sums["bad"] - first["bad"], "bad_in_row": bad_in_row,
                "last_bad_step": last_bad}

    return loop


def run_step(step: Callable[..., Sums], strategy: tf.distribute.Strategy, *inputs: Any) -> Sums:
    """One step on every replica; returns sums over all of them."""
    per_replica = strategy.run(step, args=inputs)
    same_everywhere = {
        name: strategy.reduce(tf.distribute.ReduceOp.MEAN, per_replica.pop(name), axis=None)
        for name in ("bad", "gradient_norm")}
    return {**reduce_sums(strategy, per_replica), **same_everywhere}


def reduce_sums(strategy: tf.distribute.Strategy, per_replica: Sums) -> Sums:
    return {name: strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
            for name, value in per_replica.items()}


def make_eval_step(model: ElectraPretrainer, model_config: ModelConfig, seed: int,
                   strategy: tf.distribute.Strategy) -> Callable[[Inputs], Sums]:
    """Returns a compiled `step(inputs) -> sums`, with histograms for the AUC and for the floor."""
    forward = evaluation_forward(model, model_config, seed)

    def sums_of(inputs: Inputs, part: Part | None) -> Sums:
        masked, outputs = forward(inputs)
        return {**metric_sums(outputs, masked, model_config), **auc_histograms(outputs),
                **id_histograms(outputs, inputs, masked, model_config, model.vocab)}

    @tf.function(autograph=False)
    def step(inputs: Inputs) -> Sums:
        with no_garbage_collection():
            return reduce_sums(strategy, strategy.run(
                lambda inputs: sum_of_parts(sums_of, inputs), args=(inputs,)))

    return step


def make_show_step(model: ElectraPretrainer, model_config: ModelConfig, seed: int,
                   strategy: tf.distribute.Strategy) -> Callable[[Inputs], list[tf.Tensor]]:
    """Returns a compiled `step(inputs) -> (corrupted ids int32, probability of being replaced
    float32)`, both [B, L]. Every replica computes the same, so this works with variables on any
    device."""
    forward = evaluation_forward(model, model_config, seed)

    def replica_step(inputs: Inputs) -> tuple[tf.Tensor, tf.Tensor]:
        _, outputs = forward(inputs)
        return outputs.corrupted_ids, tf.sigmoid(outputs.discriminator_logits)

    @tf.function(autograph=False)
    def step(inputs: Inputs) -> list[tf.Tensor]:
        return [strategy.experimental_local_results(part)[0]
                for part in strategy.run(replica_step, args=(inputs,))]

    return step


def evaluation_forward(model: ElectraPretrainer, model_config: ModelConfig, seed: int
                       ) -> EvaluationForward:
    """Returns `forward(inputs) -> (masked, outputs)` with the masks and samples of evaluations."""
    keys = evaluation_keys(seed)

    def forward(inputs: Inputs) -> tuple[MaskedInputs, Outputs]:
        masked = mask_tokens(inputs, model_config, model.vocab, keys.masking)
        return masked, model(inputs, masked, sampling_draws(keys, inputs, masked, model_config))

    return forward
