"""Writes the training step with its state and real batches, for a machine without TensorFlow."""

import itertools
import json
import os
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from absl import flags

from benchmarks.portable_step.folder import (
    PROGRAM_FILE,
    STEP_FILE,
    Array,
    State,
    StepFacts,
    write_batches,
    write_state,
)
from electra_es import files
from electra_es.config import ModelConfig, PretrainingConfig, TextConfig, to_json
from electra_es.data.inputs import check_records, training_dataset
from electra_es.data.records import load_records_info
from electra_es.data.shards import usable_shards
from electra_es.errors import UsageError
from electra_es.export.output import new_directory
from electra_es.flags import (
    command_line_settings,
    define,
    define_assignments,
    define_config_flags,
    parse_flags_only,
    required,
    resolve,
)
from electra_es.model.batches import Inputs
from electra_es.model.pretrainer import ElectraPretrainer, build_pretrainer
from electra_es.model.variables import named_variables
from electra_es.preflight.program import step_program
from electra_es.run_config import Run
from electra_es.settings import PATH, Range
from electra_es.text.tokenizer import load_tokenizer
from electra_es.training.checkpoints import Checkpoints
from electra_es.training.compilation import Compilation
from electra_es.training.flops import training_flops
from electra_es.training.optimization import Adam, schedule_for
from electra_es.training.run_dir import settings_of_run, vocabulary_facts
from electra_es.training.steps import TrainStep


def export(model_config: ModelConfig, config: PretrainingConfig, *, data_dir: str, vocab_dir: str,
           output: str, model_dir: str = "", num_batches: int = 8, piece_mb: float = 15.0) -> StepFacts:
    """Writes the folder `output`, see `folder.py`.

    Args:
      model_dir: a run whose newest checkpoint is the state; empty: a new model.
      num_batches: how many batches of the records to write, from where the state stands.
      piece_mb: the largest size of a piece of the state, in 10^6 bytes.

    Raises:
      UsageError: the records do not fit, or `output` exists.
    """
    tokenizer = load_tokenizer(vocab_dir)
    info = load_records_info(data_dir)
    check_records(info, config, model_config, tokenizer.config, data_dir)
    vocab_size = len(tokenizer.vocab)
    shards = usable_shards(data_dir, info, config.skip_corrupt_shards, vocab_size)
    tf_keras.utils.set_random_seed(config.seed)
    model = build_pretrainer(model_config, vocabulary_facts(tokenizer), config.precision)
    optimizer = Adam(model.trainable_variables, schedule_for(config), config)
    step, examples_seen = 0, 0
    if model_dir:
        step, examples_seen = Checkpoints(
            model_dir, tf.train.Checkpoint(model=model, optimizer=optimizer),
            keep=1, keep_every=0).restore_latest()
        if not step:
            raise UsageError(f"{model_dir}/checkpoints: expected at least one whole checkpoint")
    batches = list(itertools.islice(training_dataset(
        shards, info, config, first_example=examples_seen, vocab_size=vocab_size,
        batch_size=config.train_batch_size), num_batches))
    kept = tf.bfloat16 if config.precision == "bfloat16" else None
    train_step = TrainStep(model, optimizer, model_config, config, Compilation(kept=kept))
    program = step_program(train_step, batches[0])
    names = {v.ref(): name for name, v in state_variables(model, optimizer).items()}
    facts = StepFacts(
        config=json.loads(to_json(**Run(tokenizer.config, model_config, config)._asdict())),
        batch=[_facts(name, x) for name, x in zip(Inputs._fields, batches[0], strict=True)],
        variables=[_facts(names[v.ref()], v) for v in program.variables],
        weights=list(named_variables(model)),
        metrics=program.metrics, aliases=[list(pair) for pair in program.aliases],
        flops=config.train_batch_size * training_flops(
            model_config, vocab_size, config.max_seq_length))
    with new_directory(output, overwrite=False, recognised_by=STEP_FILE) as folder:
        files.write_bytes(os.path.join(folder, PROGRAM_FILE), program.hlo)
        write_batches(folder, {name: np.stack([x.numpy() for x in arrays]) for name, arrays in zip(
            Inputs._fields, zip(*batches, strict=True), strict=True)})
        write_state(folder, State(step, examples_seen, {
            names[v.ref()]: v.numpy() for v in program.variables}), int(piece_mb * 1e6))
        facts.write(folder)
    return facts


def state_variables(model: ElectraPretrainer, optimizer: Adam) -> dict[str, tf.Variable]:
    """All variables of a run: the model's by canonical name, the optimiser's after them."""
    weights = named_variables(model)
    place = {v.ref(): i for i, v in enumerate(model.trainable_variables)}
    moments = {f"{name}/{kind}": values[place[v.ref()]] for name, v in weights.items()
               for kind, values in (("m", optimizer.first_moments), ("v", optimizer.second_moments))}
    return {**weights, **moments, "step": optimizer.iterations}


def _facts(name: str, x: tf.Tensor | tf.Variable) -> Array:
    return Array(name, x.shape.as_list(), x.dtype.name)


def main() -> None:
    define_config_flags(TextConfig, ModelConfig, PretrainingConfig, skip=("vocab_sha256",))
    data_dir = define("data_dir", str, "", "Records directory.", PATH)
    vocab_dir = define("vocab_dir", str, "", "Vocabulary directory.", PATH)
    model_dir = define("model_dir", str, "", "A run to go on from; none: a new model.", PATH)
    output = define("output", str, "", "Folder to write.", PATH)
    hparams = define("hparams", str, "", "JSON file of settings; none: that of the model size.", PATH)
    batches = define("batches", int, 8, "Number of batches to write.",
                     Range(low=1, high=100_000, why="they are written into one file"))
    piece_mb = define("piece_mb", float, 15.0, "Largest size of a file of the state, in 10^6 bytes.",
                      Range(low=0.001, high=10_000, why="a folder has up to 100,000 pieces"))
    assignments = define_assignments()
    parse_flags_only()
    overrides: dict[str, Any] = command_line_settings(flags.FLAGS, assignments.value)
    if model_dir.value:
        model_config, config = settings_of_run(model_dir.value, overrides)
    else:
        model_config, config, _ = resolve(overrides, hparams.value)
    facts = export(
        model_config, config, data_dir=required(data_dir, "a records directory"),
        vocab_dir=vocab_dir.value or required(model_dir, "a vocabulary or a model directory"),
        output=required(output, "a folder to write"), model_dir=model_dir.value,
        num_batches=batches.value, piece_mb=piece_mb.value)
    print(f"{output.value}: {len(facts.variables)} variables, {batches.value} batches of "
          f"{facts.batch_size} x {config.max_seq_length}, {facts.flops / 1e9:,.1f} GFLOP a step, "
          f"{config.precision}")
