"""Writes a SavedModel that takes Spanish strings; its graph contains the tokeniser.

    python -m electra_es.export.saved_model --model_dir=runs/sample/model --output=runs/saved_model

    import tensorflow as tf, tensorflow_text
    model = tf.saved_model.load("runs/saved_model")
    model.signatures["detect"](texts=tf.constant(["Estamos desayunando pan rosa."]))["logits"]

Shapes: B sentences, L tokens of the longest one with [CLS] and [SEP], H hidden, M masks.
"""

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the tokeniser's operations for reloading

from electra_es import files
from electra_es.config import SPECIAL_TOKENS
from electra_es.errors import quiet_libraries, run_main
from electra_es.export.compare import MASK_PROBES, PROBES, Comparison, mask_logits, tokenized
from electra_es.export.output import Exported, new_directory, origin_of, run_export
from electra_es.model.masking import gather_positions
from electra_es.model.pretrainer import ElectraPretrainer
from electra_es.run_config import Run
from electra_es.text.tokenizer import Tokenizer
from electra_es.training.run_dir import load_model

NUM_CANDIDATES = 10
# Smaller probabilities are not compared by their logarithms; float32 reaches down to 1e-38.
_SMALLEST = np.float32(1e-30)

Tensors = dict[str, tf.Tensor]

_TEXTS = tf.TensorSpec([None], tf.string, name="texts")


class Batch(NamedTuple):
    """Tokenised sentences; the segment of every token is 0."""

    ids: tf.Tensor  # int32 [B, L], padded with [PAD]
    input_mask: tf.Tensor  # int32 [B, L], 1 for tokens, 0 for padding
    truncated: tf.Tensor  # bool [B], whether the end of the sentence was cut off


def usable_length(run: Run) -> int:
    """The longest input of a model: positions beyond the run's length were never trained."""
    return min(run.pretraining.max_seq_length, run.model.max_position_embeddings)


