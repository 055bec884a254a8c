"""The report of a run, or of several side by side: curves, evaluation, samples with the
discriminator's verdict, settings.

The output is one file that needs no other: a page for screens of any width, or only the curves as PNG.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from electra_es.durations import format_duration
from electra_es.errors import UsageError
from electra_es.monitoring import charts, exam_charts
from electra_es.monitoring.metrics_log import METRICS_FILE, RunLog, read_log, read_samples
from electra_es.monitoring.samples import SamplePiece, readable
from electra_es.run_config import Run, load_run

TEMPLATES = pathlib.Path(__file__).parent / "templates"

_FIGURES = {"loss": "loss", "masked_lm_accuracy": "generator accuracy", "disc_auc": "AUC",
            "disc_accuracy": "discriminator accuracy", "disc_precision": "precision",
            "disc_recall": "recall"}


class ReportedRun(NamedTuple):
    """A run as the page shows it.

    Attributes:
      name: the end of its path.
      samples: of its last evaluation.
    """

    name: str
    colour: str
    run: Run
    log: RunLog
    samples: list[list[SamplePiece]]

    @property
    def title(self) -> str:
        return f"{self.run.model.objective} {self.run.model.model_size} · {self.name}"

    @property
    def last_step(self) -> int:
        return self.log.training[-1]["step"]

    @property
    def summary(self) -> str:
        model, text = self.run.model, self.run.text
        devices = self.log.starts[-1].get("devices", "") if self.log.starts else ""
        return "; ".join(filter(None, [
            f"{model.num_layers} layers of {model.hidden_size}",
            f"vocabulary of {text.vocab_size:,} ({text.tokenizer})", devices]))

    @property
    def source(self) -> str:
        kind = "validation" if self.log.evaluations else "training"
        return f"{kind}, step {(self.log.evaluations or self.log.training)[-1]['step']:,}"

    @property
    def figures(self) -> dict[str, str]:
        """Label -> value, of the last evaluation; of the last progress line without one."""
        last = (self.log.evaluations or self.log.training)[-1]
        seconds = self.log.training_seconds()
        return {"steps": f"{self.last_step:,}",
                **{label: f"{last[key]:.3f}" for key, label in _FIGURES.items() if key in last},
                "training time": "–" if seconds is None else format_duration(seconds)}

    @property
    def settings(self) -> dict[str, Any]:
        return {name: value for part in self.run for name, value in vars(part).items()}


def write_report(model_dirs: Sequence[str], output: str) -> str:
    """Draws the runs in `model_dirs` into `output` (.html or .png).

    Returns:
      a line on what was written.

    Raises:
      UsageError: another ending, no such run, a run without progress lines, or a run named twice.
    """
    ending = os.path.splitext(output)[1]
    if ending not in (".html", ".png"):
        raise UsageError(f"--output={output}: expected a name in .html or .png")
    runs = load_runs(model_dirs)
    scratch = output + ".writing"
    try:
        if ending == ".png":
            charts.image(_panels(runs), [run.name for run in runs], scratch)
        else:
            with open(scratch, "w", encoding="utf-8") as file:
                file.write(html_page(runs))
        os.replace(scratch, output)
    except OSError as error:
        raise UsageError(f"--output={output}: cannot be written ({error.strerror})") from None
    count = f"{len(runs)} run{'s' * (len(runs) > 1)}"
    return f"{output}: {max(run.last_step for run in runs):,} steps, {count}"


def load_runs(model_dirs: Sequence[str]) -> list[ReportedRun]:
    """Reads what the runs have recorded.

    Raises:
      UsageError: see `write_report`.
    """
    runs = []
    for i, (model_dir, name) in enumerate(zip(model_dirs, run_names(model_dirs), strict=True)):
        run, log = load_run(model_dir), read_log(model_dir)
        if not log.training:
            raise UsageError(f"{os.path.join(model_dir, METRICS_FILE)}: expected at least one "
                             "progress line")
        samples = [readable(sample, run.text.tokenizer)
                   for line in read_samples(model_dir)[-1:] for sample in line["samples"]]
        runs.append(ReportedRun(name, charts.colour_of(i), run, log, samples))
    return runs


def run_names(model_dirs: Sequence[str]) -> list[str]:
    """The last two parts of each path, or as many parts as the names need to be different.

    Raises:
      UsageError: a directory is named twice.
    """
    paths = [path.rstrip("/") if "://" in path else os.path.realpath(path) for path in model_dirs]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise UsageError(f"--model_dir={model_dirs[i]}: named twice: expected different runs")
    parts = [[part for part in path.split("/") if part] for path in paths]
    count = 2
    while len({tuple(part[-count:]) for part in parts}) < len(parts):
        count += 1
    return ["/".join(part[-count:]) for part in parts]


def html_page(runs: list[ReportedRun]) -> str:
    """The whole page."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True,
                                     trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)
    panels = [(title, Markup(charts.svg(title, draw))) for title, draw in _panels(runs)]
    labels = list(dict.fromkeys(label for run in runs for label in run.figures))
    return environment.get_template("report.html").render(
        title=runs[0].title if len(runs) == 1 else " and ".join(run.name for run in runs),
        runs=runs, labels=labels, panels=panels, differing=differing_settings(runs),
        same=same_settings(runs))


def differing_settings(runs: list[ReportedRun]) -> dict[str, list[Any]]:
    """Setting -> its value in each run, where these differ."""
    return {name: [run.settings[name] for run in runs] for name, value in runs[0].settings.items()
            if any(run.settings[name] != value for run in runs)}


def same_settings(runs: list[ReportedRun]) -> dict[str, Any]:
    differing = differing_settings(runs)
    return {name: value for name, value in runs[0].settings.items() if name not in differing}


def _panels(runs: list[ReportedRun]) -> list[tuple[str, charts.Draw]]:
    drawn = [charts.DrawnRun(run.log, run.run.pretraining.restart_steps) for run in runs]
    return charts.draws(drawn) + exam_charts.panels(drawn)
