"""The same weights in Hugging Face's PyTorch classes give the same logits.

The mapping below is this test's own and not the exporter's, so that one cannot excuse the other.
"""

import numpy as np
import pytest
import tensorflow as tf
import torch
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from electra_es.model.batches import Inputs, MaskedInputs
from electra_es.model.pretrainer import build_pretrainer
from electra_es.model.variables import get_weights, set_weights

MAX_DIFFERENCE = 1e-4

CONFIGURATIONS = {
    "projection in both towers": dict(),
    "no projection in the discriminator": dict(embedding_size=24),
    "no projection in the generator": dict(embedding_size=8),
    "generator of another depth": dict(generator_depth=1 / 3, num_heads=4, hidden_size=20,
                                       generator_width=0.6),
    "large weights": dict(initializer_range=0.4),
}

# Rows: full with two segments, padded with two segments, padded with one.
LENGTHS, SECOND_SEGMENT = (13, 9, 5), (6, 4, 13)


def batch():
    random = np.random.default_rng(11)
    ids = random.integers(5, 61, (3, 13)).astype(np.int32)
    ids[:, 0] = 2
    place = np.arange(13)[np.newaxis]
    mask = (place < np.array(LENGTHS)[:, np.newaxis]).astype(np.int32)
    segments = (place >= np.array(SECOND_SEGMENT)[:, np.newaxis]).astype(np.int32) * mask
    return ids * mask, mask, segments


def torch_name(canonical, tower):
    """The PyTorch name of a canonical one, for the model of `tower`; None: not part of it."""
    head = {
        "discriminator_predictions/dense_1": "discriminator_predictions.dense_prediction",
        "discriminator_predictions/dense": "discriminator_predictions.dense",
        "generator_predictions/dense": "generator_predictions.dense",
        "generator_predictions/LayerNorm": "generator_predictions.LayerNorm",
    }
    prefix, _, leaf = canonical.rpartition("/")
    leaf = {"kernel": "weight", "gamma": "weight", "beta": "bias"}.get(leaf, leaf)
    if canonical == "generator_predictions/output_bias":
        return "generator_lm_head.bias"
    if prefix in head:
        return f"{head[prefix]}.{leaf}"
    if canonical.startswith("electra/embeddings/"):
        leaf = f"{leaf}.weight" if leaf.endswith("embeddings") else leaf
        return f"{prefix.replace('/', '.')}.{leaf}"
    if not canonical.startswith(f"{tower}/"):
        return None
    path = prefix.removeprefix(f"{tower}/").replace("/", ".").replace("layer_", "layer.")
    return f"electra.{path}.{leaf}"


def load(torch_model, weights, tower):
    """Copies every weight that the PyTorch model has; a name it lacks or keeps is an error."""
    state = {}
    for canonical, array in weights.items():
        name = torch_name(canonical, tower)
        if name and name in torch_model.state_dict():
            array = array.T if canonical.endswith("/kernel") else array
            state[name] = torch.tensor(np.ascontiguousarray(array))
    result = torch_model.load_state_dict(state, strict=False)
    missing = set(result.missing_keys) - {"generator_lm_head.weight"}  # tied to the word table
    missing = {name for name in missing if "position_ids" not in name and "token_type_ids" not in name}
    assert not missing
    torch_model.tie_weights()
    return torch_model.eval()


def torch_config(config, *, generator):
    return ElectraConfig(
        vocab_size=61, embedding_size=config.embedding_size,
        hidden_size=config.generator_hidden_size if generator else config.hidden_size,
        num_hidden_layers=config.generator_num_layers if generator else config.num_layers,
        num_attention_heads=config.generator_num_heads if generator else config.num_heads,
        intermediate_size=(
            config.generator_intermediate_size if generator else config.intermediate_size),
        max_position_embeddings=17, type_vocab_size=2, hidden_act="gelu", layer_norm_eps=1e-12)


@pytest.mark.parametrize("settings", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_logits(settings, tiny_config, vocab_facts):
    config = tiny_config(**settings)
    model = build_pretrainer(config, vocab_facts)
    # Biases and LayerNorm differ from their initial 0 and 1 here, or they would be untested.
    random = np.random.default_rng(3)
    set_weights(model, {
        name: value + 0.1 * random.normal(size=value.shape).astype(np.float32)
        for name, value in get_weights(model).items()}, "random")
    weights = get_weights(model)
    ids, mask, segments = batch()
    tensors = dict(input_ids=torch.tensor(ids.astype(np.int64)), attention_mask=torch.tensor(mask),
                   token_type_ids=torch.tensor(segments.astype(np.int64)))

    with torch.no_grad():
        expected = load(ElectraForPreTraining(torch_config(config, generator=False)), weights,
                        "electra")(**tensors).logits.numpy()
        expected_mlm = load(ElectraForMaskedLM(torch_config(config, generator=True)), weights,
                            "generator")(**tensors).logits.numpy()

    found = model.discriminator_logits(tf.constant(ids), tf.constant(mask), tf.constant(segments)).numpy()
    everywhere = tf.tile(tf.range(13)[tf.newaxis], [3, 1])
    found_mlm = model.mlm_logits(
        MaskedInputs(tf.constant(ids), everywhere, tf.constant(ids), tf.ones([3, 13])),
        Inputs(tf.constant(ids), tf.constant(mask), tf.constant(segments),
               tf.range(3, dtype=tf.int64))).numpy()

    real = mask > 0
    assert np.abs(found - expected)[real].max() <= MAX_DIFFERENCE
    assert np.abs(found_mlm - expected_mlm)[real].max() <= MAX_DIFFERENCE
    # What was compared depends on the input, so agreement says something.
    assert expected[real].std() > 0.01 and expected_mlm[real].std() > 0.01
