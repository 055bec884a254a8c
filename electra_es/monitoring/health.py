"""Signs of trouble in a run whose loss is still finite."""

from electra_es.config import PretrainingConfig

_PATIENCE = 3  # bad reports in a row before a warning
_EARLIEST = 1_000  # at first the discriminator flags nothing, as seven tokens of eight are original


class HealthWatch:
    """Checks each report. When a problem begins, it says once what is wrong and what helps."""

    def __init__(self, config: PretrainingConfig):
        self._first_step = max(_EARLIEST, 2 * config.warmup_steps, config.num_train_steps // 20)
        self._best_accuracy = 0.0
        self._in_a_row: dict[str, int] = {}

    def warnings(self, step: int, metrics: dict[str, float]) -> list[str]:
        """Judges one report.

        Args:
          step: the step that it ends with.
          metrics: `metrics.summarise` of its steps; parts that the model does not have are not judged.

        Returns:
          lines that start with the name of the problem; empty if there is none.
        """
        settled = step >= self._first_step
        signs: dict[str, tuple[bool, str]] = {}
        if "masked_lm_accuracy" in metrics:
            accuracy = metrics["masked_lm_accuracy"]
            self._best_accuracy = max(self._best_accuracy, accuracy)
            # With objective=mlm there is no discriminator, so the model is not called a generator.
            name = "generator collapse" if "disc_recall" in metrics else "collapse"
            signs[name] = (
                self._best_accuracy > 0.15 and accuracy < 0.5 * self._best_accuracy,
                f"its accuracy is {accuracy:.3f} and was {self._best_accuracy:.3f}: go back to an "
                "earlier checkpoint with a lower --learning_rate or a longer --warmup_steps")
        if "disc_recall" in metrics:
            replaced, recall = metrics["replaced_share"], metrics["disc_recall"]
            signs["generator too strong"] = (
                settled and replaced < 0.01,
                f"only {replaced:.4f} of the tokens are replaced, which leaves the "
                "discriminator nothing to learn: lower --generator_width, raise --temperature or "
                "set --disallow_correct")
            signs["discriminator collapse"] = (
                settled and replaced >= 0.01 and recall < 0.01,
                f"it finds {recall:.4f} of the replaced tokens: lower "
                "--learning_rate, lengthen --warmup_steps or raise --discriminator_weight"
                + ("; if masked_lm_accuracy is high for the step, lower --generator_width"
                   if "masked_lm_accuracy" in metrics else ""))
        lines = []
        for name, (holds, advice) in signs.items():
            self._in_a_row[name] = self._in_a_row.get(name, 0) + 1 if holds else 0
            if self._in_a_row[name] == _PATIENCE:
                lines.append(f"warning: {name} at step {step}: {advice}")
        return lines
