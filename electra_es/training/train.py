"""Pretraining from beginning to end, in the order of execution."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from electra_es.config import ModelConfig, PretrainingConfig
from electra_es.data.inputs import check_records, training_dataset
from electra_es.data.provenance import describe_records
from electra_es.data.records import load_records_info, read_id_counts
from electra_es.data.shards import bad_shard_named, check_validation, usable_shards
from electra_es.errors import CheckFailed, UsageError, warn
from electra_es.files import only_run_in
from electra_es.model.pretrainer import (
    ElectraPretrainer,
    build_pretrainer,
    count_parameters,
    discriminator_parameters,
)
from electra_es.monitoring.health import HealthWatch
from electra_es.monitoring.progress import ProgressLog, parameter_line
from electra_es.run_config import Run
from electra_es.text.audit import audit
from electra_es.text.tokenizer import Tokenizer, load_tokenizer
from electra_es.training.checkpoints import Checkpoints
from electra_es.training.compilation import compilation_for
from electra_es.training.devices import (
    TpuAddress,
    check_reachable,
    devices_line,
    devices_used,
    set_up_devices,
)
from electra_es.training.evaluation import make_evaluation, no_floor_line, report_evaluation
from electra_es.training.examination import make_examination
from electra_es.training.flops import peak_flops, training_flops
from electra_es.training.interruption import StopSignal
from electra_es.training.memory import check_memory
from electra_es.training.metrics import summarise
from electra_es.training.optimization import Adam, learning_rate, schedule_for
from electra_es.training.pace import Pace, is_due
from electra_es.training.run_dir import (
    check_same_records,
    prepare_model_dir,
    store_id_counts,
    vocabulary_facts,
)
from electra_es.training.steps import TrainStep, make_train_loop, no_sums
from electra_es.training.workers import Workers

InitialWeights = Callable[[ElectraPretrainer, Tokenizer], str]


class TrainResult(NamedTuple):
    step: int
    evaluation: dict[str, float]
    stopped_by_signal: bool


def train(model_config: ModelConfig, config: PretrainingConfig, *, data_dir: str, vocab_dir: str,
          model_dir: str, tpu: TpuAddress = TpuAddress(),
          initial_weights: InitialWeights | None = None, evaluate_at_end: bool = True) -> TrainResult:
    """Pretrains in `model_dir`, from its newest checkpoint if there is one.

    Args:
      model_config: the model and its objective.
      config: all other settings.
      data_dir: records directory.
      vocab_dir: vocabulary directory that the records were built with.
      model_dir: the run's directory; all workers have to share it.
      tpu: TPU to use, if any.
      initial_weights: sets the weights of a run without a checkpoint; returns a line to print.
      evaluate_at_end: whether to evaluate after the last step.

    Returns:
      the last step, the last evaluation (empty without validation examples), and whether a
      signal ended the run early, after saving.

    Raises:
      UsageError: wrong use or bad input; nothing already written is lost.
      CheckFailed: max_bad_steps non-finite steps in a row.

    Example, after `make demo`. It prints what the command prints, and goes on where it stopped if
    it is called again:

        >>> from electra_es import train
        >>> from electra_es.config import PretrainingConfig, model_config
        >>> config = PretrainingConfig(max_seq_length=128, train_batch_size=8, num_train_steps=4)
        >>> result = train(model_config({}), config, data_dir="runs/sample/records",
        ...                vocab_dir="runs/sample/vocabulary", model_dir="runs/four_steps")
        devices: ...
        >>> result.step, result.stopped_by_signal
        (4, False)
    """
    # ---- Devices, vocabulary, records: everything that can be wrong is checked before step 1.
    check_reachable(tpu, data_dir=data_dir, model_dir=model_dir)
    strategy = set_up_devices(config, tpu)
    workers = Workers(strategy)
    is_chief = workers.index == 0
    with workers.together():
        tokenizer = load_tokenizer(vocab_dir)
        vocab_size = len(tokenizer.vocab)
        if warning := check_memory(model_config, config, vocab_size, strategy):
            warn(warning)
        info = load_records_info(data_dir)
        check_records(info, config, model_config, tokenizer.config, data_dir)
        shards = usable_shards(data_dir, info, config.skip_corrupt_shards, vocab_size)

    with contextlib.ExitStack() as held, StopSignal(workers) as stop:
        with workers.together():
            held.enter_context(only_run_in(model_dir, is_chief=is_chief))
            if is_chief:
                prepare_model_dir(model_dir, tokenizer, vocab_dir, model_config, config)
                check_same_records(model_dir, data_dir, info)
                store_id_counts(model_dir, data_dir, vocab_size)
            held_out = check_validation(data_dir, info, config.skip_corrupt_shards, vocab_size)
        workers.check_same({
            "vocab_sha256": tokenizer.config.vocab_sha256, "training_examples": info.examples,
            **dataclasses.asdict(model_config), **dataclasses.asdict(config)})
        log = ProgressLog(
            model_dir, config, is_chief=is_chief, peak_flops=peak_flops(config, strategy),
            flops_per_example=training_flops(
                model_config, vocab_size, config.max_seq_length))

        # ---- Model and optimiser, then the state of the newest checkpoint.
        with strategy.scope():
            model = build_pretrainer(model_config, vocabulary_facts(tokenizer), config.precision)
            optimizer = Adam(model.trainable_variables, schedule_for(config), config)
        checkpoints = Checkpoints(
            model_dir, tf.train.Checkpoint(model=model, optimizer=optimizer),
            keep=config.keep_checkpoints, keep_every=config.keep_every, workers=workers,
            background=config.async_checkpoints)
        step, examples_seen = checkpoints.restore_latest()
        if step > config.last_step:
            raise UsageError(f"--stop_at_step={config.stop_at_step}: {model_dir} is at step {step} "
                             "already: expected a later step")
        origin = ""
        if initial_weights is not None and step == 0:
            origin = initial_weights(model, tokenizer)
            log.show(origin)

        log.show(devices_line(strategy))
        log.show(vocabulary_line(tokenizer, data_dir))
        id_counts = read_id_counts(model_dir, vocab_size)
        if id_counts is None and info.num_examples("validation"):
            log.show(no_floor_line(data_dir))
        for name, parameters in parameter_counts(model).items():
            log.show(parameter_line(name, parameters))
        log.show(f"{strategy.num_replicas_in_sync} replica(s); {info.num_examples('train'):,} "
                 f"training examples; step {step} of {config.num_train_steps}")
        if step < config.last_step:
            log.start(step, Run(tokenizer.config, model_config, config),
                      devices=f"{devices_used(strategy)}; TensorFlow {tf.__version__}",
                      data=describe_records(data_dir, info), initial_weights=origin)

        # ---- Data from the checkpoint's position on, and the compiled loop over it.
        def host_batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
            return training_dataset(
                shards, info, config, first_example=examples_seen, vocab_size=vocab_size,
                batch_size=context.get_per_replica_batch_size(config.train_batch_size),
                host=context.input_pipeline_id, num_hosts=context.num_input_pipelines)

        batches = iter(strategy.distribute_datasets_from_function(host_batches))
        train_step = TrainStep(model, optimizer, model_config, config,
                               compilation_for(config, strategy))
        loop = make_train_loop(train_step, strategy)
        evaluate = make_evaluation(
            model, tokenizer, model_config, config, strategy, data_dir, held_out, id_counts)
        examine = make_examination(model, tokenizer, model_config, config, strategy, id_counts)

        # ---- The loop: some steps on the devices, then reports, checkpoints and evaluations on the host.
        evaluation: dict[str, float] = {}
        pending = no_sums(model_config)  # sums since the last report
        bad_in_row = 0.0
        health, pace = HealthWatch(config), Pace(config, workers)
        stopping = stop.requested()
        if step < config.last_step and not stopping:
            log.show("compiling the step; on a TPU this takes minutes")
        with checkpoints:
            while step < config.last_step and not stopping:
                num_steps = pace.begin_loop(step)
                # After an error, steps of the loop may be half applied: nothing is saved.
                with bad_shard_named(shards, info, vocab_size,
                                     "; --skip_corrupt_shards leaves it out"):
                    sums = loop(batches, tf.constant(num_steps), tf.constant(bad_in_row), pending)
                    pending = {name: sums[name] for name in pending}
                    values = {name: value.numpy() for name, value in sums.items()}
                pace.end_loop(num_steps)
                step += num_steps
                examples_seen += num_steps * config.train_batch_size
                bad_in_row = float(values["bad_in_row"])
                _check_finite(values, step, config, log)
                if not log.is_counting:
                    log.count_from(step)
                stopping = stop.requested()

                metrics = summarise(values, model_config.generator_weight,
                                    model_config.discriminator_weight)
                if is_due(step, config.log_every, config) or stopping:
                    log.train(step, {
                        **metrics, "learning_rate": float(learning_rate(tf.constant(step), config)),
                        "gradient_norm": float(values["gradient_norm"]),
                        "bad_steps": float(values["bad"]), "tokens": float(values["tokens"])})
                    for warning in health.warnings(step, metrics):
                        log.show(warning)
                    pending = no_sums(model_config)
                else:
                    log.while_training(step, {**metrics, "tokens": float(values["tokens"])})
                if is_due(step, config.save_every, config) or stopping:
                    checkpoints.save(step, examples_seen)
                if (config.eval_every and step % config.eval_every == 0 and step < config.last_step
                        and not stopping):
                    result = evaluate(stop.requested, log.meanwhile)
                    stopping = result is None
                    if result:
                        evaluation = result.metrics
                        report_evaluation(log, step, result, health)
                if (config.exam_every and step % config.exam_every == 0 and step < config.last_step
                        and not stopping):
                    stopping = not examine(log, step, stop.requested)

            if stopping and step < config.last_step:
                checkpoints.save(step, examples_seen)
                checkpoints.wait()
                log.show(f"stopped by a signal at step {step}; saved. The same command goes on")
                return TrainResult(step, evaluation, stopped_by_signal=True)

        # ---- The model is saved: what it can do.
        def stopped_after_training(where: str) -> TrainResult:
            log.show(f"stopped by a signal in the {where} at step {step}; the model is saved. The same "
                     "command evaluates it")
            return TrainResult(step, {}, stopped_by_signal=True)

        if not examine(log, step, stop.requested):
            return stopped_after_training("exam")
        if evaluate_at_end and info.num_examples("validation"):
            result = evaluate(stop.requested, log.meanwhile)
            if result is None:
                return stopped_after_training("evaluation")
            evaluation = result.metrics
            report_evaluation(log, step, result, health)
        return TrainResult(step, evaluation, stopped_by_signal=False)


def parameter_counts(model: ElectraPretrainer) -> dict[str, int]:
    """Parameters of the published model, and of everything that is trained if that is more."""
    everything = count_parameters([model])
    if model.discriminator_head is None:
        return {"model": everything}
    found = {"discriminator": discriminator_parameters(model)}
    if model.generators == [model.discriminator]:
        found["with the generator's head"] = everything
    elif model.generators:
        found["both towers" if len(model.generators) == 1 else "all three towers"] = everything
    return found


def vocabulary_line(tokenizer: Tokenizer, data_dir: str) -> str:
    """The audit of the vocabulary in one line, against the counts of the records if they have any."""
    return audit(tokenizer, read_id_counts(data_dir, len(tokenizer.vocab))).summary()


def _check_finite(sums: Mapping[str, np.ndarray], step: int, config: PretrainingConfig,
                  log: ProgressLog) -> None:
    if sums["bad_in_loop"]:
        log.show(f"warning: {int(sums['bad_in_loop'])} step(s) with a non-finite loss or gradient were "
                 f"not applied, the last one was step {int(sums['last_bad_step'])}")
    if sums["bad_in_row"] >= config.max_bad_steps:
        raise CheckFailed(
            f"{int(sums['bad_in_row'])} steps in a row, up to step {step}, had a non-finite loss or "
            f"gradient; {log.model_dir} keeps its last good checkpoint")
