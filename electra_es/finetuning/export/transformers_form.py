"""A fine-tuned model in the terms of transformers: `config.json` and tensors, without transformers.

    tagging               ElectraForTokenClassification       classifier.*
    classification        ElectraForSequenceClassification    classifier.dense.*, classifier.out_proj.*
    regression            the same, num_labels=1
    question_answering    ElectraForQuestionAnswering         qa_outputs.*

Two of these heads are a dense layer, as ours. That for whole texts is dense [H, H], GELU, dense [H, C].
It holds ours exactly: the first layer computes our logits z and their negatives -z, and the second
takes GELU(z) - GELU(-z), which is z. So C labels need 2 C of the H places between the layers.

Shapes: B batch, L length, H hidden, C labels.
"""

import math
from typing import Any

import numpy as np
from scipy.special import erf

from electra_es.errors import UsageError
from electra_es.export.huggingface.names import HubConfig, encoder_table, hub_config
from electra_es.export.huggingface.write import renamed
from electra_es.finetuning.heads import PER_TOKEN, num_outputs
from electra_es.finetuning.saved import Finetuned, id2label
from electra_es.model.variables import resolved_encoder_weights

ARCHITECTURES = {
    "tagging": "ElectraForTokenClassification",
    "classification": "ElectraForSequenceClassification",
    "regression": "ElectraForSequenceClassification",
    "question_answering": "ElectraForQuestionAnswering",
}
_LAYER = {"tagging": "classifier", "question_answering": "qa_outputs"}

Arrays = dict[str, np.ndarray]


def config_json(finetuned: Finetuned) -> HubConfig:
    """`config.json`, with the labels by name."""
    task, tokenizer = finetuned.task, finetuned.tokenizer
    config: dict[str, Any] = {
        **hub_config("discriminator", finetuned.model_config, len(tokenizer.vocab), tokenizer.pad_id),
        "architectures": [ARCHITECTURES[task.kind]],
        # Ours drops nothing before a dense layer over every piece.
        "classifier_dropout": 0.0 if task.kind in PER_TOKEN else finetuned.config.head_dropout,
    }
    if task.kind == "regression":
        names = {"0": "score"}
    elif task.kind == "question_answering":
        names = {"0": "start", "1": "end"}
    else:
        names = id2label(task)
    config |= {"id2label": names, "label2id": {name: int(i) for i, name in names.items()}}
    if task.kind in ("classification", "regression"):
        config["problem_type"] = ("regression" if task.kind == "regression"
                                  else "single_label_classification")
    return config


def encoder_arrays(finetuned: Finetuned) -> Arrays:
    """The tensors of the encoder, `electra.*`."""
    model = finetuned.model
    weights = resolved_encoder_weights(model.embeddings, model.discriminator)
    return renamed(weights, encoder_table("discriminator", finetuned.model_config))


def head_layer(finetuned: Finetuned) -> tuple[np.ndarray, np.ndarray]:
    """Our head as one dense layer: kernel float32 [H, C] and bias [C].

    For regression in the range of the task: our model learns scores from 0 to 1.
    """
    dense = finetuned.model.head.dense
    kernel, bias = dense.kernel.numpy(), dense.bias.numpy()
    if finetuned.task.kind == "regression":
        low, high = finetuned.task.score_range
        kernel, bias = kernel * np.float32(high - low), bias * np.float32(high - low) + np.float32(low)
    return kernel, bias


def expected_outputs(finetuned: Finetuned, logits: np.ndarray) -> np.ndarray:
    """What an export gives where our model gives `logits`: scores in the task's range, or the same."""
    if finetuned.task.kind != "regression":
        return logits
    low, high = finetuned.task.score_range
    return low + (high - low) * logits


def head_arrays(finetuned: Finetuned, where: str) -> Arrays:
    """The tensors of the head.

    Args:
      where: what to call the model in an error.

    Raises:
      UsageError: more labels than transformers' head for whole texts can hold.
    """
    kernel, bias = head_layer(finetuned)
    kind = finetuned.task.kind
    if kind in PER_TOKEN:
        return {f"{_LAYER[kind]}.weight": np.ascontiguousarray(kernel.T), f"{_LAYER[kind]}.bias": bias}
    hidden, labels = kernel.shape
    if 2 * labels > hidden:
        raise UsageError(f"{where}: {labels} labels: expected at most {hidden // 2}, half of "
                         f"hidden_size={hidden}: transformers' head for whole texts holds no more "
                         "without a difference; a SavedModel and ONNX do")
    inner, inner_bias = np.zeros((hidden, hidden), np.float32), np.zeros(hidden, np.float32)
    outer = np.zeros((labels, hidden), np.float32)
    for sign, places in ((1, slice(0, labels)), (-1, slice(labels, 2 * labels))):
        inner[places], inner_bias[places] = sign * kernel.T, sign * bias
        outer[:, places] = sign * np.eye(labels, dtype=np.float32)
    return {"classifier.dense.weight": inner, "classifier.dense.bias": inner_bias,
            "classifier.out_proj.weight": outer,
            "classifier.out_proj.bias": np.zeros(labels, np.float32)}


def head_of(kind: str, arrays: Arrays, sequence: np.ndarray) -> np.ndarray:
    """What transformers' head computes: float32 [B, L, H] -> [B, L, C], or [B, C]."""
    if kind in PER_TOKEN:
        name = _LAYER[kind]
        return sequence @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"]
    inner = sequence[:, 0] @ arrays["classifier.dense.weight"].T + arrays["classifier.dense.bias"]
    active = 0.5 * inner * (1 + erf(inner / np.float32(math.sqrt(2))))
    return active @ arrays["classifier.out_proj.weight"].T + arrays["classifier.out_proj.bias"]


def num_labels(finetuned: Finetuned) -> int:
    """C."""
    return num_outputs(finetuned.task.kind, len(finetuned.task.labels))
