"""Signs of trouble in a run whose loss is still finite."""

from electra_es.config import PretrainingConfig

_PATIENCE = 3  # bad reports in a row before a warning
_EARLIEST = 1_000  # at first the discriminator flags nothing, as seven tokens of eight are original
_RISE = 0.005  # share by which held-out loss has to be above its lowest value


class HealthWatch:
    """Checks each report and each evaluation. When a problem begins, it says once what is wrong and what
    helps."""

    def __init__(self, config: PretrainingConfig):
        self._first_step = max(_EARLIEST, 2 * config.warmup_steps, config.num_train_steps // 20)
        self._well_under_way = max(2 * config.warmup_steps, config.num_train_steps // 4)
        self._best_accuracy = 0.0
        self._in_a_row: dict[str, int] = {}
        self._losses: list[float] = []  # of training, since the last evaluation
        self._lowest: tuple[float, float, int] | None = None  # held-out and training loss, and their step

    def warnings(self, step: int, metrics: dict[str, float]) -> list[str]:
        """Judges one report.

        Args:
          step: the step that it ends with.
          metrics: `metrics.summarise` of its steps; parts that the model does not have are not judged.

        Returns:
          lines that start with the name of the problem; empty if there is none.
        """
        settled = step >= self._first_step
        self._losses.append(metrics["loss"])
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
        return self._begun(step, signs, _PATIENCE)

    def evaluation_warnings(self, step: int, metrics: dict[str, float]) -> list[str]:
        """Judges one evaluation, which is on the same masks each time.

        Args:
          step: of the weights.
          metrics: of `Evaluation`; without a floor in them the model is not compared with it.

        Returns:
          as `warnings`.
        """
        lines = self._begun(step, self._floor_signs(step, metrics), 1)
        return lines + self._begun(step, self._overfitting(step, metrics["loss"]), 2)

    def _floor_signs(self, step: int, metrics: dict[str, float]) -> dict[str, tuple[bool, str]]:
        signs = {}
        late = step >= self._well_under_way
        if "floor_disc_auc" in metrics:
            auc, floor = metrics["disc_auc"], metrics["floor_disc_auc"]
            signs["discriminator below its floor"] = (
                late and auc < floor,
                f"its AUC is {auc:.4f}, and to score each token by its count alone gives {floor:.4f}: "
                "it needs more steps, more text or another --learning_rate")
        if "floor_masked_lm_loss" in metrics:
            loss, floor = metrics["masked_lm_loss"], metrics["floor_masked_lm_loss"]
            name = "generator below its floor" if "disc_auc" in metrics else "below its floor"
            signs[name] = (
                late and loss > floor,
                f"its loss is {loss:.3f}, and to predict each token by its count alone gives "
                f"{floor:.3f}: it needs more steps, more text or another --learning_rate")
        return signs

    def _overfitting(self, step: int, held_out: float) -> dict[str, tuple[bool, str]]:
        """Compares held-out loss with its lowest value, and training loss with its value at that step."""
        if not self._losses:  # the run began at this step
            return {}
        training = sum(self._losses) / len(self._losses)
        self._losses = []
        if self._lowest is None or held_out <= self._lowest[0]:
            self._lowest = held_out, training, step
        before, training_before, when = self._lowest
        return {"held-out loss rises": (
            held_out > (1 + _RISE) * before and training < training_before,
            f"it is {held_out:.3f} and was {before:.3f} at step {when}, while the training loss fell "
            f"from {training_before:.3f} to {training:.3f}. The model learns its training text by heart: "
            "it needs more text or fewer --num_train_steps; checkpoints of earlier steps may be better")}

    def _begun(self, step: int, signs: dict[str, tuple[bool, str]], patience: int) -> list[str]:
        """A line for each sign that holds for the `patience`th time in a row."""
        lines = []
        for name, (holds, advice) in signs.items():
            self._in_a_row[name] = self._in_a_row.get(name, 0) + 1 if holds else 0
            if self._in_a_row[name] == patience:
                lines.append(f"warning: {name} at step {step}: {advice}")
        return lines
