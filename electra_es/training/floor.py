"""The floor of an evaluation: what counting tokens reaches on the same masks and samples.

The frequency detector scores a token by minus the logarithm of its count in the training records,
whatever stands beside it. The unigram model predicts every [MASK] with the same probabilities, which are
shares of the counts, and repeats a selected token that it can see: those were left as they were, so a
copy costs nothing. A model that does no better has learnt nothing about context.

Shapes: B batch, L length, K predictions, V vocabulary.
"""

import numpy as np
import tensorflow as tf

from electra_es.config import ModelConfig
from electra_es.model.batches import Inputs, MaskedInputs, VocabularyFacts
from electra_es.model.masking import gather_positions
from electra_es.model.pretrainer import Outputs
from electra_es.training.metrics import area_under_curve


def id_histograms(outputs: Outputs, inputs: Inputs, masked: MaskedInputs, config: ModelConfig,
                  vocab: VocabularyFacts) -> dict[str, tf.Tensor]:
    """How often each id occurs, float32 [V]: as `original_ids` and `replaced_ids` in the corrupted text
    with a discriminator, as `target_ids` among what a generator that learns has to predict unseen."""
    found = {}
    if config.generator_kind != "uniform":
        if config.generator_kind == "two_tower":  # it predicts every token, not the masked ones
            targets, weights = inputs.input_ids, outputs.mlm_weights
        else:
            shown = gather_positions(masked.input_ids[..., tf.newaxis], masked.positions)[..., 0]
            hidden = tf.cast(shown == vocab.mask_id, tf.float32)
            targets, weights = masked.original_ids, outputs.mlm_weights * hidden
        found["target_ids"] = _histogram(targets, weights, vocab.size)
    if outputs.discriminator_logits is not None:
        replaced = tf.cast(outputs.labels, tf.float32) * outputs.discriminator_weights
        original = outputs.discriminator_weights - replaced
        found["original_ids"] = _histogram(outputs.corrupted_ids, original, vocab.size)
        found["replaced_ids"] = _histogram(outputs.corrupted_ids, replaced, vocab.size)
    return found


def _histogram(ids: tf.Tensor, weights: tf.Tensor, vocab_size: int) -> tf.Tensor:
    return tf.math.unsorted_segment_sum(
        tf.reshape(weights, [-1]), tf.reshape(ids, [-1]), vocab_size)


def floor_metrics(sums: dict[str, np.ndarray], metrics: dict[str, float], id_counts: np.ndarray,
                  vocab: VocabularyFacts) -> dict[str, float]:
    """What counting reaches, for the parts that the model has.

    Args:
      sums: sums of `id_histograms` and of `metric_sums`.
      metrics: `summarise` of the same evaluation.
      id_counts: int [V], of the training records.
      vocab: says which ids are never masked.

    Returns:
      for a generator: floor_masked_lm_loss, that of the unigram model which copies; for a discriminator:
      floor_disc_auc, exact, ties count half; floor_disc_accuracy, that of always saying "original", which
      no count makes better as long as most tokens of each count are original; and by how much the
      discriminator is above both, disc_auc_above_floor and disc_accuracy_above_floor.
    """
    found = {}
    if "target_ids" in sums:
        log_p = unigram_log_probabilities(id_counts, vocab)
        used = sums["target_ids"] > 0  # an id that is never masked has probability 0
        targets = sums["target_ids"][used]
        found["floor_masked_lm_loss"] = float(
            -(targets * log_p[used]).sum() / max(float(sums["mlm_weight"]), 1e-6))
    if "replaced_ids" in sums:
        # The score is a function of the count, so that the histogram over counts has its exact ranks.
        _, rank = np.unique(-id_counts, return_inverse=True)
        original, replaced = (np.bincount(rank, sums[name]) for name in ("original_ids", "replaced_ids"))
        found["floor_disc_auc"] = area_under_curve(original, replaced)
        found["floor_disc_accuracy"] = 1 - metrics["replaced_share"]
        for name in ("disc_auc", "disc_accuracy"):
            found[f"{name}_above_floor"] = metrics[name] - found[f"floor_{name}"]
    return found


def unigram_log_probabilities(id_counts: np.ndarray, vocab: VocabularyFacts) -> np.ndarray:
    """float64 [V]: logarithms of (count + 1) over their sum; minus infinity for the ids that are never
    masked, which a generator need not learn to leave out."""
    weights = id_counts.astype(np.float64) + 1
    weights[[vocab.pad_id, vocab.cls_id, vocab.sep_id, vocab.mask_id]] = 0
    with np.errstate(divide="ignore"):
        return np.log(weights / weights.sum())
