"""Learning-rate schedule and Adam of the recipe (`optimization.py` of google-research/electra)."""

import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from electra_es.config import PretrainingConfig

Schedule = Callable[[tf.Tensor], tf.Tensor]

# As the original, which matches names: LayerNorm parameters and biases do not decay.
_NOT_DECAYED = re.compile(r"LayerNorm|layer_norm|bias")


def learning_rate(step: tf.Tensor, config: PretrainingConfig) -> tf.Tensor:
    """The rate at `step`: peak * decay(t / n) * min(1, t / warm-up).

    The warm-up multiplies the decay, so the rate stays a little below the peak. t counts from the last
    of `restart_steps` (from 0 before the first), n is the length of that cycle.

    Args:
      step: any numeric scalar or vector; 0 gives 0 where there is a warm-up.
      config: the schedule.

    Returns:
      float32, of the shape of `step`.
    """
    step = tf.cast(step, tf.float32)
    starts = np.array([0, *config.restart_steps], np.float32)
    lengths = np.diff(np.append(starts, np.float32(config.num_train_steps)))
    cycle = tf.reduce_sum(tf.cast(step[..., tf.newaxis] >= starts[1:], tf.int32), axis=-1)
    length = tf.gather(lengths, cycle)
    t = tf.minimum(step - tf.gather(starts, cycle), length)
    if config.lr_schedule == "linear":
        decay = (1.0 - t / length) ** config.lr_decay_power
    elif config.lr_schedule == "cosine":
        decay = 0.5 * (1.0 + tf.cos(np.float32(np.pi) * t / length))
    else:
        decay = tf.ones_like(t)
    rate = config.learning_rate * decay
    if config.warmup_steps:
        rate *= tf.minimum(1.0, t / np.float32(config.warmup_steps))
    return rate


def layerwise_multipliers(num_layers: int, decay: float) -> list[float]:
    """Factors of the rate at depth 0 (embeddings), 1 .. n (blocks) and n + 2 (task head):
    decay^(n + 2 - depth) (`_get_layer_lrs`)."""
    depths = [*range(num_layers + 1), num_layers + 2]
    return [decay ** (num_layers + 2 - depth) for depth in depths]


