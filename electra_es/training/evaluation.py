"""Evaluation on the validation records: the same masks and samples each time."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from electra_es.config import ModelConfig, PretrainingConfig
from electra_es.data.inputs import check_records, validation_dataset
from electra_es.data.records import RecordsInfo, load_records_info
from electra_es.errors import UsageError
from electra_es.model.batches import Inputs
from electra_es.model.masking import mask
from electra_es.model.pretrainer import ElectraPretrainer, build_pretrainer
from electra_es.monitoring.progress import ProgressLog, SampleToken
from electra_es.text.tokenizer import Tokenizer, load_tokenizer
from electra_es.training.checkpoints import restore_weights
from electra_es.training.devices import (
    TpuAddress,
    check_reachable,
    set_up_devices,
    worker_index,
)
from electra_es.training.metrics import summarise
from electra_es.training.run_dir import check_same_model, vocabulary_facts
from electra_es.training.steps import evaluation_keys, make_eval_step, sampling_draws

SAMPLES = 4


class Evaluation(NamedTuple):
    """Metrics over the validation examples, and some of these as the discriminator saw them."""

    metrics: dict[str, float]
    samples: list[list[SampleToken]]


def make_evaluation(
    model: ElectraPretrainer, tokenizer: Tokenizer, model_config: ModelConfig,
    config: PretrainingConfig, strategy: tf.distribute.Strategy, data_dir: str, info: RecordsInfo,
) -> Callable[[], Evaluation]:
    """Returns a function that evaluates the model as it is at the time."""
    step = make_eval_step(model, model_config, config.seed, strategy)

    def host_batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return validation_dataset(
            data_dir, info, config,
            batch_size=context.get_per_replica_batch_size(config.eval_batch_size),
            global_batch_size=config.eval_batch_size, host=context.input_pipeline_id,
            num_hosts=context.num_input_pipelines)

    def evaluate() -> Evaluation:
        total = info.num_examples("validation")
        batches = -(-min(total, config.eval_examples or total) // config.eval_batch_size)
        iterator = iter(strategy.distribute_datasets_from_function(host_batches))
        sums: dict[str, np.ndarray] = {}
        for _ in range(batches):
            new = {name: value.numpy().astype("float64")
                   for name, value in step(next(iterator)).items()}
            sums = {name: sums.get(name, 0.0) + value for name, value in new.items()}
        metrics = summarise(sums, model_config.generator_weight, model_config.discriminator_weight)
        return Evaluation(metrics, show_samples())

    def show_samples() -> list[list[SampleToken]]:
        number = min(SAMPLES, info.num_examples("validation"))
        if model.rtd_head is None:
            return []
        batch = next(iter(validation_dataset(
            data_dir, info, config, batch_size=number, global_batch_size=number)))
        return corrupted_samples(model, tokenizer, model_config, config.seed, strategy, batch)

    return evaluate


def corrupted_samples(
    model: ElectraPretrainer, tokenizer: Tokenizer, model_config: ModelConfig, seed: int,
    strategy: tf.distribute.Strategy, batch: Inputs,
) -> list[list[SampleToken]]:
    """What the generator makes of the examples, and the discriminator of that.

    Args:
      batch: [B, L].

    Returns:
      for each example its tokens without padding.
    """
    keys = evaluation_keys(seed)

    @tf.function(autograph=False)
    def outputs(inputs: Inputs) -> tuple[tf.Tensor, tf.Tensor]:
        masked = mask(inputs, model_config, model.vocab, keys.masking)
        result = model(inputs, masked, sampling_draws(keys, inputs, masked))
        return result.corrupted_ids, tf.sigmoid(result.rtd_logits)

    # Every replica computes the same, so that this works wherever the variables are.
    corrupted, replaced = (strategy.experimental_local_results(part)[0].numpy()
                           for part in strategy.run(outputs, args=(batch,)))
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
    """Evaluates the latest checkpoint of `model_dir` on the validation records.

    Raises:
      UsageError: no checkpoint, no validation records, or another model than that of `model_dir`.
    """
    check_reachable(tpu, data_dir=data_dir, model_dir=model_dir)
    strategy = set_up_devices(config, tpu)
    tokenizer = load_tokenizer(vocab_dir)
    info = load_records_info(data_dir)
    check_records(info, config, model_config, tokenizer.config.vocab_sha256, data_dir)
    if not info.num_examples("validation"):
        raise UsageError(f"{data_dir}: no validation examples: expected at least one")
    check_same_model(model_dir, tokenizer.config, model_config)
    with strategy.scope():
        model = build_pretrainer(model_config, vocabulary_facts(tokenizer))
    step = restore_weights(model_dir, model)
    evaluation = make_evaluation(
        model, tokenizer, model_config, config, strategy, data_dir, info)()
    log = ProgressLog(model_dir, config, is_chief=worker_index(strategy) == 0)
    log.evaluation(step, evaluation.metrics)
    log.samples(step, evaluation.samples)
    return evaluation.metrics
