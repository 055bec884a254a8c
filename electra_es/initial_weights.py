"""Weights to start a new run from (`--init_checkpoint`), as against resuming one."""

import os
import tempfile

import tensorflow as tf

from electra_es.config import SPECIAL_TOKENS
from electra_es.errors import UsageError
from electra_es.export.google_checkpoint import read_checkpoint
from electra_es.export.huggingface import import_huggingface
from electra_es.export.weights import get_weights, set_weights
from electra_es.pretrainer import ElectraPretrainer
from electra_es.run_dir import CONFIG_FILE, load_model
from electra_es.text import Tokenizer


def load_initial_weights(model: ElectraPretrainer, tokenizer: Tokenizer, source: str) -> str:
    """Gives `model` the weights of `source`; step, moments and data position stay at the start.

    Args:
      model: a built model.
      tokenizer: of the run, whose vocabulary has to be that of the weights.
      source: a model directory of this project, a Hugging Face folder (what
        `electra_es.export.huggingface` writes, or one with a discriminator alone) or the prefix of
        a Google checkpoint, which does not say what vocabulary it was trained with.

    Returns:
      a line on what was loaded.

    Raises:
      UsageError: `source` is none of these, or is of another shape or vocabulary.
    """
    if tf.io.gfile.exists(source + ".index"):
        arrays, step = read_checkpoint(source)
        set_weights(model, arrays, source, require="discriminator")
        return f"weights of {source} (Google checkpoint, step {step}); its vocabulary is not checked"
    if tf.io.gfile.isdir(os.path.join(source, "checkpoints")):
        return _copy_from(source, model, tokenizer, source)
    if any(tf.io.gfile.exists(os.path.join(source, part, CONFIG_FILE))
           for part in ("", "discriminator")):
        with tempfile.TemporaryDirectory() as directory:
            imported = os.path.join(directory, "model")
            import_huggingface(source, imported)
            return _copy_from(imported, model, tokenizer, source)
    raise UsageError(f"--init_checkpoint={source}: expected a model directory, a Hugging Face folder "
                     "or the prefix of a Google checkpoint")


def _copy_from(model_dir: str, model: ElectraPretrainer, tokenizer: Tokenizer, source: str) -> str:
    other, other_tokenizer, _, step = load_model(model_dir)
    if other_tokenizer.vocab != tokenizer.vocab:
        differs = sum(a != b for a, b in zip(other_tokenizer.vocab, tokenizer.vocab,
                                             strict=False))
        raise UsageError(
            f"--init_checkpoint={source}: {len(other_tokenizer.vocab)} pieces, the run has "
            f"{len(tokenizer.vocab)}, and {differs} of them differ: expected the same vocabulary "
            f"({', '.join(SPECIAL_TOKENS)} included)")
    kept = set_weights(model, get_weights(other), source, require="discriminator")
    without = f"; {len(kept)} generator variables are new" if kept else ""
    return f"weights of {source} (step {step}){without}"
