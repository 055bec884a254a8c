"""Speed of training against the bare compiled step, and against Hugging Face's PyTorch classes.

    python -m benchmarks.training_step
    python -m benchmarks.training_step --steps=5 --batch_size=16 --model_size=small --with_pytorch

With the defaults this takes about seven minutes on two cores. Several things take turns, so that a
machine whose speed drifts does not favour one: the bare compiled loop on one batch in memory; what
`train()` does, over records, with a progress line every 25 steps and a checkpoint every 100, as
hparams/debug.json has them (turns of a few steps may never come to one); reading as many batches; and
ElectraForMaskedLM plus ElectraForPreTraining with fused AdamW, with the prediction head at every
position, the way they come, and at the selected positions only (`benchmarks/pytorch_step.py`). The
overhead is the ratio of the first two; more than 10 % is a failure. Speeds and ratios are medians.
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

from benchmarks.pytorch_step import Options, pytorch_steps
from benchmarks.speed_table import speed_lines
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
from electra_es.training.devices import TpuAddress, set_up_devices
from electra_es.training.flops import training_flops
from electra_es.training.metrics import summarise
from electra_es.training.optimization import Adam, learning_rate, schedule_for
from electra_es.training.steps import TrainStep, make_train_loop

_SIZE = flags.DEFINE_string("model_size", "debug", "Row of the table of model sizes.")
_STEPS = flags.DEFINE_integer("steps", 100, "Steps of each turn.")
_TURNS = flags.DEFINE_integer("turns", 5, "How often each takes its turn.")
_BATCH = flags.DEFINE_integer("batch_size", 32, "Examples per step.")
_LENGTH = flags.DEFINE_integer("max_seq_length", 128, "Tokens per example.")
_VOCAB = flags.DEFINE_integer("vocab_size", 4_000, "Vocabulary entries.")
_PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Compute type of both.")
_PYTORCH = flags.DEFINE_bool("with_pytorch", False, "Compare with transformers' PyTorch classes.")

_CHECKPOINT_EVERY = 100


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
    strategy = set_up_devices(config, TpuAddress())
    with strategy.scope():
        model = build_pretrainer(model_settings, vocab, config.precision)
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

    done = 0  # steps of `real`; the optimiser counts those of `bare` too

    def real() -> None:
        nonlocal done
        for _ in range(config.save_every // config.log_every):
            sums = loop(from_records, tf.constant(config.log_every), no_bad)
            sums = {name: value.numpy() for name, value in sums.items()}
            step = int(optimizer.iterations)
            rate = float(learning_rate(tf.constant(step), config))
            log.train(step, {**summarise(sums, 1.0, 50.0), "learning_rate": rate,
                             "gradient_norm": float(sums["gradient_norm"])})
        before, done = done, done + config.save_every
        if done // _CHECKPOINT_EVERY > before // _CHECKPOINT_EVERY:
            checkpoints.save(step, step * config.train_batch_size)
            checkpoints.wait()

    def read() -> None:
        for _ in range(config.save_every):
            next(only_read)

    return {"bare step": bare, "train loop": real, "input alone": read}


def main() -> None:
    parse_flags_only()
    print("at most ten minutes on two cores", flush=True)
    batch, length, vocab_size, steps = _BATCH.value, _LENGTH.value, _VOCAB.value, _STEPS.value
    model_settings = model_config({"model_size": _SIZE.value})
    config = PretrainingConfig(max_seq_length=length, train_batch_size=batch, precision=_PRECISION.value,
                               log_every=min(25, steps), save_every=steps,
                               num_train_steps=10 * steps * (_TURNS.value + 1))
    with tempfile.TemporaryDirectory() as directory:
        turns = our_turns(config, model_settings, vocab_size, directory)
        if _PYTORCH.value:
            options = Options(precision=config.precision, fused=True)
            turns["transformers"] = pytorch_steps(
                model_settings, batch, length, vocab_size, steps, options._replace(selected_only=False))
            turns["transformers, selected positions"] = pytorch_steps(
                model_settings, batch, length, vocab_size, steps, options)
        seconds = take_turns(turns, _TURNS.value)
    reading = seconds.pop("input alone")
    for line in speed_lines(seconds, steps=steps, batch_size=batch,
                            flops=batch * training_flops(model_settings, vocab_size, length)):
        print(line)
    pairs = [a / b for a, b in zip(seconds["bare step"], seconds["train loop"], strict=True)]
    ratio = statistics.median(pairs)
    print(f"train loop / bare step: {ratio:.3f}")
    pairs = [a / b for a, b in zip(seconds["bare step"], reading, strict=True)]
    print(f"input alone / bare step: {statistics.median(pairs):.1f}")
    for name in [name for name in seconds if name.startswith("transformers")]:
        pairs = [a / b for a, b in zip(seconds[name], seconds["train loop"], strict=True)]
        print(f"train loop / {name}: {statistics.median(pairs):.2f}")
    sys.stdout.flush()
    if ratio < 0.9:
        raise CheckFailed(f"the train loop has {ratio:.3f} of the bare step's speed: expected 0.9")


if __name__ == "__main__":
    run_main(main)
