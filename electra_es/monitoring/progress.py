"""What a run reports: the progress line, TensorBoard, `metrics.jsonl`."""

import time
from collections.abc import Mapping
from typing import Any

from electra_es.config import PretrainingConfig
from electra_es.durations import format_duration
from electra_es.minimal_pairs.results import EXAMINEES, LABELS, ExamResult
from electra_es.monitoring import metrics_log
from electra_es.monitoring.samples import SampleToken, sample_markdown
from electra_es.monitoring.tensorboard import TensorBoardLog
from electra_es.run_config import Run, load_run

# Metrics that a line shows, if the model has them: without a discriminator there is no disc_*.
_TRAINING = {"loss": "  loss {:.3f}", "masked_lm_loss": "  mlm {:.3f}",
             "masked_lm_accuracy": " acc {:.3f}", "disc_accuracy": "  disc acc {:.3f}",
             "disc_precision": " prec {:.3f}", "disc_recall": " rec {:.3f}",
             "learning_rate": "  lr {:.2e}", "examples_per_second": "  {:.1f} ex/s",
             "tokens_per_second": "  {:.0f} tok/s"}
_EVALUATION = {"loss": " loss {:.3f}",
               "floor_masked_lm_loss": "  mlm {masked_lm_loss:.3f} (floor {:.3f})",
               "masked_lm_accuracy": "  mlm acc {:.3f}", "disc_accuracy": "  disc acc {:.3f}",
               "floor_disc_accuracy": " (floor {:.3f})", "disc_precision": " prec {:.3f}",
               "disc_recall": " rec {:.3f}", "disc_auc": " AUC {:.4f}",
               "disc_auc_above_floor": " (floor {floor_disc_auc:.4f}, {:+.4f})"}

# Seconds without a line after which one is shown. The first is within a minute, because a loop takes up
# to ten seconds.
_FIRST_PATIENCE, _LAST_PATIENCE = 50.0, 600.0


def parameter_line(name: str, parameters: int) -> str:
    return f"{name}: {parameters:,} parameters ({parameters / 1e6:.1f}M)"


class Silence:
    """How long nothing was shown; begins with the first question."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._patience = _FIRST_PATIENCE

    def begin(self, now: float) -> None:
        self._began = now

    def is_long(self) -> bool:
        """Whether a line is due, which ends the silence; the next may be twice as long."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
        if now - self._began < self._patience:
            return False
        self._began = now
        self._patience = min(2 * self._patience, _LAST_PATIENCE)
        return True


