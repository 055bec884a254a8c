"""One table of the model's variables under canonical names, strict in both directions.

The canonical names are those of google-research/electra's TF1 checkpoints. So a Google checkpoint
needs no renaming, and every other format maps from them:

    electra/embeddings/word_embeddings                        [V, E]
    electra/embeddings_project/kernel                         [E, H]
    electra/encoder/layer_0/attention/self/query/kernel       [H, H]
    generator/encoder/layer_0/output/LayerNorm/gamma          [H of the generator]
    generator_predictions/output_bias                         [V]
    discriminator_predictions/dense_1/kernel                  [H, 1]

`electra/` is the discriminator and the shared embeddings (or the one tower of BERT's objective),
`generator/` the generator, with embeddings of its own only where they are not tied. The two-tower
generator is `generator_ltr/`, `generator_rtl/` and `cloze_predictions/`. With
`embedding_sharing=gradient_disentangled`, which the original does not have, the discriminator's
tables are deltas to the generator's. Their names are `electra/embeddings/word_embeddings_delta` and
`position_embeddings_delta`.

Kernels are [in, out].
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import tensorflow as tf
import tf_keras

from electra_es.errors import UsageError, nearest_hint
from electra_es.model.encoder import Embeddings, Tower
from electra_es.model.pretrainer import ElectraPretrainer

# Variables of a published discriminator.
DISCRIMINATOR_PREFIXES = ("electra/", "discriminator_predictions/")


def named_variables(model: ElectraPretrainer) -> dict[str, tf.Variable]:
    """Every trainable variable of a built model, once, by canonical name, in a fixed order."""
    variables = {f"{prefix}/{leaf}": variable
                 for prefix, layer in _layers(model) for leaf, variable in _leaves(layer)}
    named = {variable.ref() for variable in variables.values()}
    unnamed = [v.name for v in model.trainable_variables if v.ref() not in named]
    assert not unnamed and len(named) == len(variables), f"without a canonical name: {unnamed}"
    return variables


def get_weights(model: ElectraPretrainer) -> dict[str, np.ndarray]:
    """The values of `named_variables`: canonical name -> float32 array."""
    return {name: variable.numpy() for name, variable in named_variables(model).items()}


def get_resolved_weights(model: ElectraPretrainer) -> dict[str, np.ndarray]:
    """`get_weights` for formats that have no deltas: each delta is added to the generator's table, and
    the sum gets the name of a plain table. Other names stay as they are."""
    return _with_deltas_added(get_weights(model), model.embeddings)


def encoder_variables(embeddings: Embeddings, tower: Tower) -> dict[str, tf.Variable]:
    """The variables of the discriminator without its head, by canonical name."""
    layers = [*_embeddings("electra/embeddings", embeddings), *_tower("electra", tower)]
    return {f"{prefix}/{leaf}": variable for prefix, layer in layers
            for leaf, variable in _leaves(layer)}


def resolved_encoder_weights(embeddings: Embeddings, tower: Tower) -> dict[str, np.ndarray]:
    """The discriminator's part of `get_resolved_weights`, but for its head."""
    weights = {name: variable.numpy() for name, variable in encoder_variables(embeddings, tower).items()}
    return _with_deltas_added(weights, embeddings)


def _with_deltas_added(weights: dict[str, np.ndarray], embeddings: Embeddings) -> dict[str, np.ndarray]:
    for table in ("word_embeddings", "position_embeddings"):
        delta = weights.pop(f"electra/embeddings/{table}_delta", None)
        if delta is not None:
            weights[f"electra/embeddings/{table}"] = delta + getattr(embeddings.base, table).numpy()
    return weights


