"""Every number that the original implementation computed (tests/golden/README.md) once more."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from paths import GOLDEN

from electra_es.config import ModelConfig, PretrainingConfig
from electra_es.model.masking import gather_positions, scatter_update
from electra_es.model.pretrainer import loss_denominators, total_loss
from electra_es.model.variables import get_weights, named_variables, set_weights
from electra_es.training.metrics import metric_sums, summarise
from electra_es.training.optimization import (
    Adam,
    clip_by_global_norm,
    layerwise_multipliers,
    learning_rate,
)

SCHEDULE = PretrainingConfig(learning_rate=5e-4, num_train_steps=10, warmup_steps=3)


def assert_close(found, expected, rtol, what="", atol=0.0):
    """Within `rtol` of the largest entry (entries near zero carry rounding of large ones)."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, what
    limit = rtol * np.abs(expected).max() + atol
    worst = np.abs(found - expected).max()
    assert worst <= limit, f"{what}: {worst:.3g} > {limit:.3g}"


@pytest.fixture(scope="module")
def forward(golden_model, golden_batch):
    """The model, its outputs, loss and gradients by canonical name, and towers' own outputs."""
    inputs, masked, sampled_ids = golden_batch
    model = golden_model()
    with tf.GradientTape() as tape:
        outputs = model(inputs, masked, sampled_ids=sampled_ids)
        denominators = loss_denominators(inputs, masked, model.config, model.vocab)
        loss = total_loss(outputs, denominators, model.config)
    variables = named_variables(model)
    gradients = tape.gradient(loss, list(variables.values()))
    by_name = {name: tf.convert_to_tensor(gradient).numpy()
               for name, gradient in zip(variables, gradients, strict=True)}
    embedded = model.generator_embeddings(masked.input_ids, inputs.segment_ids)
    generator = model.generators[0](embedded, inputs.input_mask)
    discriminator = model.encode(outputs.corrupted_ids, inputs.input_mask, inputs.segment_ids)
    return dict(model=model, outputs=outputs, loss=loss, gradients=by_name, generator=generator,
                discriminator=discriminator)


def test_outputs(forward, golden):
    outputs, generator, discriminator = (
        forward[name] for name in ("outputs", "generator", "discriminator"))
    found = {
        "gen_embedding_output": generator.embeddings,
        "gen_sequence_output": generator.layers[-1],
        "mlm_logits": outputs.mlm_logits,
        "mlm_per_example_loss": outputs.mlm_losses,
        "disc_embedding_output": discriminator.embeddings,
        "disc_all_layer_outputs": tf.stack(discriminator.layers),
        "disc_sequence_output": discriminator.layers[-1],
        "disc_logits": outputs.discriminator_logits,
        "disc_token_loss_unmasked": outputs.discriminator_losses,
        "disc_probs": tf.sigmoid(outputs.discriminator_logits),
    }
    for name, value in found.items():
        assert_close(value, golden[f"out/{name}"], 1e-5, name)


def test_ids_and_labels(forward, golden):
    outputs = forward["outputs"]
    np.testing.assert_array_equal(outputs.corrupted_ids, golden["out/disc_input_ids"])
    np.testing.assert_array_equal(outputs.labels, golden["out/disc_labels"])
    np.testing.assert_array_equal(
        tf.argmax(outputs.mlm_logits, -1).numpy(), golden["out/mlm_preds"])
    np.testing.assert_array_equal(
        (outputs.discriminator_logits > 0).numpy(), golden["out/disc_preds"].astype(bool))


def test_losses(forward, golden, golden_batch):
    outputs, (_, masked, _) = forward["outputs"], golden_batch
    sums = {name: value.numpy() for name, value in metric_sums(
        outputs, masked, ModelConfig()).items()}
    metrics = summarise(sums, 1.0, 50.0)
    weights = outputs.discriminator_weights
    rows = tf.reduce_sum(outputs.discriminator_losses * weights, -1) / tf.reduce_sum(weights, -1)
    assert_close(metrics["masked_lm_loss"], golden["out/mlm_loss"], 1e-5)
    assert_close(metrics["disc_loss"], golden["out/disc_loss"], 1e-5)
    assert_close(metrics["loss"], golden["out/total_loss"], 1e-5)
    assert_close(rows, golden["out/disc_per_example_loss"], 1e-5)
    assert_close(forward["loss"], golden["out/total_loss"], 1e-5)