class TextModel(tf.Module):
    """A model that takes strings.

    Attributes:
      functions: the signatures by name; each is the compiled method of that name. `detect` and
        `score_ids` exist only with a discriminator, `fill_mask` only with a generator.
    """

    def __init__(self, model: ElectraPretrainer, tokenizer: Tokenizer, max_length: int):
        """`max_length`: longer sentences are cut to this number of tokens, including [CLS] and [SEP]."""
        super().__init__()
        # A lambda keeps the layer out of the object graph. Otherwise Keras would write its own traced
        # copy of every sublayer into a SavedModel, and loading would need tf_keras.
        self._layer = lambda: model
        self.variables_used = list(model.variables)
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._pieces = tf.constant(tokenizer.vocab)
        self._word_starts = tf.constant(tokenizer.word_starts)
        special = [tokenizer.vocab.index(token) for token in SPECIAL_TOKENS if token != "[UNK]"]
        self._special_ids = tf.constant(special, tf.int32)
        self.functions = {"encode": tf.function(self.encode, input_signature=[_TEXTS])}
        if model.discriminator_head is not None:
            self.functions["detect"] = tf.function(self.detect, input_signature=[_TEXTS])
            self.functions["score_ids"] = tf.function(self.score_ids, input_signature=[
                tf.TensorSpec([None, None], tf.int32, name=name)
                for name in ("input_ids", "input_mask", "segment_ids")])
        if model.mlm_head is not None:
            self.functions["fill_mask"] = tf.function(self.fill_mask, input_signature=[_TEXTS])

    def detect(self, texts: tf.Tensor) -> Tensors:
        """Which tokens look replaced.

        Returns:
          `tokens` string, `token_ids` and `mask` int32, `logits` and `probabilities` float32, all
          [B, L]; a logit above 0 is a probability above 0.5 that the token was replaced.
          `words` int32 [B, L]: the number of the word that a token belongs to; -1: special token.
          `offsets` int64 [B, L, 2]: bytes of `normalized` that a token covers, end exclusive.
          `normalized` string [B]; `truncated` bool [B].
        """
        normalized = self.tokenizer.normalize(texts)
        ids, starts, ends = self.tokenizer.tokenize_with_offsets(texts)
        batch = self._batch(ids)
        logits = self._layer().discriminator_logits(batch.ids, batch.input_mask, tf.zeros_like(batch.ids))
        return {
            "tokens": tf.gather(self._pieces, batch.ids),
            "token_ids": batch.ids,
            "mask": batch.input_mask,
            "words": self._words(batch.ids),
            "logits": logits,
            "probabilities": tf.sigmoid(logits),
            "offsets": tf.stack([self._cut_with_edges(starts, 0).to_tensor(),
                                 self._cut_with_edges(ends, 0).to_tensor()], axis=-1),
            "normalized": normalized,
            "truncated": batch.truncated,
        }

    def encode(self, texts: tf.Tensor) -> Tensors:
        """Embeddings.

        Returns:
          `sequence` float32 [B, L, H], the discriminator's last layer; `pooled` float32 [B, H], its
          mean over all tokens, [CLS] and [SEP] included; `token_ids` and `mask` int32 [B, L].
        """
        batch = self._batch(self.tokenizer.tokenize(texts))
        output = self._layer().encode(batch.ids, batch.input_mask, tf.zeros_like(batch.ids))
        sequence = tf.cast(output.layers[-1], tf.float32)
        weights = tf.cast(batch.input_mask, tf.float32)[:, :, tf.newaxis]
        pooled = tf.reduce_sum(sequence * weights, axis=1) / tf.reduce_sum(weights, axis=1)
        return {"sequence": sequence, "pooled": pooled, "token_ids": batch.ids, "mask": batch.input_mask}

    def score_ids(self, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor) -> Tensors:
        """`logits` and `probabilities` float32 [B, L] for int32 [B, L] ids, without preparation."""
        logits = self._layer().discriminator_logits(input_ids, input_mask, segment_ids)
        return {"logits": logits, "probabilities": tf.sigmoid(logits)}

    def fill_mask(self, texts: tf.Tensor) -> Tensors:
        """The generator's candidates for every "[MASK]" in the texts.

        Returns:
          `tokens` string, `token_ids` int32 and `probabilities` float32, [B, M, NUM_CANDIDATES],
          best first; `positions` int32 [B, M] of the masked tokens; -1 fills up shorter rows.
        """
        parts = tf.strings.split(texts, "[MASK]")
        ids = self.tokenizer.tokenize(parts.flat_values)
        masks = tf.fill([ids.nrows(), 1], self.tokenizer.mask_id)
        ids = parts.with_values(tf.concat([masks, ids], axis=1)).merge_dims(1, 2)
        batch = self._batch(ids[:, 1:])
        is_mask = batch.ids == self.tokenizer.mask_id
        places = tf.broadcast_to(tf.range(tf.shape(batch.ids)[1]), tf.shape(batch.ids))
        positions = tf.ragged.boolean_mask(places, is_mask).to_tensor(-1)
        model = self._layer()
        assert model.mlm_head is not None, "a model without a generator"
        sequence = model.generator_sequence(batch.ids, batch.input_mask, tf.zeros_like(batch.ids))
        logits = model.mlm_head(gather_positions(sequence, tf.maximum(positions, 0)),
                                model.generator_embeddings.word_table)
        probabilities, best = tf.math.top_k(tf.nn.softmax(logits), NUM_CANDIDATES)
        exists = (positions >= 0)[:, :, tf.newaxis]
        best = tf.where(exists, best, self.tokenizer.pad_id)
        return {"tokens": tf.gather(self._pieces, best), "token_ids": best,
                "probabilities": tf.where(exists, probabilities, 0.0), "positions": positions}

    def _cut_with_edges(self, values: tf.RaggedTensor, edge: int, last: int | None = None
                        ) -> tf.RaggedTensor:
        """Cuts rows to the usable length and puts `edge` before and `last` (or `edge`) after."""
        values = values[:, :self.max_length - 2]
        shape = [values.nrows(), 1]
        before = tf.fill(shape, tf.cast(edge, values.dtype))
        after = tf.fill(shape, tf.cast(edge if last is None else last, values.dtype))
        return tf.concat([before, values, after], axis=1)

    def _batch(self, ids: tf.RaggedTensor) -> Batch:
        rows = self._cut_with_edges(ids, self.tokenizer.cls_id, self.tokenizer.sep_id)
        dense = rows.to_tensor(self.tokenizer.pad_id)
        mask = tf.sequence_mask(rows.row_lengths(), tf.shape(dense)[1], tf.int32)
        return Batch(dense, mask, ids.row_lengths() > self.max_length - 2)

    def _words(self, ids: tf.Tensor) -> tf.Tensor:
        special = tf.reduce_any(ids[:, :, tf.newaxis] == self._special_ids, axis=-1)
        starts = tf.gather(self._word_starts, ids) & ~special
        # A sentence whose first piece continues a word (not with our vocabularies) begins with word 0.
        words = tf.maximum(tf.cumsum(tf.cast(starts, tf.int32), axis=1) - 1, 0)
        return tf.where(special, -1, words)


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
        _save(text_model, scratch)
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


def _save(text_model: TextModel, path: str) -> None:
    # TensorFlow warns about functions that cannot be called after loading. Signatures can.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        tf.saved_model.save(text_model, path, signatures=dict(text_model.functions))
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


def main() -> None:
    run_export(export_saved_model, "SavedModel", "reloaded")


if __name__ == "__main__":
    run_main(main)
