"""Each option of the objective: a test that fails if the option does nothing.

Masking's own options are in test_masking.py, those of schedule and optimiser in
test_optimization.py.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from electra_es.config import model_config
from electra_es.model.batches import Inputs, MaskedInputs, VocabularyFacts
from electra_es.model.dropout import Dropout
from electra_es.model.masking import gather_positions
from electra_es.model.pretrainer import (
    build_pretrainer,
    discriminator_parameters,
    loss_denominators,
    total_loss,
)
from electra_es.model.randomness import derive_key, fold_in, uniform
from electra_es.model.variables import get_weights, named_variables, set_weights

B, L, K, V = 3, 13, 4, 61


@pytest.fixture(scope="module")
def batch(golden_batch):
    inputs, masked, _ = golden_batch
    draws = uniform(fold_in(derive_key(1, "sampling"), inputs.example_index), K)
    return inputs, masked, draws


@pytest.fixture(scope="module")
def make(tiny_config, vocab_facts):
    """A model with random weights, biases and LayerNorms included; one per choice of settings."""
    @functools.cache
    def build(**settings):
        model = build_pretrainer(tiny_config(**settings), vocab_facts)
        random = np.random.default_rng(17)
        set_weights(model, {
            name: (random.normal(0, 0.3, view.shape) + name.endswith("gamma")).astype(np.float32)
            for name, view in named_variables(model).items()}, "random")
        return model

    return build


def loss_and_gradients(model, batch):
    """Outputs, the total loss and its gradient by canonical name (zeros where there is none)."""
    inputs, masked, draws = batch
    variables = named_variables(model)
    with tf.GradientTape() as tape:
        outputs = model(inputs, masked, draws)
        denominators = loss_denominators(inputs, masked, model.config, model.vocab)
        loss = total_loss(outputs, denominators, model.config)
    gradients = tape.gradient(loss, list(variables.values()),
                              unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return outputs, float(loss), {
        name: tf.convert_to_tensor(g).numpy() for name, g in zip(variables, gradients, strict=True)}


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def towers(model):
    return {name.split("/")[0] for name in named_variables(model)}


def moved(gradients, part):
    return any(np.abs(g).max() > 1e-7 for name, g in gradients.items() if part in name)


# Objectives.

def test_electra_weighs_both_losses(make, batch):
    losses = {weights: loss_and_gradients(make(
        generator_weight=weights[0], discriminator_weight=weights[1]), batch)[1]
        for weights in ((1.0, 0.0), (0.0, 50.0), (1.0, 50.0), (3.0, 7.0))}
    mlm, discriminator = losses[1.0, 0.0], losses[0.0, 50.0] / 50
    assert mlm > 1 and discriminator > 0.1
    assert losses[1.0, 50.0] == pytest.approx(mlm + 50 * discriminator, rel=1e-5)
    assert losses[3.0, 7.0] == pytest.approx(3 * mlm + 7 * discriminator, rel=1e-5)


def test_mlm_trains_one_full_size_tower(make, batch):
    """The original's electra_objective=false: the tower of the discriminator, no second loss."""
    model = make(objective="mlm")
    outputs, loss, gradients = loss_and_gradients(model, batch)
    assert towers(model) == {"electra", "generator_predictions"}
    inputs, masked, _ = batch
    sequence = model.encode(masked.input_ids, inputs.input_mask, inputs.segment_ids).layers[-1]
    logits = model.mlm_head(gather_positions(sequence, masked.positions),
                            model.embeddings.word_table)
    picked = np.take_along_axis(log_softmax(logits), masked.original_ids.numpy()[..., None], -1)
    weights = masked.weights.numpy()
    assert loss == pytest.approx(-(picked[..., 0] * weights).sum() / weights.sum(), rel=1e-5)
    assert not np.any(outputs.discriminator_losses)
    assert moved(gradients, "electra/encoder/layer_2/output")


