"""Export of a fine-tuned model as one Hugging Face folder."""

import dataclasses
import os

import tensorflow as tf
from safetensors.numpy import load

from electra_es import files
from electra_es.export.compare import PROBES, Comparison, tokenized
from electra_es.export.huggingface.names import encoder_table
from electra_es.export.huggingface.read import WEIGHTS_FILE
from electra_es.export.huggingface.write import CARD_FILE, tokenizer_files, write_folder
from electra_es.export.model_card import CardOptions
from electra_es.export.output import Exported, new_directory, origin_of
from electra_es.finetuning.export.card import finetuned_card
from electra_es.finetuning.export.transformers_form import (
    Arrays,
    config_json,
    encoder_arrays,
    expected_outputs,
    head_arrays,
    head_of,
)
from electra_es.finetuning.saved import FINETUNED_FILE, Finetuned, load_finetuned
from electra_es.model.pretrainer import build_pretrainer
from electra_es.model.variables import encoder_variables
from electra_es.run_config import CONFIG_FILE
from electra_es.text.tokenizer import load_tokenizer
from electra_es.training.run_dir import vocabulary_facts


def export_finetuned_huggingface(model_dir: str, output: str, *, options: CardOptions = CardOptions(),
                                 overwrite: bool = False) -> Exported:
    """Writes a fine-tuned model as the folder `output`, reads it back and compares.

    Args:
      model_dir: a fine-tuned model, the directory model/ of a trial.
      output: the directory to write; it appears when it is whole and checked.
      options: for the model card.
      overwrite: whether an earlier export there may be replaced.

    Raises:
      UsageError: no such model, labels that transformers' head cannot hold, or `output` exists or
        cannot be written.
      CheckFailed: what was read back differs from the model; nothing is left behind.
    """
    finetuned = load_finetuned(model_dir)
    origin = origin_of(model_dir, finetuned.step, FINETUNED_FILE)
    arrays = {**encoder_arrays(finetuned), **head_arrays(finetuned, f"--model_dir={model_dir}")}
    with new_directory(output, overwrite=overwrite, recognised_by=WEIGHTS_FILE) as scratch:
        card = finetuned_card(finetuned, model_dir, options=options,
                              parameters=sum(array.size for array in arrays.values()))
        write_folder(scratch, arrays, {
            **tokenizer_files(model_dir, finetuned.tokenizer, finetuned.config.max_seq_length),
            CONFIG_FILE: files.json_bytes(config_json(finetuned)), CARD_FILE: card.encode("utf-8")})
        origin.write(scratch)
        compared = Comparison("the exported model")
        _compare(compared, finetuned, scratch)
    return Exported([f"{finetuned.task.name}"], origin, compared.lines)


def _compare(compared: Comparison, finetuned: Finetuned, folder: str) -> None:
    """Compares tokens, and what transformers' head gives on the tensors that were read back."""
    length = finetuned.config.max_seq_length
    probes = tokenized(PROBES, finetuned.tokenizer, length)
    compared.equal("tokens", tokenized(PROBES, load_tokenizer(folder), length).ids, probes.ids)
    arrays = load(files.read_bytes(os.path.join(folder, WEIGHTS_FILE)))
    logits = finetuned.model(probes.ids, probes.input_mask, probes.segments).numpy()
    found = _outputs(finetuned, arrays, *probes)
    real = probes.input_mask > 0 if logits.ndim == 3 else slice(None)  # padding is not compared
    name = "scores" if finetuned.task.kind == "regression" else "logits"
    compared.close(name, found[real], expected_outputs(finetuned, logits)[real])


def _outputs(finetuned: Finetuned, arrays: Arrays, ids: tf.Tensor, mask: tf.Tensor, segments: tf.Tensor):
    """The outputs of a model that is built anew out of the tensors of a folder."""
    config = finetuned.model_config
    if config.embedding_sharing == "gradient_disentangled":
        config = dataclasses.replace(config, embedding_sharing="tied")  # deltas are added up
    model = build_pretrainer(config, vocabulary_facts(finetuned.tokenizer))
    variables = encoder_variables(model.embeddings, model.discriminator)
    for row in encoder_table("discriminator", config):
        array = arrays[row.name]
        variables[row.canonical].assign(array.T if row.transposed else array)
    sequence = model.encode(ids, mask, segments).layers[-1].numpy()
    return head_of(finetuned.task.kind, arrays, sequence)
