"""Evaluation on the validation records, with the same masks and samples each time."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from electra_es.config import ModelConfig, PretrainingConfig
from electra_es.data.inputs import check_records, validation_dataset
from electra_es.data.records import ID_COUNTS_FILE, RecordsInfo, load_records_info, read_id_counts
from electra_es.data.shards import bad_shard_named, check_validation, usable_shards
from electra_es.model.batches import Inputs
from electra_es.model.pretrainer import ElectraPretrainer, build_pretrainer
from electra_es.monitoring.health import HealthWatch
from electra_es.monitoring.progress import ProgressLog, SampleToken
from electra_es.text.tokenizer import Tokenizer, load_tokenizer
from electra_es.training.checkpoints import restore_weights
from electra_es.training.devices import TpuAddress, check_reachable, set_up_devices
from electra_es.training.floor import floor_metrics
from electra_es.training.metrics import summarise
from electra_es.training.run_dir import check_same_evaluation, vocabulary_facts
from electra_es.training.steps import make_eval_step, make_show_step
from electra_es.training.workers import Workers

SAMPLES = 4


class Evaluation(NamedTuple):
    """Metrics over the validation examples, and some examples with the discriminator's verdict."""

    metrics: dict[str, float]
    samples: list[list[SampleToken]]


def make_evaluation(
    model: ElectraPretrainer, tokenizer: Tokenizer, model_config: ModelConfig,
    config: PretrainingConfig, strategy: tf.distribute.Strategy, data_dir: str, info: RecordsInfo,
    id_counts: np.ndarray | None = None,
) -> Callable[..., Evaluation | None]:
    """Returns a function that evaluates the model with its current weights.

    The first call compiles everything, which takes minutes on a TPU; later calls reuse it. The arguments
    are called after each batch: `stopped`, which ends the evaluation by returning True (the result is
    then None), and `tell` with a line of how far it is.
    With `id_counts`, int [V] of the training records, the metrics have the floor beside them.
    """
    step = make_eval_step(model, model_config, config.seed, strategy)
    show = make_show_step(model, model_config, config.seed, strategy)
    total = info.num_examples("validation")
    batches = -(-min(total, config.eval_examples or total) // config.eval_batch_size)
    vocab_size = len(tokenizer.vocab)

    def host_batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return validation_dataset(
            data_dir, info, config, vocab_size=vocab_size,
            batch_size=context.get_per_replica_batch_size(config.eval_batch_size),
            global_batch_size=config.eval_batch_size, host=context.input_pipeline_id,
            num_hosts=context.num_input_pipelines)

    @functools.cache
    def dataset() -> tf.distribute.DistributedDataset:
        return strategy.distribute_datasets_from_function(host_batches)

    @functools.cache
    def sample_batch() -> Inputs:
        number = min(SAMPLES, total)
        return next(iter(validation_dataset(
            data_dir, info, config, vocab_size=vocab_size, batch_size=number,
            global_batch_size=number)))

    def evaluate(stopped: Callable[[], bool] = lambda: False,
                 tell: Callable[[str], None] = lambda line: None) -> Evaluation | None:
        sums: dict[str, np.ndarray] = {}
        with bad_shard_named(usable_shards(data_dir, info, False, split="validation"), info,
                             vocab_size):
            iterator = iter(dataset())
            for number in range(batches):
                new = {name: value.numpy().astype("float64")
                       for name, value in step(next(iterator)).items()}
                sums = {name: sums.get(name, 0.0) + value for name, value in new.items()}
                if stopped():
                    return None
                tell(f"evaluation: {number + 1:,} of {batches:,} batches")
            samples = [] if model.discriminator_head is None else read_samples(
                tokenizer, sample_batch(), *(part.numpy() for part in show(sample_batch())))
        metrics = summarise(sums, model_config.generator_weight, model_config.discriminator_weight)
        if id_counts is not None:
            metrics |= floor_metrics(sums, metrics, id_counts, model.vocab)
        return Evaluation(metrics, samples)

    return evaluate


def read_samples(tokenizer: Tokenizer, batch: Inputs, corrupted: np.ndarray, replaced: np.ndarray
                 ) -> list[list[SampleToken]]:
    """The examples as pieces, with the generator's replacements and the discriminator's verdicts.

    Args:
      tokenizer: of the run.
      batch: [B, L].
      corrupted: int32 [B, L], with samples written in.
      replaced: float32 [B, L], the discriminator's probability.

    Returns:
      for each example its tokens without padding.
    """
    samples = []
    for row, length in enumerate(batch.input_mask.numpy().sum(axis=1)):
        samples.append([
            SampleToken(tokenizer.vocab[original], tokenizer.vocab[now], round(float(p), 3))
            for original, now, p in zip(batch.input_ids[row, :length].numpy(),
                                        corrupted[row, :length], replaced[row, :length],
                                        strict=True)])
    return samples


def evaluate_run(model_config: ModelConfig, config: PretrainingConfig, *, data_dir: str,
                 vocab_dir: str, model_dir: str, tpu: TpuAddress = TpuAddress()) -> dict[str, float]:
    """Evaluates the newest checkpoint of `model_dir` on the validation records.

    Args:
      model_config, config: those of the run, see `run_dir.settings_of_run`.
      data_dir: records directory; it may be another one than the run's.
      vocab_dir: vocabulary directory; `model_dir` is one too.
      model_dir: the run's directory.
      tpu: TPU to use, if any.

    Raises:
      UsageError: no checkpoint, no validation records, or a model, seed or length that differs from
        that of `model_dir`.
    """
    check_reachable(tpu, data_dir=data_dir, model_dir=model_dir)
    strategy = set_up_devices(config, tpu, trains=False)
    tokenizer = load_tokenizer(vocab_dir)
    check_same_evaluation(model_dir, tokenizer.config, model_config, config)
    info = load_records_info(data_dir)
    check_records(info, config, model_config, tokenizer.config, data_dir,
                  split="validation")
    info = check_validation(data_dir, info, config.skip_corrupt_shards, len(tokenizer.vocab))
    with strategy.scope():
        model = build_pretrainer(model_config, vocabulary_facts(tokenizer), config.precision)
    step = restore_weights(model_dir, model)
    log = ProgressLog(model_dir, config, is_chief=Workers(strategy).index == 0)
    id_counts = read_id_counts(model_dir, len(tokenizer.vocab))
    if id_counts is None:
        log.show(no_floor_line(model_dir))
    evaluation = make_evaluation(
        model, tokenizer, model_config, config, strategy, data_dir, info, id_counts)(tell=log.meanwhile)
    assert evaluation is not None
    report_evaluation(log, step, evaluation)
    return evaluation.metrics


def no_floor_line(directory: str) -> str:
    return (f"{directory}: no {ID_COUNTS_FILE}, the counts of the training records: evaluations leave "
            "out the floor, what counting tokens reaches")


def report_evaluation(log: ProgressLog, step: int, evaluation: Evaluation,
                      health: HealthWatch | None = None) -> None:
    if log.evaluation(step, evaluation.metrics):
        log.samples(step, evaluation.samples)
    if health is not None:
        for warning in health.evaluation_warnings(step, evaluation.metrics):
            log.show(warning)
