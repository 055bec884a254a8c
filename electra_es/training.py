"""Pretraining from beginning to end, in the order in which it happens."""

import contextlib
import signal
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from electra_es.checkpoints import Checkpoints
from electra_es.config import ModelConfig, PretrainingConfig
from electra_es.devices import TpuAddress, compiles_with_xla, set_up_devices
from electra_es.errors import CheckFailed, UsageError
from electra_es.inputs import (
    check_records,
    shard_fault,
    training_dataset,
    usable_shards,
    validation_dataset,
)
from electra_es.metrics import summarise
from electra_es.monitoring import ProgressLog, parameter_line
from electra_es.optimization import Adam, learning_rate, schedule_for
from electra_es.pretrainer import (
    ElectraPretrainer,
    build_pretrainer,
    count_parameters,
    discriminator_parameters,
)
from electra_es.records import load_records_info
from electra_es.run_dir import only_run_in, prepare_model_dir, vocabulary_facts
from electra_es.steps import TrainStep, make_eval_step, make_train_loop
from electra_es.text import load_tokenizer


class TrainResult(NamedTuple):
    step: int
    evaluation: dict[str, float]
    stopped_by_signal: bool


def train(model_config: ModelConfig, config: PretrainingConfig, *, data_dir: str, vocab_dir: str,
          model_dir: str, tpu: TpuAddress = TpuAddress(),
          evaluate_at_end: bool = True) -> TrainResult:
    """Pretrains in `model_dir`, from its latest checkpoint if it has one.

    Args:
      model_config: the model and its objective.
      config: everything else that is resolved.
      data_dir: records directory.
      vocab_dir: vocabulary directory that the records were built with.
      model_dir: the run's directory.
      tpu: TPU to use, if any.
      evaluate_at_end: whether to evaluate after the last step.

    Returns:
      the last step, the last evaluation (empty without validation examples), and whether a
      signal ended the run early, after saving.

    Raises:
      UsageError: wrong use or bad input; nothing already written is lost.
      CheckFailed: max_bad_steps non-finite steps in a row.
    """
    # Devices, vocabulary, records: everything that can be wrong is looked at before step 1.
    strategy = set_up_devices(config, tpu)
    tokenizer = load_tokenizer(vocab_dir)
    info = load_records_info(data_dir)
    check_records(info, config, tokenizer.config.vocab_sha256, data_dir)
    if config.max_seq_length > model_config.max_position_embeddings:
        raise UsageError(
            f"max_seq_length={config.max_seq_length}: expected at most "
            f"max_position_embeddings={model_config.max_position_embeddings}")
    shards = usable_shards(data_dir, info, config.skip_corrupt_shards)
    is_chief = _is_chief(strategy)

    with only_run_in(model_dir) if is_chief else contextlib.nullcontext():
        if is_chief:
            prepare_model_dir(model_dir, tokenizer, vocab_dir, model_config, config)

        # Model and optimiser, then the state of the latest checkpoint over both.
        with strategy.scope():
            model = build_pretrainer(model_config, vocabulary_facts(tokenizer))
            optimizer = Adam(model.trainable_variables, schedule_for(config), config)
        checkpoints = Checkpoints(
            model_dir, tf.train.Checkpoint(model=model, optimizer=optimizer),
            keep=config.keep_checkpoints, keep_every=config.keep_every, is_chief=is_chief)
        step, examples_seen = checkpoints.restore_latest()

        log = ProgressLog(model_dir, config.num_train_steps, config.train_batch_size,
                          config.max_seq_length, is_chief)
        log.say(parameter_line("discriminator", discriminator_parameters(model)))
        log.say(parameter_line("both towers", count_parameters([model])))
        log.say(f"{strategy.num_replicas_in_sync} replica(s); {info.num_examples('train'):,} "
                f"training examples; step {step} of {config.num_train_steps}")

        # Data from the position of the checkpoint on.
        def host_batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
            return training_dataset(
                shards, info, config, first_example=examples_seen,
                batch_size=context.get_per_replica_batch_size(config.train_batch_size),
                host=context.input_pipeline_id, num_hosts=context.num_input_pipelines)

        batches = iter(strategy.distribute_datasets_from_function(host_batches))
        train_step = TrainStep(model, optimizer, model_config, config,
                               jit_compile=compiles_with_xla(config, strategy))
        loop = make_train_loop(train_step, strategy)
        evaluate = _make_evaluation(model, model_config, config, strategy, data_dir, info)

        stop = _StopSignal()
        evaluation: dict[str, float] = {}
        bad_in_row = tf.constant(0.0)
        pending: dict[str, np.ndarray] = {}  # sums since the last progress line
        log.start(step)
        while step < config.last_step and not stop.requested:
            stretch = _stretch(step, config)
            try:
                sums = loop(batches, tf.constant(stretch), bad_in_row)
                sums = {name: value.numpy() for name, value in sums.items()}
            except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
                checkpoints.save(step, examples_seen)
                raise _name_bad_shard(shards, error) from None
            step += stretch
            examples_seen += stretch * config.train_batch_size
            bad_in_row = tf.constant(sums["bad_in_row"])
            if sums["bad"]:
                log.say(f"warning: {int(sums['bad'])} step(s) with a non-finite loss or gradient "
                        f"were not applied, the last one was step {int(sums['last_bad_step'])}")
            if sums["bad_in_row"] >= config.max_bad_steps:
                raise CheckFailed(
                    f"{int(sums['bad_in_row'])} steps in a row, up to step {step}, had a non-finite "
                    f"loss or gradient; {model_dir} keeps its last good checkpoint")
            pending = {name: pending.get(name, 0.0) + sums[name] for name in sums}
            if _is_due(step, config.log_every, config):
                log.train(step, {
                    **summarise(pending, model_config.generator_weight,
                                model_config.discriminator_weight),
                    "learning_rate": float(learning_rate(tf.constant(step), config)),
                    "gradient_norm": float(sums["gradient_norm"]),
                    "bad_steps": float(pending["bad"])})
                pending = {}
            if _is_due(step, config.save_every, config) or stop.requested:
                checkpoints.save(step, examples_seen)
            if config.eval_every and step % config.eval_every == 0 and step < config.last_step:
                evaluation = evaluate()
                log.evaluation(step, evaluation)
        stop.restore_handlers()

        if stop.requested and step < config.last_step:
            checkpoints.save(step, examples_seen)
            log.say(f"stopped by a signal at step {step}; saved. The same command goes on from here")
            return TrainResult(step, evaluation, stopped_by_signal=True)
        if evaluate_at_end and info.num_examples("validation"):
            evaluation = evaluate()
            log.evaluation(step, evaluation)
        return TrainResult(step, evaluation, stopped_by_signal=False)


