"""What a Hugging Face ELECTRA folder holds: tensor names and `config.json`, in both directions.

    discriminator/   ElectraForPreTraining      electra.*, discriminator_predictions.*
    generator/       ElectraForMaskedLM         electra.*, generator_predictions.*, generator_lm_head.*

Both folders hold the shared embeddings. PyTorch stores dense kernels as [out, in].
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from electra_es.config import ModelConfig, from_dict, size_name
from electra_es.errors import UsageError

Part = Literal["discriminator", "generator"]
Sharing = Literal["all", "embeddings", "none"]
HubConfig = dict[str, Any]

ARCHITECTURES: dict[Part, str] = {
    "discriminator": "ElectraForPreTraining", "generator": "ElectraForMaskedLM"}

# Our names of settings, and theirs.
_SHAPE = {
    "embedding_size": "embedding_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
}
_OTHER = {
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "initializer_range": "initializer_range",
    "layer_norm_epsilon": "layer_norm_eps",
}


class TensorName(NamedTuple):
    """One tensor of `model.safetensors`, and its variable in this project."""

    name: str
    canonical: str  # as in `model/variables.py`
    transposed: bool


def tensor_table(part: Part, config: ModelConfig) -> list[TensorName]:
    """All tensors of a part's `model.safetensors`."""
    rows = encoder_table(part, config)
    if part == "generator":
        rows += _dense("generator_predictions.dense", "generator_predictions/dense")
        rows += _norm("generator_predictions.LayerNorm", "generator_predictions/LayerNorm")
        # generator_lm_head.weight is not stored: it is the word table.
        rows.append(TensorName("generator_lm_head.bias", "generator_predictions/output_bias", False))
    else:
        rows += _dense("discriminator_predictions.dense", "discriminator_predictions/dense")
        rows += _dense("discriminator_predictions.dense_prediction",
                       "discriminator_predictions/dense_1")
    return rows


def encoder_table(part: Part, config: ModelConfig) -> list[TensorName]:
    """The tensors of a part without those of its head."""
    own_tower = part == "generator" and not config.uses_full_size_generator
    own_embeddings = own_tower and config.embedding_sharing != "tied"
    tower = "generator" if own_tower else "electra"
    embeddings = "generator/embeddings" if own_embeddings else "electra/embeddings"
    sizes = part_sizes(part, config)
    rows = [TensorName(f"electra.embeddings.{table}.weight", f"{embeddings}/{table}", False)
            for table in ("word_embeddings", "position_embeddings", "token_type_embeddings")]
    rows += _norm("electra.embeddings.LayerNorm", f"{embeddings}/LayerNorm")
    if sizes["embedding_size"] != sizes["hidden_size"]:
        rows += _dense("electra.embeddings_project", f"{tower}/embeddings_project")
    for i in range(sizes["num_layers"]):
        for layer in ("attention/self/query", "attention/self/key", "attention/self/value",
                      "attention/output/dense", "attention/output/LayerNorm",
                      "intermediate/dense", "output/dense", "output/LayerNorm"):
            rows_of = _norm if layer.endswith("LayerNorm") else _dense
            rows += rows_of(f"electra.encoder.layer.{i}.{layer.replace('/', '.')}",
                            f"{tower}/encoder/layer_{i}/{layer}")
    return rows


def _dense(name: str, canonical: str) -> Iterator[TensorName]:
    yield TensorName(f"{name}.weight", f"{canonical}/kernel", True)
    yield TensorName(f"{name}.bias", f"{canonical}/bias", False)


def _norm(name: str, canonical: str) -> Iterator[TensorName]:
    yield TensorName(f"{name}.weight", f"{canonical}/gamma", False)
    yield TensorName(f"{name}.bias", f"{canonical}/beta", False)


def parts_of(config: ModelConfig) -> list[Part]:
    """The parts of a model that can be published. transformers has no class for a two-tower generator."""
    parts: list[Part] = []
    if config.objective != "mlm":
        parts.append("discriminator")
    if config.uses_full_size_generator or config.generator_kind == "masked_lm":
        parts.append("generator")
    return parts


