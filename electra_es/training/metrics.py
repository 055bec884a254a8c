"""Metrics as sums: what a step adds up on device, and the ratios taken of it on the host.

Sums over micro-batches, replicas, steps and hosts simply add, so a metric over any stretch is
exact and costs no synchronisation inside the loop.

Source of the definitions: `run_pretraining.metric_fn` of google-research/electra.
Shapes: B batch, L length, K predictions.
"""

import numpy as np
import tensorflow as tf

from electra_es.model.batches import MaskedInputs
from electra_es.model.pretrainer import Outputs

AUC_BINS = 1000
METRIC_SUMS = ("mlm_loss", "mlm_weight", "selected", "mlm_right", "sampled_right", "rtd_loss",
               "tokens", "rtd_right", "flagged", "replaced", "flagged_and_replaced")


def metric_sums(outputs: Outputs, masked: MaskedInputs) -> dict[str, tf.Tensor]:
    """Sums over one batch: float32 scalars under the names of METRIC_SUMS."""
    used = masked.weights
    predicted = tf.argmax(outputs.mlm_logits, axis=-1, output_type=tf.int32)
    labels = tf.cast(outputs.labels, tf.float32)
    flagged = tf.cast(outputs.rtd_logits > 0, tf.float32)
    tokens = outputs.rtd_weights
    right = tf.cast(tf.equal(flagged, labels), tf.float32)
    return {
        "mlm_loss": tf.reduce_sum(outputs.mlm_losses * outputs.mlm_weights),
        "mlm_weight": tf.reduce_sum(outputs.mlm_weights),
        "selected": tf.reduce_sum(used),
        "mlm_right": tf.reduce_sum(used * tf.cast(predicted == masked.original_ids, tf.float32)),
        "sampled_right": tf.reduce_sum(
            used * tf.cast(outputs.sampled_ids == masked.original_ids, tf.float32)),
        "rtd_loss": tf.reduce_sum(outputs.rtd_losses * tokens),
        "tokens": tf.reduce_sum(tokens),
        "rtd_right": tf.reduce_sum(right * tokens),
        "flagged": tf.reduce_sum(flagged * tokens),
        "replaced": tf.reduce_sum(labels * tokens),
        "flagged_and_replaced": tf.reduce_sum(flagged * labels * tokens),
    }


def auc_histograms(outputs: Outputs) -> dict[str, tf.Tensor]:
    """Histograms, float32 [AUC_BINS], of the discriminator's probability for original and for
    replaced tokens (evaluation only)."""
    bins = tf.cast(tf.sigmoid(outputs.rtd_logits) * AUC_BINS, tf.int32)
    bins = tf.reshape(tf.minimum(bins, AUC_BINS - 1), [-1])
    replaced = tf.reshape(tf.cast(outputs.labels, tf.float32) * outputs.rtd_weights, [-1])
    original = tf.reshape(outputs.rtd_weights, [-1]) - replaced
    return {
        "replaced_histogram": tf.math.unsorted_segment_sum(replaced, bins, AUC_BINS),
        "original_histogram": tf.math.unsorted_segment_sum(original, bins, AUC_BINS),
    }


def summarise(sums: dict[str, np.ndarray], generator_weight: float,
              discriminator_weight: float) -> dict[str, float]:
    """Turns sums into the original's metrics.

    Returns:
      loss, masked_lm_loss, masked_lm_accuracy, sampled_masked_lm_accuracy, disc_loss,
      disc_accuracy, disc_precision, disc_recall, replaced_share and, where there are histograms,
      disc_auc. All of them count [CLS] and [SEP] among the discriminator's tokens.
    """
    def ratio(above: str, below: str) -> float:
        return float(sums[above]) / max(float(sums[below]), 1e-6)

    result = {
        "masked_lm_loss": ratio("mlm_loss", "mlm_weight"),
        "masked_lm_accuracy": ratio("mlm_right", "selected"),
        "sampled_masked_lm_accuracy": ratio("sampled_right", "selected"),
        "disc_loss": ratio("rtd_loss", "tokens"),
        "disc_accuracy": ratio("rtd_right", "tokens"),
        "disc_precision": ratio("flagged_and_replaced", "flagged"),
        "disc_recall": ratio("flagged_and_replaced", "replaced"),
        "replaced_share": ratio("replaced", "tokens"),
    }
    result["loss"] = (generator_weight * result["masked_lm_loss"]
                      + discriminator_weight * result["disc_loss"])
    if "replaced_histogram" in sums:
        result["disc_auc"] = area_under_curve(sums["original_histogram"], sums["replaced_histogram"])
    return result


def area_under_curve(negatives: np.ndarray, positives: np.ndarray) -> float:
    """Area under the ROC curve from histograms over the same bins of the score; ties count half.

    The original uses 200 thresholds and counts padding as negatives with score 0, which flatters
    the figure; here padding has no weight.
    """
    negatives, positives = np.asarray(negatives, np.float64), np.asarray(positives, np.float64)
    below = np.cumsum(negatives) - negatives
    pairs = negatives.sum() * positives.sum()
    return float((positives * (below + 0.5 * negatives)).sum() / pairs) if pairs else 0.5
