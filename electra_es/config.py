"""Configuration: frozen dataclasses, the table of model sizes, JSON in and out.

Three dataclasses have all settings of the project, and no name occurs in two of
them. So a `key=value` (a flag, `--set`, a line of an hparams file) always belongs
to exactly one of them. Command-line flags are derived from the fields (`flags.py`);
each field is defined once, here.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from electra_es.errors import UsageError, nearest_hint
from electra_es.settings import (
    Range,
    Text,
    check_field,
    check_settings,
    field_type,
    parse,
    require,
    setting,
    wrong,
)

ConfigT = TypeVar("ConfigT", "TextConfig", "ModelConfig", "PretrainingConfig")

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# Ranges that several settings share. Their upper limits lie above published values. They are there to
# report a typing error at once, before the machine runs out of memory.
WIDTH = Range(low=1, high=16_384, why="the widest published encoder, XLM-R XXL, has 4,096")
LAYERS = Range(low=1, high=128, why="the deepest published language models have about a hundred")
HEADS = Range(low=1, high=256, why="one per 64 of the greatest hidden_size")
LENGTH = Range(low=8, high=8_192, why="attention takes memory with the square of the length")
BATCH = Range(low=1, high=2**20, why="published batches of this kind end at 65,536 examples")
STEPS = Range(low=1, high=2**24, why="float32, in which the schedule counts, is exact up to 2^24")
SELECTED = Range(above=0, high=1, why="with nothing selected there is no loss")
DROPOUT = Range(low=0, below=1, why="what is left is divided by 1 - rate")
MOMENT = Range(low=0, below=1, why="at 1 the moment would never change")
FRACTION = Range(low=1e-3, high=4.0, why="generators are smaller than discriminators")
WEIGHT = Range(low=0, high=1e6, why="the loss has to stay far from float32's largest number")
SEED = Range(low=0, high=2**32 - 1, why="NumPy takes no other seeds")

# Settings with which those of the generator and of sampling have an effect (`only_with`).
SAMPLING: Mapping[str, tuple[str, ...]] = {"objective": ("electra", "electric")}
OWN_GENERATOR: Mapping[str, tuple[str, ...]] = {**SAMPLING, "generator_kind": ("masked_lm", "two_tower")}
SOME_GENERATOR: Mapping[str, tuple[str, ...]] = {"generator_kind": ("masked_lm", "shared", "two_tower")}
READS_MASKED = {"generator_kind": ("masked_lm", "shared")}


def or_zero(numbers: Range) -> Range:
    """The same range with 0, for settings where 0 means: none, or chosen automatically."""
    return dataclasses.replace(numbers, low=0)


@dataclass(frozen=True)
class TextConfig:
    """How text becomes ids. Every tool reads it from `text.json` beside the vocabulary.

    Lower-casing and accent stripping are independent switches. The original
    stripped accents only when it lower-cased, other tools stripped them by
    default, and so vocabulary entries with accents were never trained.
    """

    # A kind, and not a `Tokenizer`: the flag --tokenizer and the key of text.json have this name.
    tokenizer: Literal["wordpiece", "sentencepiece"] = setting(
        "wordpiece", "Kind of vocabulary: vocab.txt (wordpiece) or spm.model (sentencepiece).")
    lower_case: bool = setting(False, "Lower-case text before tokenising.")
    strip_accents: bool = setting(
        False, "Remove combining marks (NFD, drop Mn, NFC) before tokenising.")
    unicode_form: Literal["NFC", "NFKC"] = setting("NFC", "Unicode normal form applied to text.")
    vocab_size: int = setting(
        50_000, "Number of vocabulary entries, special tokens included.",
        Range(above=len(SPECIAL_TOKENS), high=2**20, why="the largest published one has a million"))
    vocab_sha256: str = setting(
        "", "SHA-256 of the vocabulary file; written by the vocabulary tool.",
        Text("up to 64 hexadecimal digits", re.compile("[0-9a-f]{1,64}").fullmatch))

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class ModelConfig:
    """Shape of both towers and the pretraining objective (paper section 3, appendix A)."""

    model_size: Literal["debug", "small", "medium", "base", "large"] = setting(
        "debug", "Row of the table of model sizes that gives the defaults of the shape.")
    embedding_size: int = setting(128, "E: width of the shared embeddings.", WIDTH)
    hidden_size: int = setting(128, "H: width of the discriminator.", WIDTH)
    num_layers: int = setting(3, "Transformer layers of the discriminator.", LAYERS)
    num_heads: int = setting(2, "Attention heads of the discriminator.", HEADS)
    intermediate_size: int = setting(
        512, "Inner width of the discriminator's feed-forward blocks.",
        Range(low=1, high=65_536, why="four times the greatest hidden_size"))
    max_position_embeddings: int = setting(
        512, "Longest sequence the model has positions for.", LENGTH)
    type_vocab_size: int = setting(
        2, "Number of segment types.", Range(low=1, high=16, why="examples have two segments"))
    hidden_dropout: float = setting(0.1, "Dropout of embeddings and block outputs.", DROPOUT)
    attention_dropout: float = setting(0.1, "Dropout of attention probabilities.", DROPOUT)
    initializer_range: float = setting(
        0.02, "Standard deviation of the truncated normal.",
        Range(low=1e-6, high=1.0, why="with more, the first logits are beyond their softmax"))
    layer_norm_epsilon: float = setting(
        1e-12, "Epsilon inside LayerNorm's square root.",
        Range(low=1e-20, high=0.1, why="it is added to a variance of about 1"))

    generator_width: float = setting(
        0.25, "Generator hidden size as a fraction of H.", FRACTION,
        only_with=OWN_GENERATOR)
    generator_depth: float = setting(
        1.0, "Generator layers as a fraction of the discriminator's.", FRACTION,
        only_with=OWN_GENERATOR)
    generator_heads: int = setting(
        0, "Generator attention heads; 0: max(1, width // 64).", or_zero(HEADS),
        only_with=OWN_GENERATOR)
    generator_kind: Literal["masked_lm", "shared", "uniform", "two_tower"] = setting(
        "masked_lm",
        "masked_lm: a small transformer; shared: the discriminator's own weights; "
        "uniform: random tokens; two_tower: left-to-right and right-to-left (for electric).",
    )
    embedding_sharing: Literal["tied", "untied", "gradient_disentangled"] = setting(
        "tied",
        "tied: both towers train one table; untied: the generator has its own; "
        "gradient_disentangled: the discriminator adds a delta to the generator's frozen table "
        "(DeBERTaV3).", only_with=OWN_GENERATOR)
    objective: Literal["electra", "mlm", "electric"] = setting(
        "electra", "electra: replaced-token detection; mlm: BERT's; electric: noise-contrastive."
    )

    mask_prob: float = setting(0.15, "Share of tokens selected for prediction.", SELECTED)
    max_predictions: int = setting(
        0, "K: most positions selected; 0: int((mask_prob + 0.005) L).", or_zero(LENGTH))
    replace_prob: float = setting(
        0.85, "Share of selected positions that become [MASK].", SELECTED,
        only_with=READS_MASKED)
    masking: Literal["exact", "original", "whole_word"] = setting(
        "exact",
        "exact: positions without replacement; original: with replacement, as Google's code; "
        "whole_word: all pieces of a word together (WordPiece).",
    )
    temperature: float = setting(
        1.0, "Divides the generator's logits before sampling.",
        Range(low=1e-3, high=1e6, why="below only the best token is drawn, above any token"),
        only_with={**SAMPLING, **SOME_GENERATOR})
    disallow_correct: bool = setting(
        False, "Never sample the original token.", only_with=SAMPLING)
    generator_weight: float = setting(
        1.0, "Weight of the generator's loss.", WEIGHT, only_with=SOME_GENERATOR)
    discriminator_weight: float = setting(
        50.0, "Weight of the discriminator's loss.", WEIGHT, only_with=SAMPLING)

    def __post_init__(self) -> None:
        """Checks each setting, then relations between settings."""
        check_settings(self)
        require(self.hidden_size % self.num_heads == 0, "hidden_size", self.hidden_size,
                f"a multiple of num_heads={self.num_heads}")
        width = self.generator_hidden_size
        require(width % self.generator_num_heads == 0, "generator_heads", self.generator_heads,
                f"a divisor of the generator's hidden size {width}")
        kind = self.generator_kind
        require(self.objective != "electric" or kind == "two_tower", "generator_kind", kind,
                'two_tower, which objective="electric" needs')
        require(self.objective != "mlm" or kind in ("masked_lm", "shared"), "generator_kind", kind,
                'masked_lm or shared with objective="mlm"')
        require(self.objective != "electric" or self.mask_prob < 1, "mask_prob", self.mask_prob,
                'below 1 with objective="electric", which takes the logarithm of p / (1 - p)')

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

    max_seq_length: int = setting(128, "L: tokens per example, [CLS] and [SEP] included.", LENGTH)
    train_batch_size: int = setting(32, "Examples per optimiser step, over all replicas.", BATCH)
    eval_batch_size: int = setting(
        32, "Examples per evaluation step, over all replicas.", BATCH, may_change=True)
    accumulation_steps: int = setting(
        1, "Micro-batches per optimiser step.", BATCH, may_change=True)
    data_streams: int = setting(
        8, "Parallel file streams; a multiple of the number of hosts.",
        Range(low=1, high=4_096, why="each keeps a file open"))
    skip_corrupt_shards: bool = setting(
        False, "Leave out (and count) a shard that cannot be read instead of ending.",
        may_change=True)

    num_train_steps: int = setting(1_000, "N: optimiser steps of the whole schedule.", STEPS)
    stop_at_step: int = setting(
        0, "Save and stop at this step; 0: at num_train_steps.", or_zero(STEPS), may_change=True)
    learning_rate: float = setting(
        5e-4, "Peak learning rate.",
        Range(low=1e-12, high=10.0, why="float32 loses smaller steps, larger ones end in NaN"))
    warmup_steps: int = setting(
        100, "Steps over which the rate is multiplied up from 0.", or_zero(STEPS))
    lr_schedule: Literal["linear", "cosine", "constant"] = setting(
        "linear", "Decay that the warm-up multiplies.")
    lr_decay_power: float = setting(
        1.0, "Exponent of the linear decay.",
        Range(low=0, high=100, why="with more, the rate is 0 after a few steps"),
        only_with={"lr_schedule": ("linear",)})
    restart_steps: tuple[int, ...] = setting(
        (), "Steps at which a new cycle (warm-up and decay from the peak) begins.", STEPS)
    weight_decay: float = setting(
        0.01, "Decoupled decay of kernels and embeddings.",
        Range(low=0, high=1, why="a share of each weight, times the rate, is taken off"))
    adam_beta1: float = setting(0.9, "Decay of Adam's first moment.", MOMENT)
    adam_beta2: float = setting(0.999, "Decay of Adam's second moment.", MOMENT)
    adam_epsilon: float = setting(
        1e-6, "Added outside the root of the second moment.",
        Range(low=1e-20, high=1.0, why="roots of second moments are far below 1"))
    clip_norm: float = setting(
        1.0, "Global norm that gradients are clipped to; 0: no clipping.",
        Range(low=0, high=1e6, why="gradients of such a norm train nothing"))

    seed: int = setting(42, "Everything random is derived from it.", SEED)
    deterministic: bool = setting(
        False, "Ask TensorFlow for deterministic kernels (slower).", may_change=True)
    distribution: Literal["auto", "cpu", "gpu", "tpu", "multi_worker"] = setting(
        "auto", "Devices; auto: TPU if --tpu is given, else GPUs if there are any, else CPU.",
        may_change=True)
    cpu_replicas: int = setting(
        1, "Virtual CPU replicas with distribution=cpu (for tests).",
        Range(low=1, high=16, why="each takes memory and time to compile on one machine"),
        may_change=True, only_with={"distribution": ("auto", "cpu")})
    precision: Literal["float32", "bfloat16"] = setting("float32", "Compute type of the towers.")
    steps_per_loop: int = setting(
        50, "Steps in one compiled loop, without communication with the host.", STEPS, may_change=True)
    jit_compile: Literal["auto", "on", "off"] = setting(
        "auto", "Compile the step with XLA; auto: on TPU and GPU, and on a CPU elementwise work only.",
        may_change=True)

    peak_tflops: float = setting(
        0.0, "Peak TFLOP/s of one replica, for the utilisation; 0: looked up, where known.",
        Range(low=0, high=1e6, why="1e6 TFLOP/s is a supercomputer"), may_change=True)
    log_every: int = setting(50, "Steps between progress lines.", STEPS, may_change=True)
    save_every: int = setting(1_000, "Steps between checkpoints.", STEPS, may_change=True)
    keep_checkpoints: int = setting(
        3, "Latest checkpoints to keep.",
        Range(low=1, high=10_000, why="each is as large as the model and its moments"),
        may_change=True)
    keep_every: int = setting(
        0, "Also keep each checkpoint at a multiple of this step; 0: none.", or_zero(STEPS),
        may_change=True)
    async_checkpoints: bool = setting(
        True, "Write checkpoints during training, from a copy in the host's memory.",
        may_change=True)
    eval_every: int = setting(
        0, "Steps between evaluations; 0: only at the end.", or_zero(STEPS), may_change=True)
    eval_examples: int = setting(
        0, "Most validation examples to evaluate on; 0: all.",
        Range(low=0, high=2**31 - 1, why="counts of examples have 32 bits"), may_change=True)
    exam_every: int = setting(
        0, "Steps between exams of minimal pairs, with one at the end; 0: none.", or_zero(STEPS),
        may_change=True)
    max_bad_steps: int = setting(
        10, "Non-finite steps in a row that end the run.", STEPS, may_change=True)

    def __post_init__(self) -> None:
        """Checks each setting, then relations between settings."""
        check_settings(self)
        require(self.train_batch_size % self.accumulation_steps == 0, "train_batch_size",
                self.train_batch_size, f"a multiple of accumulation_steps={self.accumulation_steps}")
        steps = self.restart_steps
        require(list(steps) == sorted(set(steps)) and max(steps, default=0) < self.num_train_steps,
                "restart_steps", steps,
                f"increasing steps between 0 and num_train_steps={self.num_train_steps}")

    @property
    def last_step(self) -> int:
        """The step at which this process stops."""
        return min(self.stop_at_step or self.num_train_steps, self.num_train_steps)


# Settings that affect the evaluation of an existing run, and settings that affect the schedule.
EVALUATION_SETTINGS = frozenset({
    "max_seq_length", "eval_batch_size", "eval_examples", "seed", "deterministic", "distribution",
    "cpu_replicas", "precision"})
SCHEDULE_SETTINGS = frozenset({
    "num_train_steps", "learning_rate", "warmup_steps", "lr_schedule", "lr_decay_power",
    "restart_steps"})


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
    """The published size with this width and depth; any other shape is called debug."""
    for name, row in MODEL_SIZES.items():
        if (row.get("hidden_size"), row.get("num_layers")) == (hidden_size, num_layers):
            return name
    return "debug"


CONFIG_CLASSES = (TextConfig, ModelConfig, PretrainingConfig)


def owner_of(key: str) -> type:
    """Returns the dataclass that has the setting `key`.

    Raises:
      UsageError: no dataclass has it; the message names the most similar key.
    """
    for cls in CONFIG_CLASSES:
        if key in cls.__dataclass_fields__:
            return cls
    known = [name for cls in CONFIG_CLASSES for name in cls.__dataclass_fields__]
    raise UsageError(f'unknown setting "{key}"{nearest_hint(key, known)}')


def check_value(key: str, value: Any) -> None:
    """Raises UsageError if the setting `key` is unknown or does not accept this value of JSON."""
    check_field(owner_of(key), key, tuple(value) if isinstance(value, list) else value)


def parse_value(key: str, text: str) -> Any:
    """Parses the text of a `key=value` into the type of the setting.

    Raises:
      UsageError: unknown key, or a text that is not such a value.
    """
    return parse(key, text, field_type(owner_of(key), key))


def from_dict(cls: type[ConfigT], values: dict[str, Any]) -> ConfigT:
    """Builds `cls` from JSON values; UsageError for an unknown key, which names the most similar key."""
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
    check_size(size)
    return from_dict(ModelConfig, {**MODEL_SIZES[size], **overrides})


def check_size(size: str) -> None:
    """Raises UsageError if there is no such row in `MODEL_SIZES`."""
    if size not in MODEL_SIZES:
        raise wrong("model_size", f'"{size}"', f"one of {', '.join(MODEL_SIZES)}"
                    f"{nearest_hint(str(size), MODEL_SIZES)}")


def to_json(**configs: Any) -> str:
    """Deterministic JSON of named dataclasses, for `config.json` and `text.json`."""
    return json.dumps({name: dataclasses.asdict(config) for name, config in configs.items()},
                      indent=2, ensure_ascii=False) + "\n"
