"""Zero-shot classification: for each label, does a text entail a sentence with the label in it?

The scores are those of transformers' pipeline `zero-shot-classification`:

* A pair is `[CLS] text [SEP] hypothesis [SEP]`. Where it is too long, the text loses its end.
* One label of several: softmax over the labels, of the logits of entailment.
* One label only, or several may be true: softmax over contradiction and entailment, for each label.

Texts and hypotheses become tokens once each. The model reads them together, so that its work is that of
every pair; batches have pairs of similar length, and are as long as the longest of them.

Shapes: N texts, C labels, B pairs of a batch, L length, K classes of the model.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from electra_es.errors import UsageError, warn
from electra_es.finetuning.saved import Finetuned, load_finetuned
from electra_es.zero_shot.labels import TEMPLATE, check_labels, check_texts, hypotheses

BATCH_SIZE = 32


class Classified(NamedTuple):
    """A text with its labels, the most likely first. JSON of it has the keys of transformers' output."""

    sequence: str
    labels: list[str]
    scores: list[float]


class ZeroShotClassifier:
    """A model of inference, ready to classify.

    Attributes:
      classes: the names of the model's own classes, by id.
      entailment, contradiction: ids of the two that scores are made of.
    """

    def __init__(self, finetuned: Finetuned, source: str, batch_size: int = BATCH_SIZE) -> None:
        """
        Args:
          source: how the user named the model, for messages: "--model=DIR".
          batch_size: B, most pairs of a batch.

        Raises:
          UsageError: a model that was fine-tuned for something else than inference.
        """
        task = finetuned.task
        if task.kind != "classification" or "text_pair" not in task.columns:
            raise UsageError(f"{source}: fine-tuned for {task.name}: expected a task of "
                             "inference (classification of two texts), such as inferes or xnli_es")
        self.classes = task.labels
        self.entailment, self.contradiction = inference_ids(task.labels, source)
        compared = task.labels[self.contradiction]
        others = [name for name in task.labels if name.lower().startswith("contra")]
        if others and compared not in others:
            warn(f"{source}: a single label, or several that may be true, are scored against the class "
                 f'"{compared}", as transformers does, and not against "{others[0]}"')
        self.batch_size = batch_size
        self._tokenizer, self._max_length = finetuned.tokenizer, finetuned.config.max_seq_length
        ids = tf.TensorSpec([None, None], tf.int32)
        # One program for all shapes: nothing is padded to a fixed number of rows or tokens.
        self._logits = tf.function(
            lambda input_ids, mask, segments: finetuned.model(input_ids, mask, segments),
            input_signature=[ids, ids, ids], autograph=False)

    def __call__(self, texts: Sequence[str], labels: Sequence[str], *, template: str = TEMPLATE,
                 multi_label: bool = False) -> list[Classified]:
        """Classifies texts.

        Args:
          labels: what a text may be, in any words.
          template: a sentence with `{}` in it, where a label goes.
          multi_label: whether several labels may be true of a text.

        Raises:
          UsageError: a template without one slot; no label, an empty one, one twice, or one that leaves
            no room for a text; a text without words.
        """
        labels = check_labels(labels)
        found = scores(self.logits(texts, labels, template), self.entailment, self.contradiction,
                       multi_label=multi_label)
        ordered = []
        for text, row in zip(texts, found, strict=True):
            order = np.argsort(row)[::-1]  # ties too are in transformers' order
            ordered.append(Classified(text, [labels[i] for i in order], row[order].tolist()))
        return ordered

    def logits(self, texts: Sequence[str], labels: Sequence[str], template: str) -> np.ndarray:
        """The model's logits for each text with each label: float32 [N, C, K]. Raises as a call does."""
        check_texts(texts)
        encoded = self._hypotheses(labels, template)
        premises = self._tokenizer.encode_batch(texts)
        rows = [self._pair(premise, hypothesis) for premise in premises for hypothesis in encoded]
        lengths = np.array([sum(map(len, row)) for row in rows])
        values = np.zeros((len(rows), len(self.classes)), np.float32)
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(rows), self.batch_size):
            some = order[start:start + self.batch_size]
            values[some] = self._logits(*_batch([rows[i] for i in some])).numpy()
        return values.reshape(len(texts), len(labels), -1)

    def _hypotheses(self, labels: Sequence[str], template: str) -> list[np.ndarray]:
        encoded = self._tokenizer.encode_batch(hypotheses(labels, template))
        most = self._max_length - 4  # special tokens, and one token of a text
        for label, ids in zip(labels, encoded, strict=True):
            if len(ids) > most:
                raise UsageError(f'--labels: "{label[:60]}" in its template has {len(ids)} tokens: '
                                 f"expected at most {most}, as the model reads {self._max_length} with "
                                 "the text")
        return encoded

    def _pair(self, premise: np.ndarray, hypothesis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The two segments of a pair, with their special tokens."""
        room = self._max_length - len(hypothesis) - 3
        sep = [self._tokenizer.sep_id]
        return (np.concatenate([[self._tokenizer.cls_id], premise[:room], sep]),
                np.concatenate([hypothesis, sep]))


def load_classifier(directory: str, batch_size: int = BATCH_SIZE, flag: str = "--model"
                    ) -> ZeroShotClassifier:
    """Loads the model of a trial of fine-tuning; raises UsageError if it is none of inference.

    Args:
      directory: `model/` of a trial.
      batch_size: most pairs of a batch.
      flag: the one that named the directory, for messages.
    """
    return ZeroShotClassifier(load_finetuned(directory), f"{flag}={directory}", batch_size)


def inference_ids(classes: Sequence[str], source: str) -> tuple[int, int]:
    """The ids of entailment and of contradiction, as transformers chooses them: the first class whose
    name begins with "entail"; and the last class where that one is the first, else the first.

    Raises:
      UsageError: no such class; transformers takes the last one then.
    """
    for i, name in enumerate(classes):
        if name.lower().startswith("entail"):
            return i, len(classes) - 1 if i == 0 else 0
    raise UsageError(f"{source}: classes {', '.join(classes)}: expected one whose name begins "
                     'with "entail"')


def scores(logits: np.ndarray, entailment: int, contradiction: int, *, multi_label: bool) -> np.ndarray:
    """The score of each label of each text: float32 [N, C, K] -> float32 [N, C]."""
    if multi_label or logits.shape[1] == 1:
        return _softmax(logits[..., [contradiction, entailment]])[..., 1]
    return _softmax(logits[..., entailment])


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _batch(rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Ids, mask and segments of pairs, int32 [B, L] each."""
    length = max(len(first) + len(second) for first, second in rows)
    ids, mask, segments = (np.zeros((len(rows), length), np.int32) for _ in range(3))
    for i, (first, second) in enumerate(rows):
        middle, end = len(first), len(first) + len(second)
        ids[i, :middle], ids[i, middle:end] = first, second
        mask[i, :end], segments[i, middle:end] = 1, 1
    return tf.constant(ids), tf.constant(mask), tf.constant(segments)