def set_weights(model: ElectraPretrainer, arrays: Mapping[str, np.ndarray], where: str, *,
                require: Literal["all", "discriminator"] = "all") -> list[str]:
    """Assigns arrays to variables. If one does not fit, no variable is changed.

    Args:
      model: a built model.
      arrays: canonical name -> array of the canonical shape.
      where: what to call the source in an error, a path for instance.
      require: "all": every variable must have an array; "discriminator": those of the generator may
        be missing and then keep their values.

    Returns:
      names of the variables that kept their values.

    Raises:
      UsageError: a name is missing or unknown, a shape differs, or a value is not finite.
    """
    variables = named_variables(model)
    missing = [name for name in variables if name not in arrays]
    needed = [name for name in missing
              if require == "all" or name.startswith(DISCRIMINATOR_PREFIXES)]
    extra = [name for name in arrays if name not in variables]
    if needed:
        raise UsageError(f"{where}: missing {_some(needed)}: expected every variable of the model")
    if extra:
        raise UsageError(f"{where}: unknown {_some(extra)}: expected only variables of the model"
                         f"{nearest_hint(extra[0], missing)}")
    for name, array in arrays.items():
        if list(array.shape) != variables[name].shape.as_list():
            raise UsageError(f"{where}: {name} has shape {list(array.shape)}: expected "
                             f"{variables[name].shape.as_list()}")
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise UsageError(f"{where}: {name} holds values of type {array.dtype}, not all of them "
                             "finite numbers: expected floating-point weights")
    for name, array in arrays.items():
        variables[name].assign(np.asarray(array, np.float32))
    return missing


def _layers(model: ElectraPretrainer) -> Iterator[tuple[str, tf_keras.layers.Layer]]:
    """(canonical prefix, layer) for each layer that has variables itself."""
    yield from _embeddings("electra/embeddings", model.embeddings)
    if model.generator_embeddings is not model.embeddings:
        yield from _embeddings("generator/embeddings", model.generator_embeddings)
    yield from _tower("electra", model.discriminator)
    two_towers = len(model.generators) == 2
    for name, tower in zip(("generator_ltr", "generator_rtl") if two_towers else ("generator",),
                           model.generators, strict=False):
        if tower is not model.discriminator:
            yield from _tower(name, tower)
    if model.mlm_head is not None:
        head = "cloze_predictions" if two_towers else "generator_predictions"
        yield f"{head}/dense", model.mlm_head.dense
        yield f"{head}/LayerNorm", model.mlm_head.norm
        yield head, model.mlm_head
    if model.discriminator_head is not None:
        yield "discriminator_predictions/dense", model.discriminator_head.dense
        yield "discriminator_predictions/dense_1", model.discriminator_head.logit


def _embeddings(prefix: str, embeddings: Embeddings) -> Iterator[tuple[str, tf_keras.layers.Layer]]:
    yield prefix, embeddings
    yield f"{prefix}/LayerNorm", embeddings.norm


def _tower(prefix: str, tower: Tower) -> Iterator[tuple[str, tf_keras.layers.Layer]]:
    if tower.projection is not None:
        yield f"{prefix}/embeddings_project", tower.projection
    for i, block in enumerate(tower.blocks):
        at = f"{prefix}/encoder/layer_{i}"
        yield f"{at}/attention/self/query", block.query
        yield f"{at}/attention/self/key", block.key
        yield f"{at}/attention/self/value", block.value
        yield f"{at}/attention/output/dense", block.attention_output
        yield f"{at}/attention/output/LayerNorm", block.attention_norm
        yield f"{at}/intermediate/dense", block.intermediate
        yield f"{at}/output/dense", block.feed_forward_output
        yield f"{at}/output/LayerNorm", block.feed_forward_norm


def _leaves(layer: tf_keras.layers.Layer) -> Iterator[tuple[str, tf.Variable]]:
    """(last part of the canonical name, variable) of a layer's own variables."""
    if isinstance(layer, Embeddings):
        delta = "" if layer.base is None else "_delta"
        yield f"word_embeddings{delta}", layer.word_embeddings
        yield "token_type_embeddings", layer.token_type_embeddings
        yield f"position_embeddings{delta}", layer.position_embeddings
        return
    for leaf in ("kernel", "bias", "beta", "gamma", "output_bias"):
        variable = getattr(layer, leaf, None)
        if variable is not None:
            yield leaf, variable


def _some(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
