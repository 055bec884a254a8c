"""One table of the model's variables under canonical names, strict in both directions.

The canonical names are those of google-research/electra's TF1 checkpoints, so a Google checkpoint
needs no renaming and every other format maps from them:

    electra/embeddings/word_embeddings                        [V, E]
    electra/embeddings_project/kernel                         [E, H]
    electra/encoder/layer_0/attention/self/query/kernel       [H, H]
    generator/encoder/layer_0/output/LayerNorm/gamma          [H of the generator]
    generator_predictions/output_bias                         [V]
    discriminator_predictions/dense_1/kernel                  [H, 1]

`electra/` is the discriminator and the shared embeddings (or the one tower of BERT's objective),
`generator/` the generator, with embeddings of its own only where they are not tied. The two-tower
generator is `generator_ltr/`, `generator_rtl/` and `cloze_predictions/`. Where the discriminator's
tables are deltas to the generator's (`embedding_sharing=gradient_disentangled`), which the
original does not know, they are named `electra/embeddings/word_embeddings_delta` and
`position_embeddings_delta`.

Kernels are [in, out]: attention heads, an axis of their own in the model, are folded into H.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from electra_es.errors import UsageError, nearest_hint
from electra_es.model.encoder import Embeddings, Tower
from electra_es.model.pretrainer import ElectraPretrainer

# What a published discriminator consists of.
DISCRIMINATOR_PREFIXES = ("electra/", "discriminator_predictions/")


class VariableView(NamedTuple):
    """A variable and the shape that it has under its canonical name."""

    variable: tf.Variable
    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        """The value, float32, in the canonical shape."""
        return self.variable.numpy().reshape(self.shape)

    def assign(self, array: np.ndarray) -> None:
        """Sets the value from an array of the canonical shape."""
        self.variable.assign(np.asarray(array, np.float32).reshape(self.variable.shape))


def named_variables(model: ElectraPretrainer) -> dict[str, VariableView]:
    """Every trainable variable of a built model, once, by canonical name, in a fixed order."""
    views: dict[str, VariableView] = {}
    for prefix, layer in _layers(model):
        for leaf, variable in _leaves(layer):
            views[f"{prefix}/{leaf}"] = VariableView(variable, _canonical_shape(leaf, variable))
    named = {view.variable.ref() for view in views.values()}
    unnamed = [v.name for v in model.trainable_variables if v.ref() not in named]
    assert not unnamed and len(named) == len(views), f"without a canonical name: {unnamed}"
    return views


def get_weights(model: ElectraPretrainer) -> dict[str, np.ndarray]:
    """The values of `named_variables`: canonical name -> float32 array."""
    return {name: view.read() for name, view in named_variables(model).items()}


def get_resolved_weights(model: ElectraPretrainer) -> dict[str, np.ndarray]:
    """`get_weights` for formats that have no deltas: each is added to the generator's table, and
    stands under the name of a plain one. Layer and head names are untouched."""
    weights = get_weights(model)
    for table in ("word_embeddings", "position_embeddings"):
        delta = weights.pop(f"electra/embeddings/{table}_delta", None)
        if delta is not None:
            weights[f"electra/embeddings/{table}"] = delta + weights[f"generator/embeddings/{table}"]
    return weights


def set_weights(model: ElectraPretrainer, arrays: Mapping[str, np.ndarray], where: str, *,
                require: Literal["all", "discriminator"] = "all") -> list[str]:
    """Assigns arrays to variables, all of them or, if anything does not fit, none.

    Args:
      model: a built model.
      arrays: canonical name -> array of the canonical shape.
      where: what to call the source in an error, a path for instance.
      require: "all": every variable must be given; "discriminator": those of the generator may be
        missing, and keep their values.

    Returns:
      names of the variables that kept their values.

    Raises:
      UsageError: a name is missing or unknown, a shape differs, or a value is not finite.
    """
    views = named_variables(model)
    missing = [name for name in views if name not in arrays]
    needed = [name for name in missing
              if require == "all" or name.startswith(DISCRIMINATOR_PREFIXES)]
    extra = [name for name in arrays if name not in views]
    if needed:
        raise UsageError(f"{where}: missing {_some(needed)}: expected every variable of the model")
    if extra:
        raise UsageError(f"{where}: unknown {_some(extra)}: expected only variables of the model"
                         f"{nearest_hint(extra[0], missing)}")
    for name, array in arrays.items():
        if tuple(array.shape) != views[name].shape:
            raise UsageError(f"{where}: {name} has shape {list(array.shape)}: expected "
                             f"{list(views[name].shape)}")
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise UsageError(f"{where}: {name} holds values of type {array.dtype}, not all of them "
                             "finite numbers: expected floating-point weights")
    for name, array in arrays.items():
        views[name].assign(array)
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
    if model.rtd_head is not None:
        yield "discriminator_predictions/dense", model.rtd_head.dense
        yield "discriminator_predictions/dense_1", model.rtd_head.logit


def _embeddings(prefix: str, embeddings: Embeddings) -> Iterator[tuple[str, tf_keras.layers.Layer]]:
    yield prefix, embeddings
    yield f"{prefix}/LayerNorm", embeddings.norm


def _tower(prefix: str, tower: Tower) -> Iterator[tuple[str, tf_keras.layers.Layer]]:
    if tower.projection is not None:
        yield f"{prefix}/embeddings_project", tower.projection
    for i, block in enumerate(tower.blocks):
        at, attention = f"{prefix}/encoder/layer_{i}", block._attention_layer
        yield f"{at}/attention/self/query", attention._query_dense
        yield f"{at}/attention/self/key", attention._key_dense
        yield f"{at}/attention/self/value", attention._value_dense
        yield f"{at}/attention/output/dense", attention._output_dense
        yield f"{at}/attention/output/LayerNorm", block._attention_layer_norm
        yield f"{at}/intermediate/dense", block._intermediate_dense
        yield f"{at}/output/dense", block._output_dense
        yield f"{at}/output/LayerNorm", block._output_layer_norm


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


def _canonical_shape(leaf: str, variable: tf.Variable) -> tuple[int, ...]:
    shape = tuple(variable.shape)
    if leaf == "bias":
        return (int(np.prod(shape)),)
    if leaf == "kernel" and len(shape) == 3:
        # Queries, keys and values are [H, heads, H / heads], the attention's output is
        # [heads, H / heads, H], and heads times their width is H.
        width = max(shape[0], shape[2])
        return (width, width)
    return shape


def _some(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
