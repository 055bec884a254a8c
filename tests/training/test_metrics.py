"""Metrics by hand, and as sums that add up over any split of the data."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from electra_es.config import ModelConfig
from electra_es.data.inputs import synthetic_batch
from electra_es.model.batches import MaskedInputs
from electra_es.model.masking import mask_tokens
from electra_es.model.pretrainer import Outputs, build_pretrainer
from electra_es.model.randomness import derive_key
from electra_es.training.metrics import (
    AUC_BINS,
    area_under_curve,
    auc_bins,
    auc_histograms,
    metric_sums,
    summarise,
)

# Two rows of five tokens, the last two of row 1 padding; two predictions each, one slot unused.
DISCRIMINATOR_LOGITS = [[-2.0, 1.0, 3.0, -1.0, -3.0], [0.5, -0.5, 2.0, 9.0, 9.0]]
LABELS = [[0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]
TOKENS = [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
ORIGINAL, SAMPLED, USED = [[5, 6], [7, 0]], [[5, 9], [8, 4]], [[1, 1], [1, 0]]


def outputs_and_masked():
    mlm_logits = np.zeros((2, 2, 11), np.float32)
    mlm_logits[0, 0, 5] = mlm_logits[0, 1, 3] = mlm_logits[1, 0, 7] = mlm_logits[1, 1, 0] = 4.0
    floats = [tf.constant(x, tf.float32) for x in (DISCRIMINATOR_LOGITS, TOKENS)]
    outputs = Outputs(
        mlm_logits=tf.constant(mlm_logits), mlm_losses=tf.constant([[1.0, 3.0], [2.0, 50.0]]),
        mlm_weights=tf.constant(USED, tf.float32), sampled_ids=tf.constant(SAMPLED),
        corrupted_ids=tf.zeros([2, 5], tf.int32), labels=tf.constant(LABELS),
        discriminator_logits=floats[0],
        discriminator_losses=tf.constant([[.1, .2, .3, .4, .5], [.6, .7, .8, 9, 9]]),
        discriminator_weights=floats[1])
    masked = MaskedInputs(tf.zeros([2, 5], tf.int32), tf.zeros([2, 2], tf.int32),
                          tf.constant(ORIGINAL), tf.constant(USED, tf.float32))
    return outputs, masked


def test_metrics_by_hand():
    outputs, masked = outputs_and_masked()
    sums = {**metric_sums(outputs, masked, ModelConfig()), **auc_histograms(outputs)}
    found = summarise({name: value.numpy() for name, value in sums.items()}, 2.0, 50.0)
    # 8 tokens; flagged: +1, +3 of row 0 (both replaced), +0.5 (not), +2 (replaced) of row 1.
    assert found == pytest.approx({
        "masked_lm_loss": 6 / 3, "masked_lm_accuracy": 2 / 3, "sampled_masked_lm_accuracy": 1 / 3,
        "disc_loss": 3.6 / 8, "disc_accuracy": 6 / 8, "disc_precision": 3 / 4,
        "disc_recall": 3 / 4, "replaced_share": 4 / 8, "loss": 2 * 2 + 50 * 0.45,
        # Of 16 pairs one replaced token (-1) is below two originals (0.5, -0.5).
        "disc_auc": 14 / 16,
    }, rel=1e-6)


@pytest.mark.parametrize("settings, missing", [
    (dict(objective="mlm"), {"disc_loss", "disc_accuracy", "disc_precision", "disc_recall", "disc_auc",
                             "replaced_share", "sampled_masked_lm_accuracy"}),
    (dict(generator_kind="uniform"), {"masked_lm_loss", "masked_lm_accuracy",
                                      "sampled_masked_lm_accuracy"}),
    (dict(generator_kind="shared"), set()),
    (dict(objective="electric", generator_kind="two_tower"), set()),
])
def test_a_part_that_the_model_lacks_has_no_figures(tiny_config, vocab_facts, settings, missing):
    config = tiny_config(num_layers=1, **settings)
    model = build_pretrainer(config, vocab_facts)
    inputs = synthetic_batch(2, 13, 61)
    masked = mask_tokens(inputs, config, vocab_facts, derive_key(1, "masking"))
    outputs = model(inputs, masked, tf.fill([2, 2], 0.5))
    sums = {**metric_sums(outputs, masked, config), **auc_histograms(outputs)}
    found = summarise({name: value.numpy() for name, value in sums.items()}, 2.0, 50.0)
    everything = {"loss", "masked_lm_loss", "masked_lm_accuracy", "sampled_masked_lm_accuracy",
                  "disc_loss", "disc_accuracy", "disc_precision", "disc_recall", "replaced_share",
                  "disc_auc"}
    assert found.keys() == everything - missing
    assert found["loss"] == pytest.approx(
        2 * found.get("masked_lm_loss", 0) + 50 * found.get("disc_loss", 0))


def test_empty_sums_give_numbers():
    outputs, masked = outputs_and_masked()
    sums = {**metric_sums(outputs, masked, ModelConfig()), **auc_histograms(outputs)}
    found = summarise({name: 0 * value.numpy() for name, value in sums.items()}, 1.0, 50.0)
    assert found["loss"] == 0 and found["disc_auc"] == 0.5


def test_area_is_the_share_of_ordered_pairs():
    """Against counting pairs, ties as half, on scores that are exact at the bins."""
    random = np.random.default_rng(4)
    scores = random.integers(0, 40, 300)
    positive = random.random(300) < 0.2 + 0.01 * scores
    pairs = np.sign(scores[positive][:, None] - scores[~positive][None]) / 2 + 0.5
    histograms = [np.bincount(scores[p], minlength=40) for p in (~positive, positive)]
    assert area_under_curve(*histograms) == pytest.approx(pairs.mean(), abs=1e-12)
    assert 0.6 < pairs.mean() < 0.9
    assert area_under_curve([1, 0], [0, 1]) == 1 and area_under_curve([0, 1], [1, 0]) == 0


def test_histograms_leave_padding_out():
    outputs, _ = outputs_and_masked()
    histograms = {name: value.numpy() for name, value in auc_histograms(outputs).items()}
    assert histograms["replaced_histogram"].sum() == histograms["original_histogram"].sum() == 4
    # The logit 9 is padding's alone.
    assert not any(h[int(auc_bins(9.0)) - 10:].any() for h in histograms.values())
    assert histograms["original_histogram"][int(auc_bins(-2.0))] == 1


@pytest.mark.parametrize("mean, deviation, distance", [
    (-1.75, 0.01, 0.01), (-1.8, 0.5, 0.5), (-8, 2, 4), (-30, 10, 20), (0, 2e3, 500)])
def test_area_equals_scikit_learns(mean, deviation, distance):
    """Also where the logits lie close together, or nearly all probabilities near 0."""
    random = np.random.default_rng(3)
    labels = random.random(5_003) < 0.13
    logits = (mean + distance * labels + deviation * random.standard_normal(5_003)).astype(np.float32)
    bins = auc_bins(tf.constant(logits)).numpy()
    assert bins.min() >= 0 and (np.diff(bins[np.argsort(logits)]) >= 0).all()
    found = area_under_curve(*(np.bincount(bins[labels == label], minlength=AUC_BINS)
                               for label in (False, True)))
    # Logits beyond ±1000 share a bin, so the last case says less.
    expected = roc_auc_score(labels, np.clip(logits, -1000, 1000))
    assert found == pytest.approx(expected, abs=2e-4) and 0.55 < expected < 0.95
