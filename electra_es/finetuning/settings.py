"""The settings of fine-tuning, and what of them pretraining's optimiser and devices understand."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from electra_es.config import BATCH, DROPOUT, LENGTH, STEPS, PretrainingConfig
from electra_es.settings import Range, check_settings, require, setting

_PIECES = dataclasses.replace(LENGTH, low=1)


def _shared(name: str, default: Any = None, help: str = "") -> Any:
    """The setting of the same name in pretraining, with another default or help text."""
    field = PretrainingConfig.__dataclass_fields__[name]
    return setting(field.default if default is None else default, help or field.metadata["help"],
                   field.metadata["accepts"], may_change=field.metadata["may_change"])


@dataclass(frozen=True)
class FinetuningConfig:
    """One recipe, for any task. The defaults are the model card's (SELECTRA)."""

    max_seq_length: int = setting(
        128, "L: most tokens of a window, [CLS] and [SEP] included.", LENGTH)
    stride: int = setting(
        128, "Questions: pieces from the start of a window over the text to that of the next.", _PIECES)
    max_question_length: int = setting(
        64, "Questions: pieces of the question that are read.", _PIECES)
    max_answer_length: int = setting(30, "Questions: most pieces of an answer.", _PIECES)
    epochs: int = setting(
        5, "Passes over the training split.",
        Range(low=1, high=10_000, why="published recipes have up to 10"))
    train_batch_size: int = _shared("train_batch_size")
    eval_batch_size: int = setting(
        64, "Examples per scoring step, over all replicas.", BATCH, may_change=True)
    learning_rate: float = _shared("learning_rate", 1e-4, "Peak learning rate, that of the head.")
    warmup_fraction: float = setting(
        0.1, "Share of the steps over which the rate is warmed up.",
        Range(low=0, below=1, why="the rate has to come to its peak"))
    lr_schedule: Literal["linear", "cosine", "constant"] = _shared("lr_schedule")
    layer_decay: float = setting(
        0.8, "What a layer's rate is multiplied by for each layer above it; the large size: 0.9; "
        "1: one rate for all.", Range(above=0, high=1, why="lower layers learn slower, not faster"))
    weight_decay: float = _shared("weight_decay")
    adam_beta1: float = _shared("adam_beta1")
    adam_beta2: float = _shared("adam_beta2")
    adam_epsilon: float = _shared("adam_epsilon")
    clip_norm: float = _shared("clip_norm")
    head_dropout: float = setting(
        0.1, "Dropout before the dense layer of a whole-text head.", DROPOUT)

    num_trials: int = setting(
        1, "Trials, each with its own head, order and dropout.",
        Range(low=1, high=1_000, why="each keeps a model"), may_change=True)
    seed: int = _shared(
        "seed", help="Everything random of a trial is derived from it and the trial's number.")
    protocol: Literal["standard", "selectra"] = setting(
        "standard", "standard: watch and select on dev, score test once at the end; selectra: the "
        "test split in the place of dev, as SELECTRA's figures were made.")
    keep: Literal["last", "best"] = setting(
        "last", "Weights that are scored: of the last step, or of the epoch that is best on dev.")
    early_stopping: int = setting(
        0, "Epochs in a row without a better dev metric that end a trial; 0: none do.",
        Range(low=0, high=10_000, why="as many as there may be epochs"))

    deterministic: bool = _shared("deterministic")
    distribution: Literal["auto", "cpu", "gpu", "tpu"] = _shared("distribution")
    cpu_replicas: int = _shared("cpu_replicas")
    precision: Literal["float32", "bfloat16"] = _shared(
        "precision", help="Compute type of the encoder.")
    jit_compile: Literal["auto", "on", "off"] = _shared("jit_compile")
    log_every: int = _shared("log_every")
    save_every: int = setting(
        1_000, "Steps between checkpoints; an epoch ends with one too.", STEPS, may_change=True)
    max_bad_steps: int = _shared("max_bad_steps")

    def __post_init__(self) -> None:
        """Checks each setting, and then what has to hold between them."""
        check_settings(self)
        if self.protocol == "selectra":
            expected = 'no selection with protocol="selectra", which watches test'
            require(self.keep == "last", "keep", self.keep, f'"last": {expected}')
            require(not self.early_stopping, "early_stopping", self.early_stopping, f"0: {expected}")

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
