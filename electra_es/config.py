"""Configuration: frozen dataclasses, the table of model sizes, JSON in and out.

Three dataclasses own every setting of the project, and no name occurs in two of
them, so that a flat `key=value` (a flag, `--set`, a line of an hparams file)
always has exactly one owner. Command-line flags are derived from the fields
(`flags.py`); a field is written down once, here.
"""

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from electra_es.errors import UsageError, nearest_hint

ConfigT = TypeVar("ConfigT", "TextConfig", "ModelConfig", "PretrainingConfig")


def setting(default: Any, help: str, *, may_change: bool = False) -> Any:
    """A dataclass field with its help text.

    Args:
      default: the value when nothing is said.
      help: one line for `--help` and the documentation.
      may_change: whether a run may be continued with another value of it.
    """
    return dataclasses.field(default=default, metadata={"help": help, "may_change": may_change})


SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class TextConfig:
    """How text becomes ids. Saved as `text.json` beside the vocabulary and obeyed by every tool.

    Lower-casing and accent stripping are independent switches. The original
    stripped accents only when it lower-cased, other tools stripped them by
    default, and so vocabulary entries with accents were never trained.
    """

    tokenizer: Literal["wordpiece", "sentencepiece"] = setting(
        "wordpiece", "Kind of vocabulary: vocab.txt (wordpiece) or spm.model (sentencepiece)."
    )
    lower_case: bool = setting(False, "Lower-case text before tokenising.")
    strip_accents: bool = setting(
        False, "Remove combining marks (NFD, drop Mn, NFC) before tokenising."
    )
    unicode_form: Literal["NFC", "NFKC"] = setting("NFC", "Unicode normal form applied to text.")
    vocab_size: int = setting(50_000, "Number of vocabulary entries, special tokens included.")
    vocab_sha256: str = setting("", "SHA-256 of the vocabulary file; written by the vocabulary tool.")

    def __post_init__(self) -> None:
        _check_types(self)
        _require(self.vocab_size > len(SPECIAL_TOKENS), self, "vocab_size", "more than 5")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of both towers and the pretraining objective (paper section 3, appendix A)."""

    model_size: Literal["debug", "small", "medium", "base", "large"] = setting(
        "debug", "Row of the table of model sizes that gives the defaults of the shape."
    )
    embedding_size: int = setting(128, "E: width of the shared embeddings.")
    hidden_size: int = setting(128, "H: width of the discriminator.")
    num_layers: int = setting(3, "Transformer layers of the discriminator.")
    num_heads: int = setting(2, "Attention heads of the discriminator.")
    intermediate_size: int = setting(512, "Inner width of the discriminator's feed-forward blocks.")
    max_position_embeddings: int = setting(512, "Longest sequence the model has positions for.")
    type_vocab_size: int = setting(2, "Number of segment types.")
    hidden_dropout: float = setting(0.1, "Dropout of embeddings and block outputs.")
    attention_dropout: float = setting(0.1, "Dropout of attention probabilities.")
    initializer_range: float = setting(0.02, "Standard deviation of the truncated normal.")
    layer_norm_epsilon: float = setting(1e-12, "Epsilon inside LayerNorm's square root.")

    generator_width: float = setting(0.25, "Generator hidden size as a fraction of H.")
    generator_depth: float = setting(1.0, "Generator layers as a fraction of the discriminator's.")
    generator_heads: int = setting(0, "Generator attention heads; 0: max(1, width // 64).")
    generator_kind: Literal["masked_lm", "shared", "uniform", "two_tower"] = setting(
        "masked_lm",
        "masked_lm: a small transformer; shared: the discriminator's own weights; "
        "uniform: random tokens; two_tower: left-to-right and right-to-left (for electric).",
    )
    embedding_sharing: Literal["tied", "untied", "gradient_disentangled"] = setting(
        "tied",
        "tied: both towers train one table; untied: the generator has its own; "
        "gradient_disentangled: the discriminator adds a delta to the generator's frozen table "
        "(DeBERTaV3).",
    )
    objective: Literal["electra", "mlm", "electric"] = setting(
        "electra", "electra: replaced-token detection; mlm: BERT's; electric: noise-contrastive."
    )

    mask_prob: float = setting(0.15, "Share of tokens selected for prediction.")
    max_predictions: int = setting(0, "K: most positions selected; 0: int((mask_prob + 0.005) L).")
    replace_prob: float = setting(0.85, "Share of selected positions that become [MASK].")
    masking: Literal["exact", "original", "whole_word"] = setting(
        "exact",
        "exact: positions without replacement; original: with replacement, as Google's code; "
        "whole_word: all pieces of a word together (WordPiece).",
    )
    temperature: float = setting(1.0, "Divides the generator's logits before sampling.")
    disallow_correct: bool = setting(False, "Never sample the original token.")
    generator_weight: float = setting(1.0, "Weight of the generator's loss.")
    discriminator_weight: float = setting(50.0, "Weight of the discriminator's loss.")

    def __post_init__(self) -> None:
        _check_types(self)
        for name in ("embedding_size", "hidden_size", "num_layers", "num_heads",
                     "intermediate_size", "max_position_embeddings", "type_vocab_size"):
            _require(getattr(self, name) > 0, self, name, "a positive number")
        for name in ("mask_prob", "replace_prob"):
            _require(0 < getattr(self, name) <= 1, self, name, "a share above 0 and at most 1")
        for name in ("hidden_dropout", "attention_dropout"):
            _require(0 <= getattr(self, name) < 1, self, name, "a share from 0 to below 1")
        for name in ("temperature", "generator_width", "generator_depth", "initializer_range",
                     "layer_norm_epsilon"):
            _require(getattr(self, name) > 0, self, name, "a positive number")
        for name in ("generator_heads", "max_predictions", "generator_weight",
                     "discriminator_weight"):
            _require(getattr(self, name) >= 0, self, name, "0 or more")
        _require(self.hidden_size % self.num_heads == 0, self, "hidden_size",
                 f"a multiple of num_heads={self.num_heads}")
        width, heads = self.generator_hidden_size, self.generator_num_heads
        _require(width % heads == 0, self, "generator_heads",
                 f"a divisor of the generator's hidden size {width}")
        if self.objective == "electric":
            _require(self.generator_kind == "two_tower", self, "generator_kind",
                     'two_tower, which objective="electric" needs')
        if self.objective == "mlm":
            _require(self.generator_kind in ("masked_lm", "shared"), self, "generator_kind",
                     'masked_lm or shared with objective="mlm"')

    @property
    def generator_hidden_size(self) -> int:
        """Width of the generator (original: `get_generator_config`); H where weights are shared."""
        if self.uses_full_size_generator:
            return self.hidden_size
        return max(1, round(self.hidden_size * self.generator_width))

    @property
    def generator_num_heads(self) -> int:
        if self.uses_full_size_generator:
            return self.num_heads
        return self.generator_heads or max(1, self.generator_hidden_size // 64)

    @property
    def generator_num_layers(self) -> int:
        if self.uses_full_size_generator:
            return self.num_layers
        return max(1, round(self.num_layers * self.generator_depth))

    @property
    def generator_intermediate_size(self) -> int:
        if self.uses_full_size_generator:
            return self.intermediate_size
        return 4 * self.generator_hidden_size

    @property
    def uses_full_size_generator(self) -> bool:
        """BERT's objective and shared weights use one full-size tower as the generator."""
        return self.objective == "mlm" or self.generator_kind == "shared"

    def predictions_per_sequence(self, length: int) -> int:
        """K for sequences of `length` tokens (original: `max_predictions_per_seq`)."""
        return min(length, self.max_predictions or max(1, int((self.mask_prob + 0.005) * length)))


