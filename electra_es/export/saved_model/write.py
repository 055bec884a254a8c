"""Export of a model directory as a SavedModel."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from electra_es import files
from electra_es.errors import quiet_libraries
from electra_es.export.compare import MASK_PROBES, PROBES, Comparison, mask_logits, tokenized
from electra_es.export.output import Exported, new_directory, origin_of
from electra_es.export.saved_model.text_model import (
    NUM_CANDIDATES,
    Tensors,
    TextModel,
    usable_length,
)
from electra_es.model.pretrainer import ElectraPretrainer
from electra_es.training.run_dir import load_model

# Smaller probabilities are not compared by their logarithms; float32 reaches down to 1e-38.
_SMALLEST = np.float32(1e-30)


def export_saved_model(model_dir: str, output: str, *, overwrite: bool = False) -> Exported:
    """Writes the model of `model_dir` as a SavedModel and compares it, reloaded, with its source.

    Args:
      model_dir: a model directory with a checkpoint.
      output: the directory to write; it appears when it is whole and checked.
      overwrite: whether an earlier SavedModel there may be replaced.

    Raises:
      UsageError: no such model, or `output` exists or cannot be written.
      CheckFailed: the reloaded SavedModel differs from the model; nothing is left behind.
    """
    model, tokenizer, run, step = load_model(model_dir)
    with new_directory(output, overwrite=overwrite, recognised_by="saved_model.pb") as scratch:
        text_model = TextModel(model, tokenizer, usable_length(run))
        save(text_model, scratch)
        # Quiet as for `SentencePieceTokenizer`.
        with quiet_libraries(), files.no_pattern(scratch) as opened:
            signatures = tf.saved_model.load(opened).signatures
        compared = Comparison("the reloaded SavedModel")
        _compare_encoder(compared, text_model, model, signatures["encode"])
        if model.discriminator_head is not None:
            _compare_discriminator(compared, text_model, model, signatures)
        if model.mlm_head is not None:
            _compare_generator(compared, text_model, model, signatures["fill_mask"])
        origin = origin_of(model_dir, step)
        origin.write(scratch)
    return Exported(list(text_model.functions), origin, compared.lines)


def save(module: Any, path: str) -> None:
    """Writes a module whose signatures are its `functions`."""
    # TensorFlow warns about functions that cannot be called after loading. Signatures can.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        tf.saved_model.save(module, path, signatures=dict(module.functions))
    finally:
        logger.setLevel(level)


def _compare_encoder(compared: Comparison, text_model: TextModel, model: ElectraPretrainer,
                     encode: Callable[..., Tensors]) -> None:
    """Compares with the eager model and the tokeniser of training."""
    probes = tokenized(PROBES, text_model.tokenizer, text_model.max_length)
    found = {name: value.numpy() for name, value in encode(texts=tf.constant(PROBES)).items()}
    compared.equal("tokens", found["token_ids"], probes.ids)
    compared.equal("masks of padding", found["mask"], probes.input_mask)
    layers = model.encode(probes.ids, probes.input_mask, tf.zeros_like(probes.ids)).layers
    sequence, weights = tf.cast(layers[-1], tf.float32).numpy(), probes.input_mask[:, :, np.newaxis]
    real = probes.input_mask > 0  # padding is not compared
    compared.close("embeddings of encode", found["sequence"][real], sequence[real])
    compared.close("means of embeddings of encode", found["pooled"],
                   (sequence * weights).sum(axis=1) / weights.sum(axis=1))


def _compare_discriminator(compared: Comparison, text_model: TextModel, model: ElectraPretrainer,
                           signatures: Mapping[str, Callable[..., Tensors]]) -> None:
    texts = tf.constant(PROBES)
    probes = tokenized(PROBES, text_model.tokenizer, text_model.max_length)
    real = probes.input_mask > 0
    found, eager = signatures["detect"](texts=texts), text_model.detect(texts)
    for name in ("token_ids", "tokens", "words", "offsets", "normalized", "truncated"):
        compared.equal(f"{name} of detect", found[name].numpy(), eager[name].numpy())
    for name, segments in (("detect", np.zeros_like(probes.ids)), ("score_ids", probes.segments)):
        if name == "score_ids":
            found = signatures[name](input_ids=tf.constant(probes.ids), segment_ids=tf.constant(segments),
                                     input_mask=tf.constant(probes.input_mask))
        logits = model.discriminator_logits(probes.ids, probes.input_mask, segments)
        compared.close(f"logits of {name}", found["logits"].numpy()[real], logits.numpy()[real])
        compared.close(f"probabilities of {name}", found["probabilities"].numpy()[real],
                       tf.sigmoid(logits).numpy()[real])


def _compare_generator(compared: Comparison, text_model: TextModel, model: ElectraPretrainer,
                       fill_mask: Callable[..., Tensors]) -> None:
    """Compares logarithms, because all probabilities over a large vocabulary are small."""
    tokenizer = text_model.tokenizer
    probes = tokenized(MASK_PROBES, tokenizer, text_model.max_length)
    found = {name: value.numpy() for name, value in fill_mask(texts=tf.constant(MASK_PROBES)).items()}
    exists = found["positions"] >= 0
    rows, slots = np.nonzero(exists)
    compared.equal("positions of fill_mask", np.stack([rows, found["positions"][rows, slots]]),
                   np.stack(np.nonzero(probes.ids == tokenizer.mask_id)))
    logits = mask_logits(model, probes, np.zeros_like(probes.ids))
    expected = tf.nn.log_softmax(logits).numpy()
    shown = np.log(np.maximum(found["probabilities"][exists], _SMALLEST))
    of_shown = np.take_along_axis(expected, found["token_ids"][exists], axis=1)
    best = -np.sort(-expected, axis=1)[:, :NUM_CANDIDATES]
    for name, values in (("of the tokens that fill_mask shows", of_shown), ("of the best tokens", best)):
        compared.close(f"log probabilities {name}", shown, np.maximum(values, np.log(_SMALLEST)))
