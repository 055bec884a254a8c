"""Speed of training against the bare compiled step, and against Hugging Face's PyTorch classes.

    python -m benchmarks.training_step
    python -m benchmarks.training_step --steps=5 --batch_size=16 --model_size=small --with_pytorch

With the defaults this takes about seven minutes on two cores. Four things take turns, so that a machine
whose speed drifts does not favour one: the bare compiled loop on one batch in memory; what `train()`
does, over records, with a progress line every 25 steps and a checkpoint every 100, as
hparams/debug.json has them; reading as many batches; and ElectraForMaskedLM plus ElectraForPreTraining
with heads at every position and AdamW, the way they come. The last line is the overhead; more than 10 %
is a failure. Examples/s are medians.
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import flags

from benchmarks.turns import take_turns
from electra_es.config import ModelConfig, PretrainingConfig, TextConfig, model_config
from electra_es.data import records, tfrecord
from electra_es.data.inputs import synthetic_batch, training_dataset
from electra_es.errors import CheckFailed, run_main
from electra_es.flags import parse_flags_only
from electra_es.model.batches import VocabularyFacts
from electra_es.model.pretrainer import build_pretrainer
from electra_es.monitoring.progress import ProgressLog
from electra_es.training.checkpoints import Checkpoints
from electra_es.training.metrics import summarise
from electra_es.training.optimization import Adam, learning_rate, schedule_for
from electra_es.training.steps import TrainStep, make_train_loop

_SIZE = flags.DEFINE_string("model_size", "debug", "Row of the table of model sizes.")
_STEPS = flags.DEFINE_integer("steps", 100, "Steps of each turn.")
_TURNS = flags.DEFINE_integer("turns", 5, "How often each takes its turn.")
_BATCH = flags.DEFINE_integer("batch_size", 32, "Examples per step.")
_LENGTH = flags.DEFINE_integer("max_seq_length", 128, "Tokens per example.")
_VOCAB = flags.DEFINE_integer("vocab_size", 4_000, "Vocabulary entries.")
_PYTORCH = flags.DEFINE_bool("with_pytorch", False, "Compare with transformers' PyTorch classes.")


def write_full_records(directory: str, length: int, vocab_size: int) -> records.RecordsInfo:
    """Eight shards of 64 examples of random ids without padding."""
    rng = np.random.default_rng(0)
    for shard in range(8):
        with open(os.path.join(directory, records.shard_name("train", shard, 8)), "wb") as file:
            tfrecord.write_records(file, [
                tfrecord.encode_example(rng.integers(5, vocab_size, length), length)
                for _ in range(64)])
    return records.RecordsInfo(max_seq_length=length, examples={"train": [64] * 8},
                               text=TextConfig(vocab_size=vocab_size))


def our_turns(config: PretrainingConfig, model_settings: ModelConfig, vocab_size: int, directory: str
              ) -> dict[str, Callable[[], None]]:
    """Functions for `save_every` steps: only the loop, everything that a run does, only the input."""
    vocab = VocabularyFacts(vocab_size, 0, 2, 3, 4, np.ones(vocab_size, bool))
    strategy = tf.distribute.OneDeviceStrategy("device:CPU:0")
    with strategy.scope():
        model = build_pretrainer(model_settings, vocab)
        optimizer = Adam(model.trainable_variables, schedule_for(config), config)
    loop = make_train_loop(TrainStep(model, optimizer, model_settings, config), strategy)
    info = write_full_records(directory, config.max_seq_length, vocab_size)
    shards = list(zip(records.shard_paths(directory, info, "train"), info.examples["train"],
                      strict=True))
    no_bad = tf.constant(0.0)

    def batches_of(dataset: tf.data.Dataset):
        return iter(strategy.distribute_datasets_from_function(lambda _: dataset))

    in_memory = batches_of(tf.data.Dataset.from_tensors(synthetic_batch(
        config.train_batch_size, config.max_seq_length, vocab_size)).repeat())
    from_records, only_read = (batches_of(training_dataset(
        shards, info, config, first_example=0, batch_size=config.train_batch_size)) for _ in range(2))
    log = ProgressLog(directory, config)
    log.count_from(0)
    checkpoints = Checkpoints(directory, tf.train.Checkpoint(model=model, optimizer=optimizer),
                              keep=1, keep_every=0, background=True)

    def bare() -> None:
        loop(in_memory, tf.constant(config.save_every), no_bad)["tokens"].numpy()

    def real() -> None:
        for _ in range(config.save_every // config.log_every):
            sums = loop(from_records, tf.constant(config.log_every), no_bad)
            sums = {name: value.numpy() for name, value in sums.items()}
            step = int(optimizer.iterations)
            rate = float(learning_rate(tf.constant(step), config))
            log.train(step, {**summarise(sums, 1.0, 50.0), "learning_rate": rate,
                             "gradient_norm": float(sums["gradient_norm"])})
        checkpoints.save(step, step * config.train_batch_size)
        checkpoints.wait()

    def read() -> None:
        for _ in range(config.save_every):
            next(only_read)

    return {"bare step": bare, "train loop": real, "input alone": read}


def pytorch_steps(config: ModelConfig, batch_size: int, length: int, vocab_size: int, steps: int
                  ) -> Callable[[], None]:
    """A function that trains `steps` steps of the same objective with transformers' classes."""
    import torch
    from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

    def shape(hidden: int, layers: int, heads: int, inner: int) -> ElectraConfig:
        return ElectraConfig(
            vocab_size=vocab_size, embedding_size=config.embedding_size, hidden_size=hidden,
            num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner)

    discriminator = ElectraForPreTraining(shape(
        config.hidden_size, config.num_layers, config.num_heads, config.intermediate_size))
    generator = ElectraForMaskedLM(shape(
        config.generator_hidden_size, config.generator_num_layers, config.generator_num_heads,
        config.generator_intermediate_size))
    generator.electra.embeddings = discriminator.electra.embeddings
    parameters = list({id(p): p for m in (generator, discriminator) for p in m.parameters()}.values())
    optimizer = torch.optim.AdamW(parameters, lr=5e-4)
    ids = torch.randint(5, vocab_size, (batch_size, length))

    def step() -> None:
        selected = torch.rand(ids.shape) < config.mask_prob
        masked = torch.where(selected, 4, ids)
        output = generator(masked, labels=torch.where(selected, ids, -100))
        with torch.no_grad():
            sampled = torch.distributions.Categorical(logits=output.logits).sample()
        corrupted = torch.where(selected, sampled, ids)
        verdict = discriminator(corrupted, labels=(corrupted != ids).long())
        optimizer.zero_grad()
        (output.loss + 50.0 * verdict.loss).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    def run() -> None:
        for _ in range(steps):
            step()

    return run


