"""Puts the state that `run` wrote into a model directory, like that of any run, and evaluates it."""

import tensorflow as tf

from benchmarks.portable_step.export import state_variables
from benchmarks.portable_step.folder import read_facts, read_state
from electra_es import files
from electra_es.config import ModelConfig, PretrainingConfig, from_dict
from electra_es.data.records import load_records_info
from electra_es.errors import UsageError
from electra_es.flags import define, parse_flags, required
from electra_es.model.pretrainer import build_pretrainer
from electra_es.settings import PATH
from electra_es.text.tokenizer import load_tokenizer
from electra_es.training.checkpoints import Checkpoints
from electra_es.training.evaluation import evaluate_run
from electra_es.training.optimization import Adam, schedule_for
from electra_es.training.run_dir import (
    check_same_records,
    prepare_model_dir,
    store_id_counts,
    vocabulary_facts,
)


def load(folder: str, *, data_dir: str, vocab_dir: str, model_dir: str) -> int:
    """Writes `model_dir` with one checkpoint: the state in `folder`.

    Returns:
      its step.

    Raises:
      UsageError: `model_dir` exists, or `folder` is not of this vocabulary.
    """
    facts = read_facts(folder)
    state = read_state(folder, facts)
    model_config = from_dict(ModelConfig, facts.config["model"])
    config = from_dict(PretrainingConfig, facts.config["pretraining"])
    tokenizer = load_tokenizer(vocab_dir)
    if tokenizer.config.vocab_sha256 != facts.config["text"]["vocab_sha256"]:
        raise UsageError(f"--vocab_dir={vocab_dir}: expected the vocabulary of {folder}")
    if files.exists(model_dir):
        raise UsageError(f"--model_dir={model_dir}: exists already: expected a new path")
    model = build_pretrainer(model_config, vocabulary_facts(tokenizer), config.precision)
    optimizer = Adam(model.trainable_variables, schedule_for(config), config)
    for name, variable in state_variables(model, optimizer).items():
        variable.assign(state.values[name])
    prepare_model_dir(model_dir, tokenizer, vocab_dir, model_config, config)
    check_same_records(model_dir, data_dir, load_records_info(data_dir))
    store_id_counts(model_dir, data_dir, len(tokenizer.vocab))
    with Checkpoints(model_dir, tf.train.Checkpoint(model=model, optimizer=optimizer),
                     keep=1, keep_every=0) as checkpoints:
        checkpoints.save(state.step, state.examples_seen)
    return state.step


def main() -> None:
    data_dir = define("data_dir", str, "", "Records directory that the step was exported with.", PATH)
    vocab_dir = define("vocab_dir", str, "", "Its vocabulary directory.", PATH)
    model_dir = define("model_dir", str, "", "Model directory to write.", PATH)
    arguments = parse_flags()
    if len(arguments) != 1:
        raise UsageError(f"{' '.join(arguments) or 'no folder'}: expected one folder that `run` wrote")
    records = required(data_dir, "a records directory")
    vocabulary = required(vocab_dir, "a vocabulary directory")
    run = required(model_dir, "a directory to write")
    step = load(arguments[0], data_dir=records, vocab_dir=vocabulary, model_dir=run)
    print(f"{run}: a run at step {step}", flush=True)
    facts = read_facts(arguments[0])
    evaluate_run(from_dict(ModelConfig, facts.config["model"]),
                 from_dict(PretrainingConfig, facts.config["pretraining"]),
                 data_dir=records, vocab_dir=vocabulary, model_dir=run)