@dataclass(frozen=True)
class PretrainingConfig:
    """Data, schedule, optimiser, devices and housekeeping of one pretraining run."""

    max_seq_length: int = setting(128, "L: tokens per example, [CLS] and [SEP] included.")
    train_batch_size: int = setting(32, "Examples per optimiser step, over all replicas.")
    eval_batch_size: int = setting(32, "Examples per evaluation step, over all replicas.",
                                   may_change=True)
    accumulation_steps: int = setting(1, "Micro-batches per optimiser step.", may_change=True)
    data_streams: int = setting(8, "Parallel file streams; a multiple of the number of hosts.")
    skip_corrupt_shards: bool = setting(
        False, "Leave out (and count) a shard that cannot be read instead of ending.",
        may_change=True)

    num_train_steps: int = setting(1_000, "N: optimiser steps of the whole schedule.")
    stop_at_step: int = setting(0, "Save and stop at this step; 0: at num_train_steps.",
                                may_change=True)
    learning_rate: float = setting(5e-4, "Peak learning rate.")
    warmup_steps: int = setting(100, "Steps over which the rate is multiplied up from 0.")
    lr_schedule: Literal["linear", "cosine", "constant"] = setting(
        "linear", "Decay that the warm-up multiplies.")
    lr_decay_power: float = setting(1.0, "Exponent of the linear decay.")
    restart_steps: tuple[int, ...] = setting(
        (), "Steps at which a new cycle (warm-up and decay from the peak) begins.")
    weight_decay: float = setting(0.01, "Decoupled decay of kernels and embeddings.")
    adam_beta1: float = setting(0.9, "Decay of Adam's first moment.")
    adam_beta2: float = setting(0.999, "Decay of Adam's second moment.")
    adam_epsilon: float = setting(1e-6, "Added outside the root of the second moment.")
    clip_norm: float = setting(1.0, "Global norm that gradients are clipped to; 0: no clipping.")

    seed: int = setting(42, "Everything random is derived from it.")
    deterministic: bool = setting(False, "Ask TensorFlow for deterministic kernels (slower).",
                                  may_change=True)
    distribution: Literal["auto", "cpu", "gpu", "tpu", "multi_worker"] = setting(
        "auto", "Devices; auto: TPU if --tpu is given, else GPUs if there are any, else CPU.",
        may_change=True)
    cpu_replicas: int = setting(1, "Virtual CPU replicas with distribution=cpu (for tests).",
                                may_change=True)
    precision: Literal["float32", "bfloat16"] = setting("float32", "Compute type of the towers.")
    steps_per_loop: int = setting(50, "Steps in one compiled loop without talking to the host.",
                                  may_change=True)
    jit_compile: Literal["auto", "on", "off"] = setting(
        "auto", "Compile the step with XLA; auto: on TPU and GPU.", may_change=True)

    peak_tflops: float = setting(
        0.0, "Peak TFLOP/s of one replica, for the utilisation; 0: looked up, where known.",
        may_change=True)
    log_every: int = setting(50, "Steps between progress lines.", may_change=True)
    save_every: int = setting(1_000, "Steps between checkpoints.", may_change=True)
    keep_checkpoints: int = setting(3, "Latest checkpoints to keep.", may_change=True)
    keep_every: int = setting(0, "Also keep each checkpoint at a multiple of this step; 0: none.",
                              may_change=True)
    async_checkpoints: bool = setting(
        True, "Write checkpoints while training goes on, from a copy in the host's memory.",
        may_change=True)
    eval_every: int = setting(0, "Steps between evaluations; 0: only at the end.",
                              may_change=True)
    eval_examples: int = setting(0, "Most validation examples to evaluate on; 0: all.",
                                 may_change=True)
    max_bad_steps: int = setting(10, "Non-finite steps in a row that end the run.",
                                 may_change=True)

    def __post_init__(self) -> None:
        _check_types(self)
        for name in ("train_batch_size", "eval_batch_size", "accumulation_steps", "data_streams",
                     "num_train_steps", "steps_per_loop", "log_every", "save_every",
                     "keep_checkpoints", "cpu_replicas", "max_bad_steps"):
            _require(getattr(self, name) > 0, self, name, "a positive number")
        _require(self.max_seq_length >= 8, self, "max_seq_length", "at least 8")
        for name in ("learning_rate", "adam_epsilon"):
            _require(getattr(self, name) > 0, self, name, "a positive number")
        for name in ("warmup_steps", "lr_decay_power", "weight_decay", "clip_norm"):
            _require(getattr(self, name) >= 0, self, name, "0 or more")
        for name in ("adam_beta1", "adam_beta2"):
            _require(0 <= getattr(self, name) < 1, self, name, "a share from 0 to below 1")
        _require(self.train_batch_size % self.accumulation_steps == 0, self, "train_batch_size",
                 f"a multiple of accumulation_steps={self.accumulation_steps}")
        _require(list(self.restart_steps) == sorted(set(self.restart_steps))
                 and all(0 < step < self.num_train_steps for step in self.restart_steps),
                 self, "restart_steps",
                 f"increasing steps between 0 and num_train_steps={self.num_train_steps}")

    @property
    def last_step(self) -> int:
        """The step at which this process stops."""
        return min(self.stop_at_step or self.num_train_steps, self.num_train_steps)


