r"""Imports a TF1 checkpoint of google-research/electra as a model directory.

    python -m electra_es.export.google_checkpoint --checkpoint=electra_small/electra_small \
        --vocab=electra_small/vocab.txt --lower_case --strip_accents --output=runs/electra_small

Google's released models and SELECTRA's own checkpoints have this layout. The shape of the model
is read from the variables. Use `--set` for settings that the variables do not show: a number of
heads other than one per 64 of width (`--set num_heads=3 --set generator_heads=2`), or a `mask_prob`
other than 0.15. The text flags say how the text of that vocabulary was prepared: Google's English
models lower-case it and strip accents, SELECTRA's do neither.
"""

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import flags

from electra_es import files
from electra_es.config import ModelConfig, PretrainingConfig, TextConfig, from_dict, size_name
from electra_es.errors import UsageError, run_main
from electra_es.export.compare import check_weights
from electra_es.export.output import new_directory
from electra_es.flags import (
    command_line_settings,
    define,
    define_assignments,
    define_config_flags,
    parse_flags_only,
    required,
)
from electra_es.model.pretrainer import build_pretrainer
from electra_es.model.variables import set_weights
from electra_es.run_config import CONFIG_FILE
from electra_es.settings import PATH
from electra_es.text.tokenizer import Tokenizer, load_tokenizer
from electra_es.text.vocabulary import save_text_config
from electra_es.training.checkpoints import Checkpoints
from electra_es.training.run_dir import load_model, prepare_model_dir, vocabulary_facts

# Variables that are not weights, by the last part of their name: the moments of the optimiser,
# the step, and an unused scalar of some of Google's checkpoints.
_IGNORED = ("adam_m", "adam_v", "global_step", "temperature")


def read_checkpoint(prefix: str) -> tuple[dict[str, np.ndarray], int]:
    """Reads a checkpoint in TensorFlow's name-based format.

    Args:
      prefix: its path without `.index`, or a folder with a `checkpoint` file.

    Returns:
      canonical name -> float32 array, and the value of `global_step` (0 if there is none).

    Raises:
      UsageError: there is no checkpoint, or it cannot be read.
    """
    try:
        with files.no_pattern(prefix) as opened:
            reader = tf.train.load_checkpoint(opened)
            names = sorted(reader.get_variable_to_shape_map())
            step = int(reader.get_tensor("global_step")) if "global_step" in names else 0
            arrays = {name: reader.get_tensor(name) for name in names
                      if name.rpartition("/")[2] not in _IGNORED}
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        # The reader turns status codes into Python's errors: a truncated file gives an IndexError.
        raise UsageError(f"--checkpoint={prefix}: not a checkpoint that can be read "
                         f"({str(error).splitlines()[0]})") from None
    return arrays, step


