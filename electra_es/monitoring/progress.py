"""What a run shows while it goes on: the progress line, TensorBoard, `metrics.jsonl`."""

import json
import math
import os
import time
from typing import NamedTuple

import tensorflow as tf

from electra_es.config import PretrainingConfig
from electra_es.durations import format_duration

METRICS_FILE = "metrics.jsonl"
EVALUATION_FILE = "evaluation.json"
SAMPLES_FILE = "samples.jsonl"


class SampleToken(NamedTuple):
    """A token of a sample: as it was, as the discriminator saw it, and its verdict."""

    original: str
    shown: str
    replaced_probability: float


def parameter_line(name: str, parameters: int) -> str:
    return f"{name}: {parameters:,} parameters ({parameters / 1e6:.1f}M)"


class ProgressLog:
    """Writes each stretch of steps as a line, TensorBoard scalars and a line of JSON."""

    def __init__(self, model_dir: str, config: PretrainingConfig, *, is_chief: bool = True,
                 flops_per_example: float = 0.0, peak_flops: float = 0.0):
        """
        Args:
          model_dir: where to write.
          config: batch size, length and number of steps.
          is_chief: whether to write and print at all.
          flops_per_example, peak_flops: for the utilisation; a peak of 0 leaves it out.
        """
        self.model_dir, self.config, self.is_chief = model_dir, config, is_chief
        self.flops_per_example, self.peak_flops = flops_per_example, peak_flops
        self.summaries = tf.summary.create_file_writer(
            os.path.join(model_dir, "summaries")) if is_chief else tf.summary.create_noop_writer()
        self._mark: tuple[float, int] | None = None

    def count_from(self, step: int) -> None:
        """Begins to take the time; called after the first stretch, which includes compiling."""
        self._mark = (time.monotonic(), step)

    @property
    def is_counting(self) -> bool:
        return self._mark is not None

    def train(self, step: int, metrics: dict[str, float]) -> None:
        """Reports the stretch since the last report, which ended with `step`."""
        metrics = {**metrics, **self._speed(step)}
        line = (f"step {step}/{self.config.num_train_steps}  {_figures(metrics, mlm_loss=True)}  "
                f"lr {metrics['learning_rate']:.2e}")
        if "steps_per_second" in metrics:
            left = (self.config.num_train_steps - step) / metrics["steps_per_second"]
            line += (f"  {metrics['examples_per_second']:.1f} ex/s  "
                     f"{metrics['tokens_per_second']:.0f} tok/s")
            if "flop_utilisation" in metrics:
                line += f"  MFU {100 * metrics['flop_utilisation']:.1f} %"
            line += f"  ETA {format_duration(left)}"
        self.say(line)
        self.write("train", step, metrics)
        self.count_from(step)

    def _speed(self, step: int) -> dict[str, float]:
        if self._mark is None or step == self._mark[1]:
            return {}
        then, first = self._mark
        steps_per_second = (step - first) / max(time.monotonic() - then, 1e-9)
        examples = steps_per_second * self.config.train_batch_size
        speed = {"steps_per_second": steps_per_second, "examples_per_second": examples,
                 "tokens_per_second": examples * self.config.max_seq_length}
        if self.peak_flops:
            speed["flop_utilisation"] = examples * self.flops_per_example / self.peak_flops
        return speed

    def evaluation(self, step: int, metrics: dict[str, float]) -> bool:
        """Reports an evaluation, and keeps it as `evaluation.json`.

        Returns:
          whether it is written; it is not where the last one, of the same step, is the same.
        """
        self.say(f"evaluation at step {step}: {_figures(metrics)}")
        if self.is_counting:
            self.count_from(step)  # the time of an evaluation is not training time
        path = os.path.join(self.model_dir, EVALUATION_FILE)
        if not self.is_chief or _is_same_evaluation(path, {"step": step, **metrics}):
            return False
        self.write("evaluation", step, metrics)
        with tf.io.gfile.GFile(path + ".writing", "w") as file:
            file.write(json.dumps({"step": step, **metrics}, indent=2) + "\n")
        tf.io.gfile.rename(path + ".writing", path, overwrite=True)
        return True

    def samples(self, step: int, samples: list[list[SampleToken]]) -> None:
        """Keeps samples of corrupted text with the discriminator's verdict."""
        if not self.is_chief or not samples:
            return
        with self.summaries.as_default():
            tf.summary.text("samples", [sample_markdown(sample) for sample in samples], step=step)
        self.summaries.flush()
        self._append(SAMPLES_FILE, {"step": step, "samples": samples})

    def text(self, name: str, markdown: str, step: int) -> None:
        if self.is_chief:
            with self.summaries.as_default():
                tf.summary.text(name, markdown, step=step)

    def write(self, kind: str, step: int, metrics: dict[str, float]) -> None:
        if not self.is_chief:
            return
        with self.summaries.as_default():
            for name, value in metrics.items():
                tf.summary.scalar(f"{kind}/{name}", value, step=step)
        self.summaries.flush()
        self._append(METRICS_FILE, {"kind": kind, "step": step, "time": time.time(), **metrics})

    def _append(self, name: str, values: dict) -> None:
        with tf.io.gfile.GFile(os.path.join(self.model_dir, name), "a") as file:
            file.write(json.dumps(values, ensure_ascii=False) + "\n")

    def say(self, line: str) -> None:
        if self.is_chief:
            print(line, flush=True)


def _figures(metrics: dict[str, float], *, mlm_loss: bool = False) -> str:
    """The figures of both towers for a line; a model without one of them has none of it."""
    parts = [f"loss {metrics['loss']:.3f}"]
    if "masked_lm_accuracy" in metrics:
        loss = f" {metrics['masked_lm_loss']:.3f}" if mlm_loss else ""
        parts.append(f"mlm{loss} acc {metrics['masked_lm_accuracy']:.3f}")
    if "disc_accuracy" in metrics:
        auc = f" AUC {metrics['disc_auc']:.4f}" if "disc_auc" in metrics else ""
        parts.append(f"disc acc {metrics['disc_accuracy']:.3f} prec {metrics['disc_precision']:.3f} "
                     f"rec {metrics['disc_recall']:.3f}{auc}")
    return "  ".join(parts)


def _is_same_evaluation(path: str, evaluation: dict[str, float]) -> bool:
    """Whether `evaluation.json` says the same, up to the order in which a device adds up."""
    try:
        with tf.io.gfile.GFile(path) as file:
            before = json.loads(file.read())
        return before.keys() == evaluation.keys() and all(
            math.isclose(before[name], value, rel_tol=1e-5, abs_tol=1e-9)
            for name, value in evaluation.items())
    except (tf.errors.NotFoundError, ValueError, AttributeError, TypeError):
        return False


def sample_markdown(sample: list[SampleToken]) -> str:
    """One line of Markdown: ~~original~~ **sample** where a token was replaced; behind each token
    that was replaced or is taken for it, the discriminator's probability."""
    words = []
    for token in sample:
        text = token.shown
        if token.shown != token.original:
            text = f"~~{token.original}~~ **{token.shown}**"
        if token.shown != token.original or token.replaced_probability > 0.5:
            text += f" `{token.replaced_probability:.2f}`"
        words.append(text)
    return " ".join(words)


def configuration_markdown(settings: dict[str, dict]) -> str:
    """Tables of the settings of each part, for TensorBoard."""
    lines = []
    for part, values in settings.items():
        lines += [f"### {part}", "", "| setting | value |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in values.items()]
        lines.append("")
    return "\n".join(lines)