class ProgressLog:
    """Reports steps as a printed line, as TensorBoard scalars and as a line of `metrics.jsonl`."""

    def __init__(self, model_dir: str, config: PretrainingConfig, *, is_chief: bool = True,
                 flops_per_example: float = 0.0, peak_flops: float = 0.0):
        """
        Args:
          model_dir: where to write.
          config: batch size, length and number of steps.
          is_chief: whether to write and print at all.
          flops_per_example, peak_flops: for the utilisation; with a peak of 0 it is not shown.
        """
        self.model_dir, self.config, self.is_chief = model_dir, config, is_chief
        self.flops_per_example, self.peak_flops = flops_per_example, peak_flops
        self.tensorboard = TensorBoardLog(model_dir)
        self._mark: tuple[float, int] | None = None
        self._silence = Silence()
        self._last_reported_step = 0  # last step in a line of this start

    def start(self, step: int, run: Run, **facts: Any) -> None:
        """Records that training begins after `step`, as `go_on_from` does, and with what.

        Args:
          run: for TensorBoard.
          **facts: JSON values for `metrics.jsonl`: what this start trains on, and where.
        """
        self.go_on_from(step)
        if self.is_chief:
            metrics_log.append_metrics(self.model_dir, "start", step, facts)
            self.tensorboard.configuration(step, run)

    def go_on_from(self, step: int) -> None:
        """Removes records of steps after `step`, because these steps will be repeated."""
        self._last_reported_step = step
        if self.is_chief:
            metrics_log.tidy(self.model_dir, step)
            self.tensorboard.forget_steps_after(step)

    def count_from(self, step: int) -> None:
        """Starts the clock; called after the first loop, whose time includes compiling."""
        self._mark = (time.monotonic(), step)
        self._silence.begin(self._mark[0])

    @property
    def is_counting(self) -> bool:
        return self._mark is not None

    def train(self, step: int, metrics: Mapping[str, float]) -> None:
        """Reports the steps since the last report, up to `step`."""
        metrics = {**metrics, **self._speed(step, metrics.get("tokens"))}
        self.show(self._training_line(step, metrics))
        self._write("train", step, {**metrics, "steps": step - self._last_reported_step})
        self._last_reported_step = step
        self.count_from(step)

    def _training_line(self, step: int, metrics: Mapping[str, float]) -> str:
        line = f"step {step}/{self.config.num_train_steps}" + _formatted(_TRAINING, metrics)
        if "flop_utilisation" in metrics:
            line += f"  MFU {100 * metrics['flop_utilisation']:.1f} %"
        if "steps_per_second" in metrics:
            left = (self.config.num_train_steps - step) / metrics["steps_per_second"]
            line += f"  ETA {format_duration(left)}"
        return line

    def while_training(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows the steps since the last report if nothing was shown for a while. Nothing is written,
        and the next report covers these steps too."""
        if self._silence.is_long():
            self.show(self._training_line(
                step, {**metrics, **self._speed(step, metrics.get("tokens"))}))

    def meanwhile(self, line: str) -> None:
        """Shows the line if nothing was shown for a while."""
        if self._silence.is_long():
            self.show(line)

    def _speed(self, step: int, tokens: float | None) -> dict[str, float]:
        """`tokens`: those of the steps since the last report, without padding."""
        if self._mark is None or step == self._mark[1]:
            return {}
        start, first_step = self._mark
        steps_per_second = (step - first_step) / max(time.monotonic() - start, 1e-9)
        examples = steps_per_second * self.config.train_batch_size
        speed = {"steps_per_second": steps_per_second, "examples_per_second": examples}
        if tokens is not None and step > self._last_reported_step:
            tokens_per_step = tokens / (step - self._last_reported_step)
            speed["tokens_per_second"] = steps_per_second * tokens_per_step
        if self.peak_flops:
            speed["flop_utilisation"] = examples * self.flops_per_example / self.peak_flops
        return speed

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Reports an evaluation, and writes it to `evaluation.json` too.

        Returns:
          whether it was written; it is not written if the last one has the same step and figures.
        """
        self.show(f"evaluation at step {step}:" + _formatted(_EVALUATION, metrics))
        if self.is_counting:
            self.count_from(step)  # the time of an evaluation is not training time
        if not self.is_chief or metrics_log.is_last_evaluation(self.model_dir, step, metrics):
            return False
        self._write("evaluation", step, metrics)
        return True

    def samples(self, step: int, samples: list[list[SampleToken]]) -> None:
        """Writes samples of corrupted text with the discriminator's verdict."""
        if not self.is_chief or not samples:
            return
        kind = load_run(self.model_dir).text.tokenizer
        self.tensorboard.text("evaluation", "samples",
                              [sample_markdown(sample, kind) for sample in samples], step)
        metrics_log.append_samples(self.model_dir, step, samples)

    def exam(self, step: int, result: ExamResult) -> None:
        """Reports an exam of minimal pairs; it is not written again if its last one was the same."""
        self.show(f"exam at step {step}:" + "".join(
            f"  {LABELS[name]} {score.accuracy:.3f} ({score.low:.3f} to {score.high:.3f})"
            for name in EXAMINEES if (score := result.all.of(name))))
        if self.is_counting:
            self.count_from(step)  # the time of an exam is not training time
        if self.is_chief and not metrics_log.is_last_exam(self.model_dir, step, result.to_json()):
            self.tensorboard.scalars("evaluation", step, {
                f"exam_{each.name}/{name}": score.accuracy for each in (*result.phenomena, result.all)
                for name in EXAMINEES if (score := each.of(name))})
            metrics_log.append_metrics(self.model_dir, "exam", step, result.to_json())

    def _write(self, kind: str, step: int, metrics: Mapping[str, float]) -> None:
        if self.is_chief:
            self.tensorboard.scalars(kind, step, metrics)
            metrics_log.append_metrics(self.model_dir, kind, step, metrics)

    def show(self, line: str) -> None:
        if self.is_chief:
            print(line, flush=True)


def _formatted(forms: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """The metrics that have a form; all of them where none has one, as in fine-tuning."""
    known = [form.format(metrics[name], **metrics) for name, form in forms.items() if name in metrics]
    return "".join(known) or "".join(f"  {name} {value:.4f}" for name, value in metrics.items())