# Shapes. small and medium are SELECTRA's (model card); Google's small has embedding_size=128.
# base and large are the paper's table 6 with its generator sizes.
MODEL_SIZES: dict[str, dict[str, Any]] = {
    "debug": {},
    "small": dict(embedding_size=256, hidden_size=256, num_layers=12, num_heads=4,
                  intermediate_size=1024),
    "medium": dict(embedding_size=384, hidden_size=384, num_layers=12, num_heads=6,
                   intermediate_size=1536),
    "base": dict(embedding_size=768, hidden_size=768, num_layers=12, num_heads=12,
                 intermediate_size=3072, generator_width=1 / 3),
    "large": dict(embedding_size=1024, hidden_size=1024, num_layers=24, num_heads=16,
                  intermediate_size=4096, generator_width=0.25),
}

def size_name(hidden_size: int, num_layers: int) -> str:
    """The published size of this width and depth; a shape of its own goes by the name debug."""
    for name, row in MODEL_SIZES.items():
        if (row.get("hidden_size"), row.get("num_layers")) == (hidden_size, num_layers):
            return name
    return "debug"


CONFIG_CLASSES = (TextConfig, ModelConfig, PretrainingConfig)


def owner_of(key: str) -> type:
    """Returns the dataclass that owns setting `key`.

    Raises:
      UsageError: no dataclass has it; the message names the nearest known key.
    """
    for cls in CONFIG_CLASSES:
        if key in cls.__dataclass_fields__:
            return cls
    known = [name for cls in CONFIG_CLASSES for name in cls.__dataclass_fields__]
    raise UsageError(f'unknown setting "{key}"{nearest_hint(key, known)}')