class Adam(tf.Module):
    """Adam without bias correction, epsilon outside the root, with decoupled weight decay.

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
    w = w - rate * multiplier * (m / (sqrt(v) + epsilon) + weight_decay * w)

    It is written here because no library has this combination, and because a step with a non-finite
    gradient must not change weights and moments on any device. TensorFlow's own operation, with powers of
    0 in place of its bias correction, does the update in one pass over each variable. Written out in
    single operations it was two thirds of the graph's nodes and a quarter of a step on a CPU.
    """

    def __init__(self, variables: Sequence[tf.Variable], schedule: Schedule,
                 config: PretrainingConfig, multipliers: Sequence[float] | None = None):
        """Creates the moments beside their variables; call it under the strategy's scope.

        Args:
          variables: what is trained.
          schedule: completed steps (after this one) -> rate. In the original, update number t
            (from 0) ran with rate(t + 1); see docs/fidelity.md.
          config: beta1, beta2, epsilon and weight decay.
          multipliers: one factor of the rate per variable (layer-wise rates).
        """
        super().__init__(name="adam")
        self.schedule, self.config = schedule, config
        self.multipliers = list(multipliers or [1.0] * len(variables))
        self._model_variables = tuple(variables)
        self.iterations = tf.Variable(
            0, dtype=tf.int64, trainable=False, name="iterations",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
        self.first_moments = [_zeros_beside(v, "m") for v in variables]
        self.second_moments = [_zeros_beside(v, "v") for v in variables]

    def apply(self, gradients: Sequence[tf.Tensor], is_finite: tf.Tensor,
              scale: tf.Tensor | float = 1.0) -> None:
        """Applies gradients that are already summed over replicas; call it in a replica.

        Args:
          gradients: one per variable, dense.
          is_finite: bool scalar; where false, weights and moments stay, and the step counts.
          scale: factor of the gradients.
        """
        config = self.config
        # The operation subtracts beta from 1 in float32, which is wrong by 1e-5 for 0.999. The moments
        # are too large by these factors; rate and epsilon make up for it.
        excess1, excess2 = ((1 - float(np.float32(beta))) / (1 - beta)
                            for beta in (config.adam_beta1, config.adam_beta2))
        # A scale and a rate of 0 with decays of 1 change nothing.
        scale, rate, beta1, beta2 = (tf.where(is_finite, *values) for values in (
            (scale, 0.0), (self.schedule(self.iterations + 1), 0.0), (config.adam_beta1, 1.0),
            (config.adam_beta2, 1.0)))
        shared = dict(
            scale=scale, beta1=beta1, beta2=beta2, beta1_power=tf.constant(0.0),
            beta2_power=tf.constant(0.0), epsilon=tf.constant(config.adam_epsilon * math.sqrt(excess2)))
        rates = {multiplier: dict(lr=rate * (multiplier * math.sqrt(excess2) / excess1),
                                  kept=1.0 - rate * (multiplier * config.weight_decay))
                 for multiplier in set(self.multipliers)}
        tf.distribute.get_replica_context().merge_call(self._apply, args=(gradients, shared, rates))

    def _apply(self, strategy: tf.distribute.Strategy, gradients: Sequence[tf.Tensor],
               shared: dict[str, tf.Tensor], rates: dict[float, dict[str, tf.Tensor]]) -> None:
        for i, variable in enumerate(self._model_variables):
            strategy.extended.update(
                variable, self._update,
                args=(self.first_moments[i], self.second_moments[i], gradients[i]),
                kwargs={**shared, **rates[self.multipliers[i]]}, group=False)
        self.iterations.assign_add(1)

    def _update(self, variable: tf.Variable, m: tf.Variable, v: tf.Variable, gradient: tf.Tensor,
                scale: tf.Tensor, kept: tf.Tensor, **shared: tf.Tensor) -> None:
        """`kept`: the share of the weight that decay leaves; `shared`: see ResourceApplyAdam."""
        if self.config.weight_decay and not _NOT_DECAYED.search(variable.name):
            variable.assign(variable * kept)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, m=m.handle, v=v.handle, **shared,
            grad=tf.math.multiply_no_nan(gradient, scale))  # in which 0 times NaN is 0


def _zeros_beside(variable: tf.Variable, name: str) -> tf.Variable:
    with tf.distribute.get_strategy().extended.colocate_vars_with(variable):
        return tf.Variable(tf.zeros(variable.shape), trainable=False,
                           name=f"{variable.name.split(':')[0]}/{name}")


def clip_by_global_norm(gradients: Sequence[tf.Tensor], clip_norm: float
                        ) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the factor that clips gradients, 1 / max(1, norm / clip_norm) or with clip_norm=0 always 1,
    and their norm; both float32. The norm is not finite if an entry is not."""
    norm = tf.linalg.global_norm(gradients)
    return 1.0 / tf.maximum(1.0, norm / clip_norm) if clip_norm else tf.constant(1.0), norm


def schedule_for(config: PretrainingConfig) -> Schedule:
    return lambda step: learning_rate(step, config)


def print_schedule(config: PretrainingConfig, rows: int = 40) -> None:
    """Prints step, rate and a bar for about `rows` steps and where the schedule changes."""
    steps = {round(i * config.num_train_steps / rows) for i in range(rows + 1)}
    for start in (0, *config.restart_steps):
        steps |= {start, max(start - 1, 0), min(start + config.warmup_steps, config.num_train_steps)}
    ordered = sorted(steps)
    rates = learning_rate(tf.constant(ordered), config).numpy()
    for step, rate in zip(ordered, rates, strict=True):
        print(f"{step:>9}  {rate:.4e}  {'#' * round(50 * rate / config.learning_rate)}")
