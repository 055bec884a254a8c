"""What a run shows: the progress line, TensorBoard and `metrics.jsonl`."""

import json
import os
import time

import tensorflow as tf


def format_duration(seconds: float) -> str:
    """`1h02m`, `3m05s` or `12s`."""
    seconds = round(seconds)
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds % 60:02d}s" if minutes else f"{seconds}s"


def parameter_line(name: str, parameters: int) -> str:
    return f"{name}: {parameters:,} parameters ({parameters / 1e6:.1f}M)"


class ProgressLog:
    """Writes each stretch of steps as a line, TensorBoard scalars and a line of JSON."""

    def __init__(self, model_dir: str, total_steps: int, examples_per_step: int,
                 tokens_per_example: int, is_chief: bool = True):
        self.model_dir, self.total_steps = model_dir, total_steps
        self.examples_per_step, self.tokens_per_example = examples_per_step, tokens_per_example
        self.is_chief = is_chief
        self.summaries = tf.summary.create_file_writer(
            os.path.join(model_dir, "summaries")) if is_chief else tf.summary.create_noop_writer()
        self._mark = (time.monotonic(), 0)

    def start(self, step: int) -> None:
        """Begins the first stretch at `step`."""
        self._mark = (time.monotonic(), step)

    def train(self, step: int, metrics: dict[str, float]) -> None:
        """Reports the stretch since the last report, which ended with `step`."""
        then, first = self._mark
        now = time.monotonic()
        steps_per_second = (step - first) / max(now - then, 1e-9)
        self._mark = (now, step)
        examples = steps_per_second * self.examples_per_step
        metrics = {**metrics, "steps_per_second": steps_per_second, "examples_per_second": examples,
                   "tokens_per_second": examples * self.tokens_per_example}
        eta = format_duration((self.total_steps - step) / steps_per_second)
        self.say(
            f"step {step}/{self.total_steps}  loss {metrics['loss']:.3f}  "
            f"mlm {metrics['masked_lm_loss']:.3f} acc {metrics['masked_lm_accuracy']:.3f}  "
            f"disc acc {metrics['disc_accuracy']:.3f} prec {metrics['disc_precision']:.3f} "
            f"rec {metrics['disc_recall']:.3f}  lr {metrics['learning_rate']:.2e}  "
            f"{examples:.1f} ex/s  {metrics['tokens_per_second']:.0f} tok/s  ETA {eta}")
        self.write("train", step, metrics)

    def evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """Reports an evaluation, and keeps it as `evaluation.json`."""
        self.say(
            f"evaluation at step {step}: loss {metrics['loss']:.3f}  "
            f"mlm acc {metrics['masked_lm_accuracy']:.3f}  "
            f"disc acc {metrics['disc_accuracy']:.3f} prec {metrics['disc_precision']:.3f} "
            f"rec {metrics['disc_recall']:.3f} AUC {metrics['disc_auc']:.4f}")
        self.write("evaluation", step, metrics)
        if self.is_chief:
            path = os.path.join(self.model_dir, "evaluation.json")
            with tf.io.gfile.GFile(path + ".writing", "w") as file:
                file.write(json.dumps({"step": step, **metrics}, indent=2) + "\n")
            tf.io.gfile.rename(path + ".writing", path, overwrite=True)
        self._mark = (time.monotonic(), step)  # the time of an evaluation is not training time

    def write(self, kind: str, step: int, metrics: dict[str, float]) -> None:
        if not self.is_chief:
            return
        with self.summaries.as_default():
            for name, value in metrics.items():
                tf.summary.scalar(f"{kind}/{name}", value, step=step)
        self.summaries.flush()
        with tf.io.gfile.GFile(os.path.join(self.model_dir, "metrics.jsonl"), "a") as file:
            file.write(json.dumps({"kind": kind, "step": step, "time": time.time(), **metrics}) + "\n")

    def say(self, line: str) -> None:
        if self.is_chief:
            print(line, flush=True)