def main() -> None:
    parse_flags_only()
    print("at most ten minutes on two cores", flush=True)
    batch, length, vocab_size, steps = _BATCH.value, _LENGTH.value, _VOCAB.value, _STEPS.value
    model_settings = model_config({"model_size": _SIZE.value})
    config = PretrainingConfig(max_seq_length=length, train_batch_size=batch,
                               log_every=min(25, steps), save_every=steps,
                               num_train_steps=10 * steps * (_TURNS.value + 1))
    with tempfile.TemporaryDirectory() as directory:
        turns = our_turns(config, model_settings, vocab_size, directory)
        if _PYTORCH.value:
            turns["transformers"] = pytorch_steps(
                model_settings, batch, length, vocab_size, steps)
        seconds = take_turns(turns, _TURNS.value)
    speeds = {name: steps * batch / statistics.median(times) for name, times in seconds.items()}
    for name, speed in speeds.items():
        print(f"{name:13} {speed:8.1f} examples/s")
    pairs = [a / b for a, b in zip(seconds["bare step"], seconds["train loop"], strict=True)]
    ratio = statistics.median(pairs)
    print(f"train loop / bare step: {ratio:.3f}")
    print(f"input alone / bare step: {speeds['input alone'] / speeds['bare step']:.1f}")
    if _PYTORCH.value:
        print(f"train loop / transformers: {speeds['train loop'] / speeds['transformers']:.2f}")
    sys.stdout.flush()
    if ratio < 0.9:
        raise CheckFailed(f"the train loop has {ratio:.3f} of the bare step's speed: expected 0.9")


if __name__ == "__main__":
    run_main(main)