def field_type(cls: type, key: str) -> Any:
    return typing.get_type_hints(cls)[key]


def parse_value(key: str, text: str) -> Any:
    """Parses the text of a `key=value` into the type of the setting.

    Raises:
      UsageError: unknown key, or a text that is no such value.
    """
    kind = field_type(owner_of(key), key)
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise UsageError(f"{key}={text}: expected true or false")
        return text.lower() in ("true", "1")
    try:
        if kind == tuple[int, ...]:
            return tuple(int(part.replace("_", "")) for part in text.split(",") if part.strip())
        return kind(text) if kind in (int, float) else text
    except ValueError:
        expected = "comma-separated whole numbers" if kind not in (int, float) else (
            "a whole number" if kind is int else "a number")
        raise UsageError(f"{key}={text}: expected {expected}") from None


def from_dict(cls: type[ConfigT], values: dict[str, Any]) -> ConfigT:
    """Builds `cls` from JSON values; an unknown key raises and names the nearest known one."""
    for key in values:
        if key not in cls.__dataclass_fields__:
            raise UsageError(
                f'unknown setting "{key}" of {cls.__name__}'
                f"{nearest_hint(key, cls.__dataclass_fields__)}")
    lists_as_tuples: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return cls(**lists_as_tuples)


def model_config(overrides: dict[str, Any]) -> ModelConfig:
    """The row of `MODEL_SIZES` named by `overrides["model_size"]`, with the other overrides on top."""
    size = overrides.get("model_size", "debug")
    if size not in MODEL_SIZES:
        raise UsageError(f'model_size="{size}": expected one of {", ".join(MODEL_SIZES)}'
                         f"{nearest_hint(str(size), MODEL_SIZES)}")
    return from_dict(ModelConfig, {**MODEL_SIZES[size], **overrides})


def to_json(**configs: Any) -> str:
    """Deterministic JSON of named dataclasses, for `config.json` and `text.json`."""
    return json.dumps({name: dataclasses.asdict(config) for name, config in configs.items()},
                      indent=2, ensure_ascii=False) + "\n"


def _require(holds: bool, config: Any, name: str, expected: str) -> None:
    if not holds:
        raise UsageError(f"{name}={getattr(config, name)!r}: expected {expected}")


def _check_types(config: Any) -> None:
    """Checks that values have the annotated types, as JSON and callers may hand in anything."""
    for name, kind in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        origin = typing.get_origin(kind)
        if origin is Literal:
            choices = typing.get_args(kind)
            hint = nearest_hint(value, choices) if isinstance(value, str) else ""
            _require(value in choices, config, name, f"one of {', '.join(choices)}{hint}")
        elif origin in (tuple, types.UnionType):
            _require(isinstance(value, tuple) and all(type(v) is int for v in value),
                     config, name, "whole numbers")
        elif kind is float:
            _require(isinstance(value, (int, float)) and not isinstance(value, bool)
                     and math.isfinite(value), config, name, "a number")
        else:
            _require(type(value) is kind, config, name, f"a value of type {kind.__name__}")
