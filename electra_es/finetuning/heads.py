"""Task heads: one dense layer over the encoder's output, and the loss of each kind of task.

    kind                 takes             logits      labels          weights
    tagging              every piece       [B, L, C]   int32 [B, L]    [B, L], 1 for what is scored
    question_answering   every piece       [B, L, 2]   int32 [B, 2]    [B]
    classification       [CLS], dropout    [B, C]      int32 [B]       [B]
    regression           [CLS], dropout    [B, 1]      float32 [B]     [B]

Shapes: B batch, L length, H hidden, C labels.
Source: `finetune/{classification,tagging,qa}` of google-research/electra; model card of SELECTRA.
"""

import math

import tensorflow as tf
import tf_keras

from electra_es.finetuning.batches import Batch
from electra_es.model.dense import Dense

PER_TOKEN = ("tagging", "question_answering")
_OF_HEAD = 0x4EAD  # sets the head's dropout apart from that of the encoder under one seed


def num_outputs(kind: str, num_labels: int) -> int:
    """Width of the head: start and end for questions, one number for regression."""
    return {"question_answering": 2, "regression": 1}.get(kind, num_labels)


class Head(tf_keras.layers.Layer):
    """Dense layer over [CLS], after dropout, or over every piece: [B, L, H] -> float32 logits."""

    def __init__(self, kind: str, num_labels: int, dropout: float):
        super().__init__(name="head")
        self.kind, self.rate = kind, dropout
        # Glorot's initialiser, as the original names none; `draw` sets the values.
        self.dense = Dense(num_outputs(kind, num_labels), name="dense")

    def call(self, sequence: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """
        Args:
          sequence: [B, L, H].
          seed: int32 [2] of the step's dropout; None: no dropout.
        """
        if self.kind not in PER_TOKEN:
            sequence = sequence[:, 0]
            if seed is not None and self.rate:
                sequence = tf.nn.experimental.stateless_dropout(
                    sequence, self.rate,
                    tf.random.experimental.stateless_fold_in(seed, _OF_HEAD))
        return tf.cast(self.dense(sequence), tf.float32)

    def draw(self, seed: tuple[int, int]) -> None:
        """Sets the kernel to Glorot's uniform numbers, derived from `seed`, and the bias to 0."""
        shape = self.dense.kernel.shape
        limit = math.sqrt(6 / sum(shape))
        self.dense.kernel.assign(tf.random.stateless_uniform(shape, seed, -limit, limit))
        self.dense.bias.assign(tf.zeros_like(self.dense.bias))


def losses(kind: str, logits: tf.Tensor, batch: Batch) -> tf.Tensor:
    """The loss of each prediction, float32, of the shape of `batch.weights`."""
    if kind == "regression":
        return tf.square(logits[:, 0] - batch.labels)
    if kind == "question_answering":
        # [B, L, 2] -> [B, 2, L]: a choice among the positions for the start, and one for the end.
        padding = 1.0 - tf.cast(batch.input_mask, tf.float32)
        logits = tf.transpose(logits, [0, 2, 1]) - 1e9 * padding[:, tf.newaxis]
    found = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=batch.labels, logits=logits)
    return tf.reduce_mean(found, axis=1) if kind == "question_answering" else found


def probabilities(kind: str, logits: tf.Tensor) -> tf.Tensor:
    """Softmax over labels; for the other kinds the logits themselves."""
    return tf.nn.softmax(logits) if kind in ("tagging", "classification") else logits