def test_electric_turns_the_energy_into_noise_contrastive_logits(make, batch):
    """logit = -energy + log q(token | rest) + log(p / (1 - p)); every written token is noise."""
    model = make(objective="electric", generator_kind="two_tower", mask_prob=0.3)
    inputs, masked, _ = batch
    outputs, _, gradients = loss_and_gradients(model, batch)
    ids = outputs.corrupted_ids.numpy()
    log_q = np.take_along_axis(log_softmax(model.cloze_logits(inputs)), ids[..., None], -1)[..., 0]
    energy = model.discriminator_logits(outputs.corrupted_ids, inputs.input_mask, inputs.segment_ids)
    np.testing.assert_allclose(
        outputs.discriminator_logits, energy + log_q + np.log(0.3 / 0.7), rtol=1e-4, atol=1e-4)
    # A sample equal to the original is noise as well; replaced-token detection calls it real.
    same = model(inputs, masked, sampled_ids=masked.original_ids)
    written = np.zeros((B, L), np.int32)
    for row, positions, weights in zip(written, masked.positions.numpy(), masked.weights.numpy(),
                                       strict=True):
        row[positions[weights > 0]] = 1
    np.testing.assert_array_equal(same.labels, written)
    electra = make()(inputs, masked, sampled_ids=masked.original_ids)
    assert not electra.labels.numpy().any()
    # The cloze model learns from every candidate, and nothing through the discriminator's loss.
    picked = np.take_along_axis(
        log_softmax(model.cloze_logits(inputs)), inputs.input_ids.numpy()[..., None], -1)[..., 0]
    candidates = inputs.input_mask.numpy() * ~np.isin(inputs.input_ids.numpy(), (2, 3, 4))
    np.testing.assert_allclose(
        (outputs.mlm_losses.numpy() * outputs.mlm_weights.numpy()).sum(),
        -(picked * candidates).sum(), rtol=1e-5)
    silent = make(objective="electric", generator_kind="two_tower", generator_weight=0.0)
    _, _, through = loss_and_gradients(silent, batch)
    assert moved(gradients, "generator_ltr/") and moved(gradients, "cloze_predictions/")
    assert not moved(through, "generator_") and not moved(through, "cloze_predictions/")
    assert moved(through, "electra/encoder/")


def test_two_towers_see_all_but_the_token_itself(make, batch):
    model = make(objective="electric", generator_kind="two_tower")
    inputs, _, _ = batch
    before = model.cloze_logits(inputs).numpy()
    ids = inputs.input_ids.numpy().copy()
    place = 5
    ids[0, place] = 60 if ids[0, place] != 60 else 59
    change = np.abs(model.cloze_logits(inputs._replace(input_ids=tf.constant(ids))) - before).max(-1)
    assert change[0, place] < 1e-6
    assert (change[0, 1:place] > 1e-4).all() and (change[0, place + 1:12] > 1e-4).all()
    assert change[1:].max() == 0


# Generators.

def test_untied_embeddings_get_no_gradient_from_the_generator(make, batch):
    """Of the generator's width, so that it has no projection; with tied ones both towers train
    one table."""
    table = "electra/embeddings/word_embeddings"
    for sharing, through in (("tied", True), ("untied", False)):
        model = make(embedding_sharing=sharing, discriminator_weight=0.0)
        _, _, gradients = loss_and_gradients(model, batch)
        assert moved(gradients, table) == through
        own = named_variables(model).get("generator/embeddings/word_embeddings")
        assert (own is None) == through
        assert ("generator/embeddings_project/kernel" in gradients) == through
    assert own.shape == (V, 8) and moved(gradients, "generator/embeddings/word_embeddings")


def test_gradient_disentangled_embeddings(make, batch):
    """Tables of the discriminator: the generator's, without gradient, plus a delta."""
    delta, base = "electra/embeddings/word_embeddings_delta", "generator/embeddings/word_embeddings"
    _, _, from_rtd = loss_and_gradients(
        make(embedding_sharing="gradient_disentangled", generator_weight=0.0), batch)
    assert moved(from_rtd, delta) and not moved(from_rtd, base)
    _, _, from_mlm = loss_and_gradients(
        make(embedding_sharing="gradient_disentangled", discriminator_weight=0.0), batch)
    assert moved(from_mlm, base) and not moved(from_mlm, delta)


def test_gradient_disentangled_embeddings_start_as_the_generators(tiny_config, vocab_facts, batch):
    model = build_pretrainer(tiny_config(embedding_sharing="gradient_disentangled"), vocab_facts)
    np.testing.assert_array_equal(model.embeddings.word_table, model.generator_embeddings.word_table)
    model.generator_embeddings.word_embeddings.assign_add(tf.ones([V, 12]))
    np.testing.assert_array_equal(model.embeddings.word_table, model.generator_embeddings.word_table)


