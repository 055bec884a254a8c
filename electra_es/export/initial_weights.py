"""Weights from which a new run starts (`--init_checkpoint`); resuming a run is not done here."""

import os

from electra_es import files
from electra_es.errors import UsageError
from electra_es.export.google_checkpoint import read_checkpoint
from electra_es.export.huggingface.read import load_folder, read_source_configs
from electra_es.model.pretrainer import ElectraPretrainer
from electra_es.model.variables import (
    DISCRIMINATOR_PREFIXES,
    get_resolved_weights,
    get_weights,
    named_variables,
    set_weights,
)
from electra_es.run_config import CONFIG_FILE
from electra_es.text.tokenizer import Tokenizer
from electra_es.training.run_dir import load_model

_OWN_EMBEDDINGS = "generator/embeddings/"


def load_initial_weights(model: ElectraPretrainer, tokenizer: Tokenizer, source: str) -> str:
    """Sets the weights of `model` to those of `source`; step, moments and data position stay at 0.

    Args:
      model: a built model.
      tokenizer: of the run; the weights need the same vocabulary.
      source: a model directory of this project, a Hugging Face folder (what
        `electra_es.export.huggingface` writes, or one with only a discriminator) or the prefix of
        a Google checkpoint. The latter does not name its vocabulary, so it is not checked.

    Returns:
      a line that says what was loaded.

    Raises:
      UsageError: `source` is none of these, or has another shape or vocabulary.
    """
    if files.exists(source + ".index"):
        arrays, step = read_checkpoint(source)
        set_weights(model, arrays, source, require="discriminator")
        return f"weights of {source} (Google checkpoint, step {step}); its vocabulary is not checked"
    new: list[str] = []
    if files.is_directory(os.path.join(source, "checkpoints")):
        other, other_tokenizer, _, step = load_model(source)
        kind = f"step {step}"
        imported = read_source_configs(source)
        if imported and "generator" not in imported:  # the import drew one, which nobody has trained
            new = [name for name in named_variables(other)
                   if not name.startswith(DISCRIMINATOR_PREFIXES)]
    elif any(files.exists(os.path.join(source, part, CONFIG_FILE))
             for part in ("", "discriminator", "generator")):
        other, other_tokenizer, _, _, new = load_folder(source)
        kind = "Hugging Face"
    else:
        raise UsageError(f"--init_checkpoint={source}: expected a model directory, a Hugging Face "
                         "folder or the prefix of a Google checkpoint")
    if other_tokenizer.vocab != tokenizer.vocab:
        pairs = zip(other_tokenizer.vocab, tokenizer.vocab, strict=False)
        raise UsageError(
            f"--init_checkpoint={source}: {len(other_tokenizer.vocab)} pieces, the run has "
            f"{len(tokenizer.vocab)}, and {sum(a != b for a, b in pairs)} of them differ: expected "
            "the same vocabulary")
    ours = named_variables(model)
    deltas = any(name.endswith("_delta") for name in ours)
    arrays = get_weights(other) if deltas else get_resolved_weights(other)
    without = f"; {len(new)} variables that it lacks are new" if new else ""
    own = [name for name in arrays if name.startswith(_OWN_EMBEDDINGS) and name not in ours]
    if own:
        without += "; its generator's own embeddings are left out, as the run shares one table"
    arrays = {name: array for name, array in arrays.items() if name not in (*new, *own)}
    set_weights(model, arrays, source, require="discriminator")
    return f"weights of {source} ({kind}){without}"
