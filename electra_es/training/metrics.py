"""Metrics as sums: a step adds them up on the device, and the host computes ratios from them.

Sums over micro-batches, replicas, steps and hosts can be added. So a metric over any number of steps
is exact, and needs no synchronisation inside the loop.

Source of the definitions: `run_pretraining.metric_fn` of google-research/electra.
Shapes: B batch, L length, K predictions.
"""

import math

import numpy as np
import tensorflow as tf

from electra_es.config import ModelConfig
from electra_es.model.batches import MaskedInputs
from electra_es.model.pretrainer import Outputs

# Bins of the discriminator's logit, at equal distances of sign(x) log(1 + |x|). Bins of the probability
# would be too wide for a model that is sure of nearly every token, or has the same logit for all.
AUC_BINS = 40_000
_GREATEST_LOGIT = 1_000.0
_GENERATOR_SUMS = ("mlm_loss", "mlm_weight", "selected", "mlm_right")
_DISCRIMINATOR_SUMS = ("discriminator_loss", "discriminator_right", "flagged", "replaced",
                       "flagged_and_replaced")


def metric_names(config: ModelConfig) -> list[str]:
    """The names of the sums; a part that the model does not have has none."""
    names = ["tokens"]
    if config.generator_kind != "uniform":  # a uniform generator learns nothing: its loss is always ln V
        names += _GENERATOR_SUMS
    if config.objective != "mlm":
        names += _DISCRIMINATOR_SUMS
    if config.generator_kind != "uniform" and config.objective != "mlm":
        names.append("sampled_right")
    return names


def metric_sums(outputs: Outputs, masked: MaskedInputs, config: ModelConfig) -> dict[str, tf.Tensor]:
    """Sums over one batch: float32 scalars under the names of `metric_names`."""
    used = masked.weights
    target = tf.gather(outputs.mlm_logits, masked.original_ids, batch_dims=2)
    mlm_right = tf.cast(target >= tf.reduce_max(outputs.mlm_logits, axis=-1), tf.float32)
    tokens = outputs.discriminator_weights
    assert tokens is not None
    sums = {
        "tokens": tf.reduce_sum(tokens),
        "mlm_loss": tf.reduce_sum(outputs.mlm_losses * outputs.mlm_weights),
        "mlm_weight": tf.reduce_sum(outputs.mlm_weights),
        "selected": tf.reduce_sum(used),
        "mlm_right": tf.reduce_sum(used * mlm_right),
    }
    if outputs.discriminator_logits is not None:
        assert outputs.discriminator_losses is not None
        labels = tf.cast(outputs.labels, tf.float32)
        flagged = tf.cast(outputs.discriminator_logits > 0, tf.float32)
        right = tf.cast(tf.equal(flagged, labels), tf.float32)
        sums |= {
            "sampled_right": tf.reduce_sum(
                used * tf.cast(outputs.sampled_ids == masked.original_ids, tf.float32)),
            "discriminator_loss": tf.reduce_sum(outputs.discriminator_losses * tokens),
            "discriminator_right": tf.reduce_sum(right * tokens),
            "flagged": tf.reduce_sum(flagged * tokens),
            "replaced": tf.reduce_sum(labels * tokens),
            "flagged_and_replaced": tf.reduce_sum(flagged * labels * tokens),
        }
    return {name: sums[name] for name in metric_names(config)}


def auc_histograms(outputs: Outputs) -> dict[str, tf.Tensor]:
    """Histograms, float32 [AUC_BINS], of the discriminator's logit for original and for replaced
    tokens (evaluation only); none without a discriminator."""
    if outputs.discriminator_logits is None:
        return {}
    bins = tf.reshape(auc_bins(outputs.discriminator_logits), [-1])
    replaced = tf.reshape(tf.cast(outputs.labels, tf.float32) * outputs.discriminator_weights, [-1])
    original = tf.reshape(outputs.discriminator_weights, [-1]) - replaced
    return {
        "replaced_histogram": tf.math.unsorted_segment_sum(replaced, bins, AUC_BINS),
        "original_histogram": tf.math.unsorted_segment_sum(original, bins, AUC_BINS),
    }


def auc_bins(logits: tf.Tensor) -> tf.Tensor:
    """The bin of each logit, int32 of the same shape; logits beyond ±1000 share the last ones."""
    place = tf.sign(logits) * tf.math.log1p(tf.abs(logits)) / math.log1p(_GREATEST_LOGIT)
    return tf.clip_by_value(tf.cast((place + 1) * (AUC_BINS // 2), tf.int32), 0, AUC_BINS - 1)


def summarise(sums: dict[str, np.ndarray], generator_weight: float,
              discriminator_weight: float) -> dict[str, float]:
    """Turns sums into the original's metrics, for those parts that have sums.

    Returns:
      loss; for a generator that learns: masked_lm_loss, masked_lm_accuracy; for a discriminator:
      disc_loss, disc_accuracy, disc_precision, disc_recall, replaced_share and, with histograms,
      disc_auc (these count [CLS] and [SEP] as tokens); for both: sampled_masked_lm_accuracy.
    """
    def ratio(above: str, below: str) -> float:
        return float(sums[above]) / max(float(sums[below]), 1e-6)

    result = {"loss": 0.0}
    if "mlm_loss" in sums:
        result["masked_lm_loss"] = ratio("mlm_loss", "mlm_weight")
        result["masked_lm_accuracy"] = ratio("mlm_right", "selected")
        result["loss"] += generator_weight * result["masked_lm_loss"]
    if "sampled_right" in sums:
        result["sampled_masked_lm_accuracy"] = ratio("sampled_right", "selected")
    if "discriminator_loss" in sums:
        result["disc_loss"] = ratio("discriminator_loss", "tokens")
        result["disc_accuracy"] = ratio("discriminator_right", "tokens")
        result["disc_precision"] = ratio("flagged_and_replaced", "flagged")
        result["disc_recall"] = ratio("flagged_and_replaced", "replaced")
        result["replaced_share"] = ratio("replaced", "tokens")
        result["loss"] += discriminator_weight * result["disc_loss"]
    if "replaced_histogram" in sums:
        result["disc_auc"] = area_under_curve(sums["original_histogram"], sums["replaced_histogram"])
    return result


def area_under_curve(negatives: np.ndarray, positives: np.ndarray) -> float:
    """Area under the ROC curve from histograms over the same bins of the score; ties count half.

    The original uses 200 thresholds and counts padding as negatives with score 0, which makes the
    figure too good. Here padding has no weight.
    """
    negatives, positives = np.asarray(negatives, np.float64), np.asarray(positives, np.float64)
    below = np.cumsum(negatives) - negatives
    pairs = negatives.sum() * positives.sum()
    return float((positives * (below + 0.5 * negatives)).sum() / pairs) if pairs else 0.5