def test_attention_maps(forward, golden, golden_batch):
    """softmax(q.k / sqrt(d)) over the tokens that are not padding, of every block."""
    inputs, _, _ = golden_batch
    model, x = forward["model"], forward["discriminator"].embeddings
    bias = model.discriminator.attention_bias(inputs.input_mask)
    for i, block in enumerate(model.discriminator.blocks):
        probabilities = block.attention_probabilities(x, bias)
        assert_close(probabilities, golden["out/disc_attention_maps"][i], 1e-5, f"layer {i}")
        x = block(x, bias)


def test_gradients(forward, golden):
    """Those of key biases are 0 in theory and rounding noise of up to 5e-8 in the golden file."""
    assert len(forward["gradients"]) == 114
    for name, gradient in forward["gradients"].items():
        noise = 2e-7 if name.endswith("key/bias") else 0.0
        assert_close(gradient, golden[f"grad/{name}"], 1e-4, name, atol=noise)


def three_steps(model, batch, rate_of_update, generator_weight=1.0, discriminator_weight=50.0):
    """Three optimiser steps on one batch; `rate_of_update(n)` is the rate of update number n + 1.

    Returns:
      weights after each step, the optimiser, and the rates, norms and losses of the steps.
    """
    inputs, masked, sampled_ids = batch
    config = dataclasses.replace(model.config, generator_weight=generator_weight,
                                 discriminator_weight=discriminator_weight)
    adam = Adam(model.trainable_variables, rate_of_update, SCHEDULE)

    def step():
        with tf.GradientTape() as tape:
            outputs = model(inputs, masked, sampled_ids=sampled_ids)
            denominators = loss_denominators(inputs, masked, config, model.vocab)
            loss = total_loss(outputs, denominators, config)
        gradients = [tf.convert_to_tensor(g)
                     for g in tape.gradient(loss, model.trainable_variables)]
        scale, norm = clip_by_global_norm(gradients, SCHEDULE.clip_norm)
        rate = rate_of_update(adam.iterations + 1)
        sums = metric_sums(outputs, masked, model.config)
        adam.apply(gradients, tf.constant(True), scale)
        return dict(learning_rate=rate, global_norm=norm, total_loss=loss,
                    mlm_loss=sums["mlm_loss"] / sums["mlm_weight"],
                    disc_loss=sums["discriminator_loss"] / sums["tokens"])

    weights, rows = [], []
    for _ in range(3):
        rows.append({name: value.numpy() for name, value in step().items()})
        weights.append(get_weights(model))
    return weights, adam, {name: np.array([row[name] for row in rows]) for name in rows[0]}


def assert_same_steps(found, golden, group):
    for name, values in found.items():
        if f"{group}/{name}" in golden:
            assert_close(values, golden[f"{group}/{name}"], 1e-5, f"{group}/{name}")


def rate_of_step_before(completed):
    return learning_rate(completed - 1, SCHEDULE)


def rate_of_step_after(completed):
    return learning_rate(completed, SCHEDULE)


def test_three_steps_with_the_rate_of_the_step_before(golden_model, golden_batch, golden):
    model = golden_model()
    weights, adam, found = three_steps(model, golden_batch, rate_of_step_before)
    assert_same_steps(found, golden, "opt")
    np.testing.assert_array_equal(weights[0]["electra/embeddings/word_embeddings"],
                                  golden["init/electra/embeddings/word_embeddings"])
    for i, after in enumerate(weights, start=1):
        for name, value in after.items():
            np.testing.assert_allclose(value, golden[f"step{i}/{name}"], rtol=0, atol=1e-6,
                                       err_msg=f"step {i}: {name}")
    for moments, group, noise in ((adam.first_moments, "adam_m3", 2e-7),
                                  (adam.second_moments, "adam_v3", 1e-12)):
        by_variable = {v.ref(): m for v, m in
                       zip(model.trainable_variables, moments, strict=True)}
        for name, variable in named_variables(model).items():
            moment = by_variable[variable.ref()].numpy()
            assert_close(moment, golden[f"{group}/{name}"], 1e-4, f"{group}/{name}", atol=noise)


