"""Questions in a graph: the windows and the choice of an answer of `questions.py`.

Shapes: B questions, M windows of all contexts, K windows of the longest context, N pieces of it,
T tokens of the longest window.
"""

import tensorflow as tf

from electra_es.finetuning.export.graph import TaskModel, Tensors, joined, strings
from electra_es.finetuning.saved import Finetuned

_NEVER = float("-inf")


class QuestionModel(TaskModel):
    """Answers out of contexts (`answer`)."""

    def __init__(self, finetuned: Finetuned):
        super().__init__(finetuned)
        config = finetuned.config
        self.stride, self.max_question_length = config.stride, config.max_question_length
        self.max_answer_length = config.max_answer_length
        self.functions["answer"] = tf.function(
            self.answer, input_signature=[strings("questions"), strings("contexts")])

    def answer(self, questions: tf.Tensor, contexts: tf.Tensor) -> Tensors:
        """The best answer to each question; a long context is read in windows that overlap.

        Args:
          questions, contexts: string [B].

        Returns:
          `answers` string [B], a part of `normalized` string [B] (the context after the rules of
          text.json); `offsets` int64 [B, 2], its bytes there, end exclusive; `scores` float32 [B],
          the sum of two logits; `null_differences` float32 [B], by how much the score of having no
          answer is higher. Of an empty context: "" with score -inf.
        """
        asked = self.tokenizer.tokenize(questions)[:, :self.max_question_length]
        ids, begins, finishes = self.tokenizer.tokenize_with_offsets(contexts)
        sizes, offset = ids.row_lengths(), asked.row_lengths() + 2
        budget = self.max_length - offset - 1
        counts = 1 + (tf.maximum(sizes - budget, 0) + self.stride - 1) // self.stride
        starts = tf.ragged.range(counts) * self.stride  # [B, K]
        example = starts.value_rowids()
        start, end = starts.values, tf.minimum(starts.values + tf.gather(budget, example),
                                               tf.gather(sizes, example))
        base = tf.gather(ids.row_starts(), example)
        part = tf.gather(ids.values, tf.ragged.range(base + start, base + end))
        rows, segments = joined([self.tokenizer.cls_id, tf.gather(asked, example),
                                 self.tokenizer.sep_id, part, self.tokenizer.sep_id])
        logits = self.run_rows(rows, segments)

        # [M, T]: the piece of the context at each token, and whether there is one.
        tokens = tf.range(tf.shape(logits["end_logits"])[1], dtype=tf.int64)
        piece = tokens - tf.gather(offset, example)[:, tf.newaxis] + start[:, tf.newaxis]
        inside = (piece >= start[:, tf.newaxis]) & (piece < end[:, tf.newaxis])
        owners = _owners(starts.to_tensor(tf.int64.max // 2), sizes, budget)
        window = start // self.stride
        owned = tf.gather(tf.gather(owners, example), tf.where(inside, piece, 0), batch_dims=1)
        scores, last = self._best_ends(logits, inside, inside & (owned == window[:, tf.newaxis]))

        def of_examples(values: tf.Tensor, filler: float) -> tf.Tensor:
            """[M, T] -> [B, K * T]"""
            dense = tf.RaggedTensor.from_row_lengths(values, counts).to_tensor(filler)
            return tf.reshape(dense, [tf.shape(counts)[0], -1])

        scores = of_examples(scores, _NEVER)
        best = tf.argmax(scores, axis=1)
        score = tf.gather(scores, best, batch_dims=1)
        null = tf.math.segment_min(logits["start_logits"][:, 0] + logits["end_logits"][:, 0], example)
        normalized = self.tokenizer.normalize(contexts)
        bytes_of = [tf.where(score > _NEVER, _value(values, tf.gather(
            of_examples(places, 0), best, batch_dims=1)), 0)
            for values, places in ((begins, piece), (finishes, piece + last))]
        return {"answers": tf.strings.substr(normalized, bytes_of[0], bytes_of[1] - bytes_of[0]),
                "offsets": tf.stack(bytes_of, axis=1), "scores": score,
                "null_differences": null - score, "normalized": normalized}

    def _best_ends(self, logits: Tensors, inside: tf.Tensor, allowed: tf.Tensor
                   ) -> tuple[tf.Tensor, tf.Tensor]:
        """For an answer that begins at each token: its score [M, T], and the pieces after its first
        [M, T]."""
        reach = self.max_answer_length
        ends = tf.pad(tf.where(inside, logits["end_logits"], _NEVER), [[0, 0], [0, reach - 1]],
                      constant_values=_NEVER)
        width = tf.shape(inside)[1]
        ahead = tf.stack([ends[:, i:i + width] for i in range(reach)], axis=-1)
        scores = tf.where(allowed, logits["start_logits"] + tf.reduce_max(ahead, axis=-1), _NEVER)
        return scores, tf.argmax(ahead, axis=-1)


def _owners(starts: tf.Tensor, sizes: tf.Tensor, budget: tf.Tensor) -> tf.Tensor:
    """int64 [B, N]: the window with most context around each piece, as `questions._owners`.

    Args:
      starts: int64 [B, K]; beyond any context where there is no window.
      sizes: int64 [B], pieces of each context.
      budget: int64 [B], most pieces of a window.
    """
    start = starts[:, :, tf.newaxis]
    end = tf.minimum(start + budget[:, tf.newaxis, tf.newaxis], sizes[:, tf.newaxis, tf.newaxis])
    piece = tf.range(tf.maximum(tf.reduce_max(sizes), 1))
    context = (tf.cast(tf.minimum(piece - start, end - 1 - piece), tf.float64)
               + 0.01 * tf.cast(end - start, tf.float64))
    return tf.argmax(tf.where((piece >= start) & (piece < end), context, _NEVER), axis=1)


def _value(rows: tf.RaggedTensor, places: tf.Tensor) -> tf.Tensor:
    """The value at a place of each row; 0 where there is no such place."""
    dense = rows.to_tensor()
    dense = tf.pad(dense, [[0, 0], [0, 1]])
    last = tf.cast(tf.shape(dense)[1], places.dtype) - 1
    return tf.gather(dense, tf.clip_by_value(places, 0, last), batch_dims=1)