def part_sizes(part: Part, config: ModelConfig) -> dict[str, int]:
    """Sizes of a part's own tower, under the names of `ModelConfig`."""
    sizes = {name: getattr(config, name) for name in _SHAPE}
    if part == "generator" and not config.uses_full_size_generator:
        sizes.update(
            hidden_size=config.generator_hidden_size, num_layers=config.generator_num_layers,
            num_heads=config.generator_num_heads,
            intermediate_size=config.generator_intermediate_size)
        if config.embedding_sharing == "untied":
            sizes["embedding_size"] = config.generator_hidden_size
    return sizes


def hub_config(part: Part, config: ModelConfig, vocab_size: int, pad_id: int) -> HubConfig:
    """`config.json` of a part."""
    return {
        "architectures": [ARCHITECTURES[part]],
        "model_type": "electra",
        "vocab_size": vocab_size,
        **{_SHAPE[name]: size for name, size in part_sizes(part, config).items()},
        "hidden_act": "gelu",  # the exact, erf form
        **{theirs: getattr(config, ours) for ours, theirs in _OTHER.items()},
        "pad_token_id": pad_id,
    }


def model_config_from(discriminator: HubConfig | None, generator: HubConfig | None,
                      sharing: Sharing) -> ModelConfig:
    """The configuration of a model with these parts; objective and masking are the recipe's.

    Args:
      discriminator: its `config.json`, checked by `check_hub_config`; None: the generator alone is
        a model of BERT's objective.
      generator: the generator's `config.json`; None: it gets the recipe's shape.
      sharing: what both parts have in common.

    Raises:
      UsageError: an ELECTRA of this project cannot have these shapes.
    """
    main = discriminator or generator
    assert main is not None, "a folder without parts"
    values: dict[str, Any] = {ours: main[theirs] for ours, theirs in _SHAPE.items()}
    values.update({ours: main[theirs] for ours, theirs in _OTHER.items() if theirs in main})
    values["model_size"] = size_name(values["hidden_size"], values["num_layers"])
    if discriminator is None:
        values["objective"] = "mlm"
    elif sharing == "all":
        values["generator_kind"] = "shared"
    elif generator is not None:
        width = generator["hidden_size"]
        values.update(
            generator_width=width / values["hidden_size"],
            generator_depth=generator["num_hidden_layers"] / values["num_layers"],
            embedding_sharing="tied" if sharing == "embeddings" else "untied")
        if generator["num_attention_heads"] != max(1, width // 64):
            values["generator_heads"] = generator["num_attention_heads"]
    config = from_dict(ModelConfig, values)
    if generator is not None:
        for ours, expected in part_sizes("generator", config).items():
            if generator[_SHAPE[ours]] != expected:
                if ours == "embedding_size" and generator[_SHAPE[ours]] == config.embedding_size:
                    raise UsageError(
                        "the generator has embeddings of its own, as wide as the discriminator's: parts "
                        "of embedding_sharing=gradient_disentangled, published with their deltas added "
                        "up, cannot be taken back together: expected the discriminator alone")
                raise UsageError(
                    f"the generator's {_SHAPE[ours]}={generator[_SHAPE[ours]]}: expected {expected} "
                    f"beside a discriminator of hidden_size={config.hidden_size}")
    return config


def check_hub_config(config: HubConfig, part: Part, where: str) -> None:
    """Checks that `config.json` describes an ELECTRA that this project can compute.

    Raises:
      UsageError: the first key that does not fit.
    """
    for key, expected, default in (("model_type", "electra", None), ("hidden_act", "gelu", "gelu"),
                                   ("position_embedding_type", "absolute", "absolute")):
        if config.get(key, default) != expected:
            raise UsageError(f'{where}: {key}={config.get(key)!r}: expected "{expected}"')
    architecture = (config.get("architectures") or [ARCHITECTURES[part]])[0]
    if architecture != ARCHITECTURES[part]:
        raise UsageError(f'{where}: architectures names "{architecture}": expected '
                         f'"{ARCHITECTURES[part]}", the {part}')
    for key in ("vocab_size", *_SHAPE.values()):
        if type(config.get(key)) is not int or config[key] <= 0:
            raise UsageError(f"{where}: {key}={config.get(key)!r}: expected a positive number")