def test_three_steps_with_the_rate_of_the_step_after(golden_model, golden_batch, golden):
    """The order of the original's graph, which does not define one, is also the order here."""
    weights, _, found = three_steps(golden_model(), golden_batch, rate_of_step_after)
    assert_same_steps(found, golden, "postincrement")
    for name, value in weights[-1].items():
        np.testing.assert_allclose(value, golden[f"postincrement/step3/{name}"], rtol=0, atol=1e-6,
                                   err_msg=name)


def test_three_steps_below_the_clipping_norm(golden_model, golden_batch, golden):
    weights, _, found = three_steps(
        golden_model(), golden_batch, rate_of_step_before, 0.01, 0.02)
    assert_same_steps(found, golden, "unclipped")
    assert (found["global_norm"] < 1).all()
    for name, value in weights[-1].items():
        np.testing.assert_allclose(value, golden[f"unclipped/step3/{name}"], rtol=0, atol=1e-6,
                                   err_msg=name)


def test_schedule(golden):
    """At step 299999 the original's float32 gives 1.6689e-9, which is 1 - 299999/300000 rounded."""
    arguments = json.loads(str(golden["lr_schedule/json"]))
    config = PretrainingConfig(learning_rate=5e-4, num_train_steps=300_000, warmup_steps=10_000)
    assert sorted(arguments.values()) == [5e-4, 1.0, 10_000, 300_000]
    rates = learning_rate(tf.constant(golden["lr_schedule/steps"]), config).numpy()
    np.testing.assert_array_max_ulp(rates, golden["lr_schedule/lr"], maxulp=1)


def test_layer_rates():
    expected = json.loads((GOLDEN / "layer_lrs.json").read_text())
    n = expected["n_layers"]
    rates = [expected["learning_rate"] * m
             for m in layerwise_multipliers(n, expected["layer_decay"])]
    original = expected["layer_lrs"]
    assert rates[0] == pytest.approx(original["/embeddings/"], rel=1e-12)
    assert rates[1:-1] == pytest.approx(
        [original[f"encoder/layer_{i}/"] for i in range(n)], rel=1e-12)
    assert rates[-1] == original["task_specific/"]


def test_scatter_and_gather(golden):
    """Meeting updates are averaged with floor division, those at position 0 are dropped."""
    positions = tf.constant(golden["scatter/positions"])
    result, written = scatter_update(
        tf.constant(golden["scatter/int_sequence"]), tf.constant(golden["scatter/int_updates"]),
        positions)
    np.testing.assert_array_equal(result, golden["scatter/int_result"])
    np.testing.assert_array_equal(written, golden["scatter/int_updates_mask"])
    np.testing.assert_array_equal(
        gather_positions(tf.constant(golden["scatter/float_sequence"]), positions),
        golden["scatter/gather_float"])


def test_canonical_names_are_the_originals(forward, golden_weights):
    assert set(named_variables(forward["model"])) == set(golden_weights)
    shapes = {name: v.shape for name, v in named_variables(forward["model"]).items()}
    assert shapes == {name: array.shape for name, array in golden_weights.items()}


def test_another_weight_gives_another_output(golden_model, golden_batch, golden, golden_weights):
    """The comparison above notices a change of any tensor; here query and key are swapped."""
    inputs, masked, sampled_ids = golden_batch
    model = golden_model()
    at = "electra/encoder/layer_1/attention/self"
    set_weights(model, {**golden_weights, f"{at}/query/kernel": golden_weights[f"{at}/value/kernel"]},
                "swapped")
    logits = model(inputs, masked, sampled_ids=sampled_ids).discriminator_logits
    with pytest.raises(AssertionError):
        assert_close(logits, golden["out/disc_logits"], 1e-5)