def test_shared_generator_is_the_discriminator(make, batch):
    """The original's untied_generator=false: both losses train one tower."""
    model = make(generator_kind="shared", discriminator_weight=0.0)
    assert towers(model) == {"electra", "generator_predictions", "discriminator_predictions"}
    _, _, gradients = loss_and_gradients(model, batch)
    assert moved(gradients, "electra/encoder/layer_2/output")
    _, _, small = loss_and_gradients(make(discriminator_weight=0.0), batch)
    assert not moved(small, "electra/encoder/")
    inputs, masked, _ = batch
    np.testing.assert_array_equal(
        model.generator_sequence(masked.input_ids, inputs.input_mask, inputs.segment_ids),
        model.encode(masked.input_ids, inputs.input_mask, inputs.segment_ids).layers[-1])


def test_uniform_generator_draws_from_the_whole_vocabulary(make, batch):
    model = make(generator_kind="uniform")
    inputs, masked, draws = batch
    assert towers(model) == {"electra", "discriminator_predictions"}
    outputs = model(inputs, masked, draws)
    # The inverse of a uniform distribution's cumulative sum.
    np.testing.assert_array_equal(outputs.sampled_ids, np.floor(draws.numpy() * V))
    np.testing.assert_allclose(outputs.mlm_losses, np.log(V), rtol=1e-6)


@pytest.mark.parametrize("settings, shape, layers", [
    (dict(generator_width=0.5, generator_heads=0), (12, 12), 3),
    (dict(generator_width=1.0, generator_heads=3), (24, 24), 3),
    (dict(generator_depth=1 / 3), (8, 8), 1),
    (dict(generator_depth=0.1), (8, 8), 1),
    (dict(generator_depth=2.0), (8, 8), 6),
])
def test_width_and_depth_of_the_generator(settings, shape, layers, make):
    variables = named_variables(make(**settings))
    at = "generator/encoder/layer_{}/attention/self/query/kernel"
    assert variables[at.format(0)].shape == shape
    assert at.format(layers - 1) in variables and at.format(layers) not in variables
    width = shape[0]
    assert variables["generator/encoder/layer_0/intermediate/dense/kernel"].shape == (
        width, 4 * width)


@pytest.mark.parametrize("hidden, width, heads, expected", [
    (256, 0.25, 0, (64, 1)), (768, 1 / 3, 0, (256, 4)), (1024, 0.25, 0, (256, 4)),
    (384, 0.25, 0, (96, 1)), (256, 0.25, 8, (64, 8)),
])
def test_heads_of_the_generator(hidden, width, heads, expected, tiny_config):
    config = tiny_config(hidden_size=hidden, num_heads=4, generator_width=width,
                         generator_heads=heads)
    assert (config.generator_hidden_size, config.generator_num_heads) == expected


# Sampling.

def test_temperature(make, batch):
    inputs, masked, draws = batch
    cold = make(temperature=1e-3)(inputs, masked, draws)
    warm = make(temperature=1.0)(inputs, masked, draws)
    hot = make(temperature=1e5)(inputs, masked, draws)
    best = tf.argmax(cold.mlm_logits, -1).numpy()
    np.testing.assert_array_equal(cold.sampled_ids, best)
    assert (warm.sampled_ids.numpy() != best).any()
    assert np.abs(hot.sampled_ids.numpy() - np.floor(draws.numpy() * V)).max() <= 1
    # The generator's own loss is that of temperature 1.
    np.testing.assert_array_equal(cold.mlm_losses, hot.mlm_losses)


def test_disallow_correct(make, batch):
    inputs, masked, draws = batch
    used = masked.weights.numpy() > 0
    for disallow in (False, True):
        model = make(disallow_correct=disallow)
        # A bias that makes the original tokens of the first row all but certain.
        weights = get_weights(model)
        bias = weights["generator_predictions/output_bias"]
        bias[np.unique(masked.original_ids.numpy()[used])] += 50.0
        set_weights(model, weights, "biased")
        outputs = model(inputs, masked, draws)
        same = (outputs.sampled_ids.numpy() == masked.original_ids.numpy())[used]
        if disallow:
            assert not same.any()
            assert outputs.labels.numpy().sum() == used.sum()
        else:
            assert same.any()


