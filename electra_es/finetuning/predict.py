"""Applying a fine-tuned model to new text; what exporters and other code build on."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from electra_es.finetuning.data import make_features
from electra_es.finetuning.examples import Question, TaggingExample, TextExample
from electra_es.finetuning.predictions import predict
from electra_es.finetuning.questions import Answer
from electra_es.finetuning.saved import Finetuned
from electra_es.finetuning.steps import make_forward


def outputs_for(finetuned: Finetuned, examples: Sequence[Any]) -> list[Any]:
    """The output (see `predictions`) for each example; labels of examples play no part, but have to
    be labels of the task."""
    features = make_features(finetuned.task, finetuned.tokenizer, examples, finetuned.config)
    forward = make_forward(finetuned.model, tf.distribute.get_strategy(),
                           finetuned.config.max_seq_length)
    return predict(finetuned.task, examples, features, forward, finetuned.config)


def tag(finetuned: Finetuned, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
    """The label of each word of each sentence."""
    labels = finetuned.task.labels
    examples = [TaggingExample(tuple(words), (labels[0],) * len(words)) for words in sentences]
    return [[labels[i] for i in output.argmax(axis=-1)] for output in outputs_for(finetuned, examples)]


def classify(finetuned: Finetuned, texts: Sequence[Sequence[str]]) -> list[dict[str, float]]:
    """Label -> probability for each text, or pair of texts."""
    labels = finetuned.task.labels
    examples = [TextExample(tuple(parts), labels[0]) for parts in texts]
    return [dict(zip(labels, output.tolist(), strict=True))
            for output in outputs_for(finetuned, examples)]


def rate(finetuned: Finetuned, texts: Sequence[Sequence[str]]) -> list[float]:
    """The score of each text, or pair of texts, in the task's range."""
    return outputs_for(finetuned, [TextExample(tuple(parts), 0.0) for parts in texts])


def answer(finetuned: Finetuned, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
    """The best answer to each (question, text); `null_difference` says how likely there is none."""
    return outputs_for(finetuned, [Question(str(i), question, context, ())
                                   for i, (question, context) in enumerate(pairs)])