def evaluate_run(model_config: ModelConfig, config: PretrainingConfig, *, data_dir: str,
                 vocab_dir: str, model_dir: str, tpu: TpuAddress = TpuAddress()) -> dict[str, float]:
    """Evaluates the latest checkpoint of `model_dir` on the validation records.

    Raises:
      UsageError: no checkpoint, or no validation records.
    """
    strategy = set_up_devices(config, tpu)
    tokenizer = load_tokenizer(vocab_dir)
    info = load_records_info(data_dir)
    check_records(info, config, tokenizer.config.vocab_sha256, data_dir)
    if not info.num_examples("validation"):
        raise UsageError(f"{data_dir}: no validation examples: expected at least one")
    with strategy.scope():
        model = build_pretrainer(model_config, vocabulary_facts(tokenizer))
    checkpoints = Checkpoints(model_dir, tf.train.Checkpoint(model=model), keep=1, keep_every=0)
    step = checkpoints.restore_weights()
    evaluation = _make_evaluation(model, model_config, config, strategy, data_dir, info)()
    ProgressLog(model_dir, config.num_train_steps, config.train_batch_size,
                config.max_seq_length, _is_chief(strategy)).evaluation(step, evaluation)
    return evaluation


def _make_evaluation(model: ElectraPretrainer, model_config: ModelConfig,
                     config: PretrainingConfig, strategy: tf.distribute.Strategy,
                     data_dir: str, info):
    """Returns a function that evaluates the model as it is on the validation records."""
    step = make_eval_step(model, model_config, config.seed, strategy)

    def host_batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return validation_dataset(
            data_dir, info, config,
            batch_size=context.get_per_replica_batch_size(config.eval_batch_size),
            global_batch_size=config.eval_batch_size, host=context.input_pipeline_id,
            num_hosts=context.num_input_pipelines)

    def evaluate() -> dict[str, float]:
        total = info.num_examples("validation")
        batches = -(-min(total, config.eval_examples or total) // config.eval_batch_size)
        iterator = iter(strategy.distribute_datasets_from_function(host_batches))
        sums: dict[str, np.ndarray] = {}
        for _ in range(batches):
            new = {name: value.numpy().astype("float64")
                   for name, value in step(next(iterator)).items()}
            sums = {name: sums.get(name, 0.0) + value for name, value in new.items()}
        return summarise(sums, model_config.generator_weight, model_config.discriminator_weight)

    return evaluate


def _stretch(step: int, config: PretrainingConfig) -> int:
    """How many steps to run before the host has something to do."""
    ends = [config.last_step, step + config.steps_per_loop]
    for every in (config.log_every, config.save_every, config.eval_every):
        if every:
            ends.append((step // every + 1) * every)
    return min(ends) - step


def _is_due(step: int, every: int, config: PretrainingConfig) -> bool:
    return step % every == 0 or step == config.last_step


def _is_chief(strategy: tf.distribute.Strategy) -> bool:
    return _worker(strategy) == 0


def _worker(strategy: tf.distribute.Strategy) -> int:
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type != "worker":
        return 0
    return resolver.task_id or 0


def _name_bad_shard(shards: list[tuple[str, int]], error: Exception) -> UsageError:
    """Finds the shard behind a read error; TensorFlow's own message does not name it."""
    for path, count in shards:
        if fault := shard_fault(path, count):
            return UsageError(f"{fault}; --skip_corrupt_shards leaves it out")
    return UsageError(f"the records cannot be read: {str(error).splitlines()[0]}")


class _StopSignal:
    """Takes SIGTERM and SIGINT as a wish to save and leave after the stretch at hand."""

    def __init__(self) -> None:
        self.requested = False
        self._before = {number: signal.signal(number, self._request)
                        for number in (signal.SIGTERM, signal.SIGINT)}

    def _request(self, number: int, frame: object) -> None:
        self.requested = True

    def restore_handlers(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