def test_a_sample_equal_to_the_original_is_real(make, batch):
    inputs, masked, _ = batch
    used = masked.weights.numpy() > 0
    other = (masked.original_ids - 4) % 56 + 5
    half = tf.where(tf.range(K) % 2 == 0, masked.original_ids, other)
    outputs = make()(inputs, masked, sampled_ids=half)
    assert outputs.labels.numpy().sum() == (used & (np.arange(K) % 2 == 1)).sum()
    at = tf.gather(outputs.labels, masked.positions, batch_dims=1).numpy()
    np.testing.assert_array_equal(at[used], np.broadcast_to(np.arange(K) % 2, (B, K))[used])


# Shape and initial values.

def test_initial_values(tiny_config, vocab_facts):
    """Truncated normal with deviation 0.02, Glorot where the original names no initialiser."""
    tf.random.set_seed(1)
    weights = get_weights(build_pretrainer(
        tiny_config(hidden_size=96, embedding_size=48, num_layers=1), vocab_facts))
    glorot = {"electra/embeddings_project/kernel", "generator/embeddings_project/kernel",
              "discriminator_predictions/dense_1/kernel"}
    for name, value in weights.items():
        if name.endswith(("bias", "beta")):
            assert not value.any(), name
        elif name.endswith("gamma"):
            assert (value == 1).all(), name
        elif name in glorot:
            limit = np.sqrt(6 / sum(value.shape))
            assert 0.8 * limit < np.abs(value).max() <= limit, name
        else:
            assert np.abs(value).max() <= 0.04 + 1e-7, name  # cut at two deviations
            # 0.88 of the deviation is left of a normal cut there.
            assert value.std() == pytest.approx(0.0176, rel=0.35 if value.size < 200 else 0.1), name
    kernels = [w for n, w in weights.items() if n.endswith(("query/kernel", "key/kernel"))]
    assert len({k.tobytes() for k in kernels}) == len(kernels)
    wide = get_weights(build_pretrainer(tiny_config(initializer_range=0.2), vocab_facts))
    assert 0.1 < wide["electra/embeddings/word_embeddings"].std() < 0.2


def test_first_loss_is_that_of_guessing(tiny_config, vocab_facts, batch):
    """ln V + 50 ln 2."""
    _, loss, _ = loss_and_gradients(build_pretrainer(tiny_config(), vocab_facts), batch)
    assert loss == pytest.approx(np.log(V) + 50 * np.log(2), rel=0.05)


def test_dropout_rates_are_those_of_the_configuration(tiny_config, vocab_facts):
    model = build_pretrainer(tiny_config(hidden_dropout=0.3, attention_dropout=0.2), vocab_facts)
    rates = [m.rate for m in model.submodules if isinstance(m, Dropout)]
    # Of a block: attention probabilities, and the outputs of attention and feed-forward part.
    assert {rate: rates.count(rate) for rate in set(rates)} == {0.3: 1 + 6 * 2, 0.2: 6}
    # A layer of Keras would draw from a stream that no checkpoint restores.
    assert not any(isinstance(m, tf_keras.layers.Dropout) for m in model.submodules)


def test_loss_is_a_sum_over_the_callers_denominators(make, batch):
    """Micro-batches with the denominators of the whole add up to the whole's loss."""
    inputs, masked, draws = batch
    model = make()
    denominators = loss_denominators(inputs, masked, model.config, model.vocab)
    whole = total_loss(model(inputs, masked, draws), denominators, model.config)
    parts = [total_loss(model(Inputs(*(x[i:i + 1] for x in inputs)),
                              MaskedInputs(*(x[i:i + 1] for x in masked)), draws[i:i + 1]),
                        denominators, model.config) for i in range(B)]
    assert float(tf.add_n(parts)) == pytest.approx(float(whole), rel=1e-5)


@pytest.mark.parametrize("size, expected", [("small", 22_475_265), ("medium", 40_839_937)])
def test_parameters_of_the_model_card(size, expected):
    """22M and 41M with 50,000 pieces: embeddings, 12 blocks, the discriminator's head."""
    config = model_config({"model_size": size})
    h, f = config.hidden_size, config.intermediate_size
    block = 4 * (h * h + h) + 2 * h * f + f + h + 2 * 2 * h
    assert h * (50_000 + 512 + 2 + 2) + 12 * block + (h * h + h) + (h + 1) == expected
    vocab = VocabularyFacts(50_000, 0, 2, 3, 4, np.ones(50_000, bool))
    assert discriminator_parameters(build_pretrainer(config, vocab)) == expected
