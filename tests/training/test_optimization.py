"""The schedule as lists of numbers, Adam's update by hand, clipping, the printed schedule."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from paths import ROOT

from electra_es.config import PretrainingConfig
from electra_es.model.variables import named_variables
from electra_es.training.optimization import (
    _NOT_DECAYED,
    Adam,
    clip_by_global_norm,
    layerwise_multipliers,
    learning_rate,
    print_schedule,
    schedule_for,
)


def config(**settings):
    return PretrainingConfig(**{
        **dict(learning_rate=1.0, num_train_steps=10, warmup_steps=0), **settings})


def rates(**settings):
    """The rate at every step from 0 to the last."""
    pretraining = config(**settings)
    return learning_rate(tf.range(pretraining.num_train_steps + 1), pretraining).numpy()


@pytest.mark.parametrize("settings, expected", [
    (dict(), [1, .9, .8, .7, .6, .5, .4, .3, .2, .1, 0]),
    # The warm-up multiplies the decay: 0.9 * 1/4, 0.8 * 2/4, 0.7 * 3/4, then the decay alone.
    (dict(warmup_steps=4), [0, .225, .4, .525, .6, .5, .4, .3, .2, .1, 0]),
    (dict(lr_decay_power=2.0), [1, .81, .64, .49, .36, .25, .16, .09, .04, .01, 0]),
    (dict(lr_schedule="constant"), [1] * 11),
    (dict(lr_schedule="constant", warmup_steps=4), [0, .25, .5, .75, *[1] * 7]),
    # (1 + cos(pi t / 4)) / 2
    (dict(lr_schedule="cosine", num_train_steps=4), [1, .8535534, .5, .1464466, 0]),
    # Cycles of 4 and 6 steps, each from the peak.
    (dict(restart_steps=(4,)), [1, .75, .5, .25, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0]),
    # Each cycle with its own warm-up of 2 steps.
    (dict(restart_steps=(4,), warmup_steps=2),
     [0, .375, .5, .25, 0, 5 / 12, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0]),
    (dict(restart_steps=(2, 6), lr_schedule="cosine"),
     [1, .5, 1, .8535534, .5, .1464466, 1, .8535534, .5, .1464466, 0]),
    (dict(learning_rate=5e-4, num_train_steps=2), [5e-4, 2.5e-4, 0]),
], ids=str)
def test_schedule(settings, expected):
    np.testing.assert_allclose(rates(**settings), expected, rtol=2e-7, atol=1e-7)


def test_schedule_ends_at_its_last_step():
    assert learning_rate(tf.constant(25), config()).numpy() == 0


def test_schedule_of_selectra():
    """300k steps, a restart at 150k, peak 5e-4, warm-up of 10k steps (model card)."""
    selectra = config(learning_rate=5e-4, num_train_steps=300_000, warmup_steps=10_000,
                      restart_steps=(150_000,))
    steps = [0, 5_000, 10_000, 75_000, 149_999, 150_000, 155_000, 160_000, 300_000]
    found = learning_rate(tf.constant(steps), selectra).numpy()
    first = [0, 5e-4 * 29 / 30 / 2, 5e-4 * 14 / 15, 2.5e-4, 5e-4 / 150_000]
    np.testing.assert_allclose(found, [*first, *first[:3], 0], rtol=2e-3, atol=0)
    np.testing.assert_allclose(found[:4], first[:4], rtol=2e-7)


def adam_steps(gradients, name="dense/kernel", start=0.5, multipliers=None, finite=None, scale=1.0,
               **settings):
    variable = tf.Variable([start, -2.0 * start], name=name)
    pretraining = config(learning_rate=0.1, lr_schedule="constant", **settings)
    adam = Adam([variable], schedule_for(pretraining), pretraining, multipliers)
    for i, gradient in enumerate(gradients):
        adam.apply([tf.constant(gradient, tf.float32)], tf.constant(finite is None or finite[i]),
                   scale)
    return variable.numpy(), adam


def by_hand(gradients, start=0.5, decay=0.01, b1=0.9, b2=0.999, epsilon=1e-6, rate=0.1):
    w = np.array([start, -2.0 * start])
    m = v = np.zeros(2)
    for g in np.array(gradients):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        w = w - rate * (m / (np.sqrt(v) + epsilon) + decay * w)
    return w


GRADIENTS = [[0.3, -0.02], [0.1, 0.04], [-0.2, 0.0]]


@pytest.mark.parametrize("settings, changed", [
    (dict(), dict()),
    (dict(weight_decay=0.1), dict(decay=0.1)),
    (dict(weight_decay=0.0), dict(decay=0.0)),
    (dict(adam_beta1=0.5), dict(b1=0.5)),
    (dict(adam_beta2=0.9), dict(b2=0.9)),
    (dict(adam_epsilon=0.01), dict(epsilon=0.01)),
])
def test_adam_by_hand(settings, changed):
    weights, _ = adam_steps(GRADIENTS, **settings)
    np.testing.assert_allclose(weights, by_hand(GRADIENTS, **changed), rtol=2e-6)
    if changed:
        assert np.abs(weights - by_hand(GRADIENTS)).max() > 1e-4


def test_first_update_has_no_bias_correction():
    """m / sqrt(v) of the first step is 0.1 / sqrt(0.001) = 3.16; corrected it would be 1."""
    weights, _ = adam_steps([[0.3, -0.3]], weight_decay=0.0)
    np.testing.assert_allclose(weights, [0.5 - 0.316228, -1 + 0.316228], atol=1e-4)


@pytest.mark.parametrize("name, decays", [
    ("layer_0/output/kernel", True),
    ("embeddings/word_embeddings", True),
    ("layer_0/output/bias", False),
    ("generator_predictions/output_bias", False),
    ("layer_0/output_layer_norm/gamma", False),
    ("embeddings/LayerNorm/beta", False),
])
def test_layer_norm_and_biases_do_not_decay(name, decays):
    weights, _ = adam_steps([[0.0, 0.0]], name=name, weight_decay=0.5)
    np.testing.assert_allclose(weights, [0.475, -0.95] if decays else [0.5, -1.0], rtol=1e-6)


def test_every_variable_of_a_model_is_in_its_decay_group(golden_model):
    """The group follows from the variable's name, which Keras makes of its layers' names."""
    for canonical, variable in named_variables(golden_model()).items():
        one_dimensional = canonical.endswith(("bias", "beta", "gamma"))
        assert bool(_NOT_DECAYED.search(variable.name)) == one_dimensional, variable.name


def test_multipliers_scale_the_whole_update():
    full, _ = adam_steps([[0.3, -0.02]])
    half, _ = adam_steps([[0.3, -0.02]], multipliers=[0.5])
    np.testing.assert_allclose(half - [0.5, -1.0], (full - [0.5, -1.0]) / 2, rtol=1e-5)
    assert layerwise_multipliers(2, 0.5) == [0.0625, 0.125, 0.25, 1.0]


def test_gradients_are_scaled_in_the_update():
    weights, _ = adam_steps(GRADIENTS, scale=0.25)
    np.testing.assert_allclose(weights, by_hand(0.25 * np.array(GRADIENTS)), rtol=2e-6)
    assert np.abs(weights - by_hand(GRADIENTS)).max() > 1e-6


def test_a_step_that_is_not_finite_changes_nothing_but_the_count():
    bad = [[0.3, -0.02], [float("nan"), float("inf")], [0.1, 0.04]]
    weights, adam = adam_steps(bad, finite=[True, False, True])
    np.testing.assert_allclose(weights, by_hand([bad[0], bad[2]]), rtol=2e-6)
    assert int(adam.iterations) == 3


def test_rate_of_an_update_is_that_of_the_step_it_completes():
    variable = tf.Variable([0.0], name="bias")
    pretraining = config(lr_decay_power=1.0, weight_decay=0.0)
    seen = []

    def schedule(completed):
        seen.append(int(completed))
        return learning_rate(completed, pretraining)

    adam = Adam([variable], schedule, pretraining)
    for _ in range(3):
        adam.apply([tf.constant([1.0])], tf.constant(True))
    assert seen == [1, 2, 3]


def test_clipping():
    gradients = [tf.constant([3.0, 0.0]), tf.constant([[4.0]])]
    scale, norm = clip_by_global_norm(gradients, 2.0)
    assert norm.numpy() == 5.0
    np.testing.assert_allclose(scale * gradients[0], [1.2, 0.0], rtol=1e-6)
    np.testing.assert_allclose(scale * gradients[1], [[1.6]], rtol=1e-6)
    for clip_norm in (0.0, 5.0, 50.0):
        scale, _ = clip_by_global_norm(gradients, clip_norm)
        np.testing.assert_array_equal(scale * gradients[1], [[4.0]])
    _, norm = clip_by_global_norm([tf.constant([1.0, float("nan")])], 1.0)
    assert not np.isfinite(norm.numpy())


def test_print_schedule(capsys):
    print_schedule(config(learning_rate=5e-4, num_train_steps=300, warmup_steps=10,
                          restart_steps=(150,)), rows=4)
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(printed) == ["0", "10", "75", "149", "150", "160", "225", "300"]
    assert printed["75"] == "2.5000e-04  " + "#" * 25
    assert printed["10"].split()[0] == printed["160"].split()[0] == "4.6667e-04"
    assert float(printed["150"].split()[0]) == 0


def test_print_schedule_flag():
    done = subprocess.run(
        [sys.executable, "run_pretraining.py", "--print_schedule", "--model_size=small",
         "--lr_schedule=constant", "--warmup_steps=20000", "--restart_steps="], cwd=ROOT,
        capture_output=True, text=True, check=True)
    table = dict(line.split()[:2] for line in done.stdout.splitlines())
    assert table["0"] == "0.0000e+00" and table["15000"] == "3.7500e-04"
    assert table["150000"] == table["300000"] == "5.0000e-04"
