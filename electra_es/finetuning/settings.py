"""The settings of fine-tuning, and what of them pretraining's optimiser and devices understand."""

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Any, Literal

from electra_es.config import PretrainingConfig, setting
from electra_es.errors import UsageError, nearest_hint


@dataclass(frozen=True)
class FinetuningConfig:
    """One recipe, for any task. The defaults are the model card's (SELECTRA)."""

    max_seq_length: int = setting(128, "L: most tokens of a window, [CLS] and [SEP] included.")
    stride: int = setting(
        128, "Questions: pieces from the start of a window over the text to that of the next.")
    max_question_length: int = setting(64, "Questions: pieces of the question that are read.")
    max_answer_length: int = setting(30, "Questions: most pieces of an answer.")
    epochs: int = setting(5, "Passes over the training split.")
    train_batch_size: int = setting(32, "Examples per optimiser step, over all replicas.")
    eval_batch_size: int = setting(64, "Examples per scoring step, over all replicas.",
                                   may_change=True)
    learning_rate: float = setting(1e-4, "Peak learning rate, that of the head.")
    warmup_fraction: float = setting(0.1, "Share of the steps over which the rate is warmed up.")
    lr_schedule: Literal["linear", "cosine", "constant"] = setting(
        "linear", "Decay that the warm-up multiplies.")
    layer_decay: float = setting(
        0.8, "What a layer's rate is multiplied by for each layer above it; the large size: 0.9; "
        "1: one rate for all.")
    weight_decay: float = setting(0.01, "Decoupled decay of kernels and embeddings.")
    adam_beta1: float = setting(0.9, "Decay of Adam's first moment.")
    adam_beta2: float = setting(0.999, "Decay of Adam's second moment.")
    adam_epsilon: float = setting(1e-6, "Added outside the root of the second moment.")
    clip_norm: float = setting(1.0, "Global norm that gradients are clipped to; 0: no clipping.")
    head_dropout: float = setting(0.1, "Dropout before the dense layer of a whole-text head.")

    num_trials: int = setting(1, "Trials, each with its own head, order and dropout.",
                              may_change=True)
    seed: int = setting(42, "Everything random of a trial is derived from it and the trial's number.")
    protocol: Literal["standard", "selectra"] = setting(
        "standard", "standard: watch and select on dev, score test once at the end; selectra: the "
        "test split in the place of dev, as SELECTRA's figures were made.")
    keep: Literal["last", "best"] = setting(
        "last", "Weights that are scored: of the last step, or of the epoch that is best on dev.")
    early_stopping: int = setting(
        0, "Epochs in a row without a better dev metric that end a trial; 0: none do.")

    deterministic: bool = setting(False, "Ask TensorFlow for deterministic kernels (slower).",
                                  may_change=True)
    distribution: Literal["auto", "cpu", "gpu", "tpu"] = setting(
        "auto", "Devices; auto: TPU if --tpu is given, else GPUs if there are any, else CPU.",
        may_change=True)
    cpu_replicas: int = setting(1, "Virtual CPU replicas with distribution=cpu (for tests).",
                                may_change=True)
    precision: Literal["float32", "bfloat16"] = setting("float32", "Compute type of the encoder.")
    jit_compile: Literal["auto", "on", "off"] = setting(
        "auto", "Compile the step with XLA; auto: on GPU. On TPU it always is.", may_change=True)
    log_every: int = setting(50, "Steps between progress lines.", may_change=True)
    save_every: int = setting(1_000, "Steps between checkpoints; an epoch ends with one too.",
                              may_change=True)
    max_bad_steps: int = setting(10, "Non-finite steps in a row that end the run.",
                                 may_change=True)

    def __post_init__(self) -> None:
        _check_types(self)
        for name in ("stride", "max_question_length", "max_answer_length", "epochs",
                     "train_batch_size", "eval_batch_size", "num_trials", "cpu_replicas",
                     "log_every", "save_every", "max_bad_steps"):
            _require(getattr(self, name) > 0, self, name, "a positive number")
        _require(self.max_seq_length >= 8, self, "max_seq_length", "at least 8")
        for name in ("learning_rate", "adam_epsilon"):
            _require(getattr(self, name) > 0, self, name, "a positive number")
        for name in ("weight_decay", "clip_norm", "early_stopping", "seed"):
            _require(getattr(self, name) >= 0, self, name, "0 or more")
        for name in ("adam_beta1", "adam_beta2", "head_dropout", "warmup_fraction"):
            _require(0 <= getattr(self, name) < 1, self, name, "a share from 0 to below 1")
        _require(0 < self.layer_decay <= 1, self, "layer_decay", "a share above 0 and at most 1")
        if self.protocol == "selectra":
            expected = 'no selection with protocol="selectra", which watches test'
            _require(self.keep == "last", self, "keep", f'"last": {expected}')
            _require(not self.early_stopping, self, "early_stopping", f"0: {expected}")

    @property
    def watched_split(self) -> str:
        """The split that is scored after each epoch."""
        return "test" if self.protocol == "selectra" else "dev"

    def for_training(self, num_steps: int) -> PretrainingConfig:
        """The settings of the optimiser, the schedule, the devices and the progress line, which
        fine-tuning shares with pretraining."""
        own = {field.name for field in dataclasses.fields(self)}
        shared = {field.name: getattr(self, field.name)
                  for field in dataclasses.fields(PretrainingConfig) if field.name in own}
        return PretrainingConfig(**shared, num_train_steps=num_steps,
                                 warmup_steps=round(self.warmup_fraction * num_steps))


def _require(holds: bool, config: Any, name: str, expected: str) -> None:
    if not holds:
        raise UsageError(f"{name}={getattr(config, name)!r}: expected {expected}")


def _check_types(config: Any) -> None:
    """Checks the types of values that come from JSON."""
    for name, kind in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if typing.get_origin(kind) is Literal:
            choices = typing.get_args(kind)
            hint = nearest_hint(value, choices) if isinstance(value, str) else ""
            _require(value in choices, config, name, f"one of {', '.join(choices)}{hint}")
        elif kind is float:
            _require(type(value) in (int, float) and math.isfinite(value), config, name, "a number")
        else:
            _require(type(value) is kind, config, name, f"a value of type {kind.__name__}")