def infer_model_config(shapes: Mapping[str, tuple[int, ...]], where: str,
                       overrides: Mapping[str, Any]) -> ModelConfig:
    """The configuration of a model whose variables have these shapes.

    Heads follow the rule of all published sizes, one per 64 of width. A checkpoint without a
    generator becomes a model with `generator_kind=uniform`, which has none.

    Args:
      shapes: canonical name -> shape.
      where: what to call the checkpoint in an error.
      overrides: settings that take precedence over what is inferred.

    Raises:
      UsageError: a variable that every ELECTRA has is missing, or the settings contradict
        each other.
    """
    def shape(name: str) -> tuple[int, ...]:
        if name not in shapes:
            raise UsageError(f"{where}: no {name}: expected a checkpoint of google-research/electra")
        return tuple(shapes[name])

    _, embedding_size = shape("electra/embeddings/word_embeddings")
    hidden_size, intermediate_size = shape("electra/encoder/layer_0/intermediate/dense/kernel")
    num_layers = _count_layers(shapes, "electra")
    inferred: dict[str, Any] = dict(
        model_size=size_name(hidden_size, num_layers), embedding_size=embedding_size,
        hidden_size=hidden_size, intermediate_size=intermediate_size, num_layers=num_layers,
        num_heads=max(1, hidden_size // 64),
        max_position_embeddings=shape("electra/embeddings/position_embeddings")[0],
        type_vocab_size=shape("electra/embeddings/token_type_embeddings")[0],
        **_infer_objective(shapes))
    generator = "generator_ltr" if inferred["generator_kind"] == "two_tower" else "generator"
    if layers := _count_layers(shapes, generator):
        width = shape(f"{generator}/encoder/layer_0/intermediate/dense/kernel")[0]
        inferred.update(generator_width=width / hidden_size, generator_depth=layers / num_layers)
        if f"{generator}/embeddings/word_embeddings" in shapes:
            inferred["embedding_sharing"] = "untied"
    return from_dict(ModelConfig, {**inferred, **overrides})


def _infer_objective(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    if "discriminator_predictions/dense/kernel" not in shapes:
        return dict(objective="mlm", generator_kind="shared")
    if _count_layers(shapes, "generator_ltr"):
        return dict(objective="electric", generator_kind="two_tower")
    if _count_layers(shapes, "generator"):
        return dict(objective="electra", generator_kind="masked_lm")
    tied = "generator_predictions/output_bias" in shapes
    return dict(objective="electra", generator_kind="shared" if tied else "uniform")


def _count_layers(shapes: Mapping[str, tuple[int, ...]], tower: str) -> int:
    count = 0
    while f"{tower}/encoder/layer_{count}/intermediate/dense/kernel" in shapes:
        count += 1
    return count


def import_google_checkpoint(checkpoint: str, vocab: str, output: str, *, text: TextConfig,
                             overrides: Mapping[str, Any], overwrite: bool = False) -> int:
    """Writes the model directory `output`, which `run_dir.load_model` reads.

    It holds only weights: a new run starts from them with `--init_checkpoint`. The step and the moments
    belong to a schedule and a data order that are not known here.

    Args:
      checkpoint: prefix of the TF1 checkpoint.
      vocab: its vocab.txt.
      output: path of the model directory.
      text: how the vocabulary's text is prepared; size and sha256 are those of the file.
      overrides: model settings that the variables do not show.
      overwrite: whether to replace an earlier model directory of that name.

    Returns:
      the step that the weights were saved at.

    Raises:
      UsageError: unreadable checkpoint or vocabulary, or variables that are missing, unknown or
        of another shape. Nothing is written then.
      CheckFailed: the weights, read back, are not those of the checkpoint. Nothing is left then.
    """
    arrays, step = read_checkpoint(checkpoint)
    config = infer_model_config(
        {name: array.shape for name, array in arrays.items()}, checkpoint, overrides)
    with tempfile.TemporaryDirectory() as vocab_dir:
        tokenizer = _copy_vocabulary(vocab, vocab_dir, text)
        rows = arrays["electra/embeddings/word_embeddings"].shape[0]
        if len(tokenizer.vocab) != rows:
            raise UsageError(f"--vocab={vocab}: {len(tokenizer.vocab)} pieces: expected the {rows} "
                             f"that {checkpoint} has embeddings of")
        model = build_pretrainer(config, vocabulary_facts(tokenizer))
        set_weights(model, arrays, checkpoint)
        pretraining = PretrainingConfig(
            max_seq_length=config.max_position_embeddings, num_train_steps=max(step, 1))
        with new_directory(output, overwrite=overwrite, recognised_by=CONFIG_FILE) as scratch:
            prepare_model_dir(scratch, tokenizer, vocab_dir, config, pretraining)
            state = tf.train.Checkpoint(model=model)
            Checkpoints(scratch, state, keep=1, keep_every=0).save(step, examples_seen=0)
            check_weights(load_model(scratch)[0], model, output)
    return step


def _copy_vocabulary(vocab: str, directory: str, text: TextConfig) -> Tokenizer:
    """Makes a vocabulary directory from a single vocab.txt; errors name the user's file."""
    copy = os.path.join(directory, "vocab.txt")
    try:
        files.copy(vocab, copy)
        save_text_config(directory, text)
    except UsageError as error:
        raise UsageError(f"--vocab={str(error).replace(copy, vocab)}") from None
    return load_tokenizer(directory)


def main() -> None:
    define_config_flags(TextConfig, skip=("tokenizer", "vocab_size", "vocab_sha256"))
    checkpoint = define("checkpoint", str, "", "Prefix of the TF1 checkpoint.", PATH)
    vocab = define("vocab", str, "", "Its vocab.txt.", PATH)
    output = define("output", str, "", "Model directory to write.", PATH)
    overwrite = define("overwrite", bool, False, "Replace an earlier model directory there.")
    assignments = define_assignments(
        "key=value of a model setting that the variables do not show; may be repeated.")
    parse_flags_only()
    settings = command_line_settings(flags.FLAGS, assignments.value)
    text = {key: value for key, value in settings.items() if key in TextConfig.__dataclass_fields__}
    model = {key: value for key, value in settings.items() if key in ModelConfig.__dataclass_fields__}
    if others := settings.keys() - text.keys() - model.keys():
        raise UsageError(f"--set {min(others)}: expected a setting of the model")
    step = import_google_checkpoint(
        required(checkpoint, "the prefix of a TF1 checkpoint"), required(vocab, "its vocab.txt"),
        required(output, "a model directory to write"), text=from_dict(TextConfig, text),
        overrides=model, overwrite=overwrite.value)
    print(f"{output.value}: weights of step {step:,}; a run starts from them with "
          f"--init_checkpoint={output.value}")


if __name__ == "__main__":
    run_main(main)
