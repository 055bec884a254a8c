"""Fine-tuned models that take strings: what the kinds have in common, and whole texts.

Shapes: B texts, L tokens of the longest row, C labels.
"""

import tensorflow as tf

from electra_es.finetuning.export.transformers_form import expected_outputs
from electra_es.finetuning.heads import probabilities
from electra_es.finetuning.saved import Finetuned

Tensors = dict[str, tf.Tensor]


def strings(name: str, rank: int = 1) -> tf.TensorSpec:
    return tf.TensorSpec([None] * rank, tf.string, name=name)


class TaskModel(tf.Module):
    """A fine-tuned model in a graph.

    Attributes:
      functions: the signatures by name, compiled.
    """

    def __init__(self, finetuned: Finetuned):
        super().__init__()
        # A lambda keeps the layer out of the object graph, as in `TextModel`.
        model = finetuned.model
        self._layer = lambda: model
        self._outputs = lambda logits: expected_outputs(finetuned, logits)
        self.variables_used = list(model.variables)
        self.tokenizer = finetuned.tokenizer
        self.kind = finetuned.task.kind
        self.max_length = finetuned.config.max_seq_length
        self.labels = tf.constant(finetuned.task.labels, tf.string, [len(finetuned.task.labels)])
        self.functions = {"score_ids": tf.function(self.score_ids, input_signature=[
            tf.TensorSpec([None, None], tf.int32, name=name)
            for name in ("input_ids", "input_mask", "segment_ids")])}

    def score_ids(self, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor) -> Tensors:
        """What the head gives for int32 [B, L] ids, without preparation.

        Returns:
          `logits` float32 [B, L, C] (tagging) or [B, C] (classification), `scores` [B] in the task's
          range (regression), `start_logits` and `end_logits` [B, L] (questions).
        """
        logits = self._layer()(input_ids, input_mask, segment_ids)
        if self.kind == "regression":
            return {"scores": self._outputs(logits[:, 0])}
        if self.kind == "question_answering":
            return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}
        return {"logits": logits}

    def run_rows(self, ids: tf.RaggedTensor, segments: tf.RaggedTensor | None = None) -> Tensors:
        """`score_ids` for rows of different lengths, padded to the longest."""
        dense = ids.to_tensor(self.tokenizer.pad_id)
        mask = tf.sequence_mask(ids.row_lengths(), tf.shape(dense)[1], tf.int32)
        second = tf.zeros_like(dense) if segments is None else segments.to_tensor(0)
        return self.score_ids(dense, mask, second)

    def pieces(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """int32 ids of each text; [UNK] where the normalisation leaves nothing."""
        ids = self.tokenizer.tokenize(texts)
        empty = tf.cast(ids.row_lengths() == 0, tf.int64)
        unknown = tf.fill([tf.reduce_sum(empty)], self.tokenizer.unk_id)
        return tf.concat([ids, tf.RaggedTensor.from_row_lengths(unknown, empty)], axis=1)

    def named(self, logits: tf.Tensor) -> Tensors:
        """`labels`, `label_ids` and `probabilities` of logits."""
        best = tf.argmax(logits, axis=-1, output_type=tf.int32)
        return {"labels": tf.gather(self.labels, best), "label_ids": best, "logits": logits,
                "probabilities": probabilities(self.kind, logits)}


class WholeTextModel(TaskModel):
    """Classification (`classify`) and regression (`rate`) of texts, or of pairs of texts."""

    def __init__(self, finetuned: Finetuned):
        super().__init__(finetuned)
        inputs = [strings("texts")]
        if "text_pair" in finetuned.task.columns:
            inputs.append(strings("text_pairs"))
        name = "classify" if self.kind == "classification" else "rate"
        self.functions[name] = tf.function(self.score_texts, input_signature=inputs)

    def score_texts(self, texts: tf.Tensor, text_pairs: tf.Tensor | None = None) -> Tensors:
        """Scores texts. Of a pair that is too long, the longer text loses its end, piece by piece.

        Args:
          texts: string [B].
          text_pairs: string [B], the second texts.

        Returns:
          `labels` string [B], `label_ids` int32 [B], `logits` and `probabilities` float32 [B, C]; or
          `scores` float32 [B] (regression). `truncated` bool [B].
        """
        first = self.pieces(texts)
        if text_pairs is None:
            budget = self.max_length - 2
            kept = [heads(first, tf.minimum(first.row_lengths(), budget))]
            truncated = first.row_lengths() > budget
        else:
            budget = self.max_length - 3
            second = self.pieces(text_pairs)
            a, b = first.row_lengths(), second.row_lengths()
            # One text is as long as it was, or both have half; the first has the odd piece.
            size = tf.minimum(a, tf.maximum(tf.cast((budget + 1) // 2, tf.int64), budget - b))
            kept = [heads(first, size), heads(second, tf.minimum(b, budget - size))]
            truncated = a + b > budget
        rows, segments = joined([self.tokenizer.cls_id, *(
            part for text in kept for part in (text, self.tokenizer.sep_id))])
        found = self.run_rows(rows, segments)
        if self.kind == "classification":
            found = self.named(found["logits"])
        return {**found, "truncated": truncated}


def heads(rows: tf.RaggedTensor, sizes: tf.Tensor) -> tf.RaggedTensor:
    """The first `sizes` values of each row; int64 [B], none of them longer than its row."""
    starts = rows.row_starts()
    return tf.gather(rows.values, tf.ragged.range(starts, starts + sizes))


def joined(parts: list) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
    """Ids and segments of rows out of parts: ragged ids, or a number for one special token a row.

    Segment 0 ends with the first [SEP]: the third part.
    """
    count = next(part for part in parts if not isinstance(part, int)).nrows()
    rows = [tf.RaggedTensor.from_tensor(tf.fill([count, 1], part)) if isinstance(part, int) else part
            for part in parts]
    segments = [tf.ones_like(row) * (0 if i < 3 else 1) for i, row in enumerate(rows)]
    return tf.concat(rows, axis=1), tf.concat(segments, axis=1)
