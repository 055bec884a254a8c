"""The report of a run: curves, evaluation, samples with the discriminator's verdict, settings.

One file without references to others: HTML with the curves as SVG, or the curves alone as PNG.
"""

import html
import io
import json
import os
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from matplotlib.layout_engine import ConstrainedLayoutEngine

from electra_es.durations import format_duration
from electra_es.errors import UsageError
from electra_es.monitoring.progress import METRICS_FILE, SAMPLES_FILE
from electra_es.run_config import Run, load_run

_INK, _FAINT, _GRID = "#1f2933", "#7b8794", "#e4e7eb"
_BLUE, _RED, _GREEN, _AMBER = "#2563a8", "#c2413b", "#2f855a", "#b7791f"
# Panels: title, and for each curve its metric, label and colour.
_PANELS: list[tuple[str, list[tuple[str, str, str]]]] = [
    ("Loss", [("loss", "weighted sum", _INK)]),
    ("Generator: loss", [("masked_lm_loss", "masked tokens", _BLUE)]),
    ("Generator: accuracy", [("masked_lm_accuracy", "best guess", _BLUE),
                             ("sampled_masked_lm_accuracy", "sample", _AMBER)]),
    ("Discriminator: loss", [("disc_loss", "all tokens", _RED)]),
    ("Discriminator: replaced tokens", [("disc_precision", "precision", _GREEN),
                                        ("disc_recall", "recall", _RED)]),
    ("Discriminator: accuracy", [("disc_accuracy", "all tokens", _RED),
                                 ("always_original", "if it said 'original' always", _FAINT)]),
    ("Learning rate", [("learning_rate", "rate", _INK)]),
    ("Gradient norm", [("gradient_norm", "before clipping", _INK)]),
    ("Speed", [("examples_per_second", "examples/s", _GREEN)]),
]


def load_lines(path: str) -> list[dict[str, Any]]:
    """The objects of a `.jsonl` of a run. Of lines for one step and kind the last counts, as a run
    that was killed repeats steps; a half-written line is left out."""
    lines: dict[tuple, dict[str, Any]] = {}
    with tf.io.gfile.GFile(path) as file:
        for text in file.read().splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            lines[line.get("kind"), line["step"]] = line
    return sorted(lines.values(), key=lambda line: line["step"])


def write_report(model_dir: str, output: str) -> None:
    """Draws the run in `model_dir` into `output` (.html or .png).

    Raises:
      UsageError: another ending, no such run, or one that has reported nothing yet.
    """
    ending = os.path.splitext(output)[1]
    if ending not in (".html", ".png"):
        raise UsageError(f"--output={output}: expected a name in .html or .png")
    run = load_run(model_dir)
    path = os.path.join(model_dir, METRICS_FILE)
    lines = load_lines(path) if tf.io.gfile.exists(path) else []
    training = [line for line in lines if line["kind"] == "train"]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    if not training:
        raise UsageError(f"{path}: expected at least one progress line")
    figure = draw(training, evaluations, run)
    if ending == ".png":
        figure.savefig(output + ".writing", format="png", dpi=110)
    else:
        samples = os.path.join(model_dir, SAMPLES_FILE)
        shown = load_lines(samples)[-1:] if tf.io.gfile.exists(samples) else []
        page = html_page(run, os.path.basename(os.path.normpath(model_dir)), training, evaluations,
                         shown[0]["samples"] if shown else [], _svg(figure))
        with open(output + ".writing", "w", encoding="utf-8") as file:
            file.write(page)
    plt.close(figure)
    os.replace(output + ".writing", output)


def draw(training: list[dict], evaluations: list[dict], run: Run) -> plt.Figure:
    """Nine panels over the steps; lines are training, dots evaluations."""
    style: Any = {"font.size": 9, "axes.edgecolor": _GRID, "text.color": _INK, "axes.labelcolor": _FAINT,
             "xtick.color": _FAINT, "ytick.color": _FAINT, "svg.hashsalt": "electra-es"}
    with plt.rc_context(style):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
        figure, all_axes = plt.subplots(3, 3, figsize=(13, 8.6), layout=layout)
        for (title, curves), axes in zip(_PANELS, all_axes.flat, strict=True):
            axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
            for metric, label, colour in curves:
                _curve(axes, training, metric, label, colour)
                steps, values = _points(evaluations, metric)
                axes.plot(steps, values, "o", color=colour, markersize=4.5, markeredgecolor="white")
            for step in run.pretraining.restart_steps:
                if step <= training[-1]["step"]:
                    axes.axvline(step, color=_FAINT, linewidth=0.8, linestyle=":")
            axes.grid(color=_GRID, linewidth=0.7)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(length=0)
            axes.margins(x=0.02)
            axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
            axes.locator_params(axis="x", nbins=6)
            if len(curves) > 1:
                axes.legend(frameon=False, fontsize=8, labelcolor=_INK)
        figure.supxlabel("step     (lines: training, dots: validation)", fontsize=9, color=_FAINT)
    return figure


def _curve(axes: plt.Axes, training: list[dict], metric: str, label: str, colour: str) -> None:
    """The values, faint, and their running mean over a twentieth of them where there are many."""
    steps, values = _points(training, metric)
    width = len(values) // 20
    if width < 2:
        axes.plot(steps, values, color=colour, linewidth=1.6, label=label)
        return
    axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.3)
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    axes.plot(steps, (sums[ends] - sums[starts]) / (ends - starts), color=colour, linewidth=1.8,
              label=label)


def _points(lines: list[dict], metric: str) -> tuple[np.ndarray, np.ndarray]:
    if metric == "always_original":
        lines = [{**line, metric: 1 - line["replaced_share"]} for line in lines
                 if "replaced_share" in line]
    lines = [line for line in lines if metric in line]
    return (np.array([line["step"] for line in lines]),
            np.array([line[metric] for line in lines], np.float64))


def _svg(figure: plt.Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg"):]


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.55 system-ui, sans-serif; color: #1f2933; max-width: 1180px;
  margin: 2.5rem auto; padding: 0 1.5rem; }}
h1 {{ font-size: 1.6rem; margin: 0; }} h2 {{ font-size: 1.1rem; margin: 2.4rem 0 .6rem; }}
.faint {{ color: #7b8794; }} svg {{ width: 100%; height: auto; }}
.figures {{ display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.4rem 0; }}
.figures div {{ border: 1px solid #e4e7eb; border-radius: 8px; padding: .6rem 1rem; min-width: 7rem; }}
.figures b {{ display: block; font-size: 1.35rem; font-weight: 600; }}
.sample {{ border-left: 3px solid #e4e7eb; padding: .2rem 0 .2rem 1rem; margin: .8rem 0; }}
.sample span {{ border-radius: 3px; padding: 0 2px; }}
.sample .replaced {{ outline: 1.5px solid #c2413b; }}
.settings {{ columns: 3; font-size: 13px; }} .settings div {{ break-inside: avoid; }}
</style></head><body>
<h1>{title}</h1><div class="faint">{subtitle}</div>
<div class="figures">{figures}</div>
{curves}
{samples}
<h2>Settings</h2><div class="settings">{settings}</div>
</body></html>
"""


def html_page(run: Run, name: str, training: list[dict], evaluations: list[dict],
              samples: list, curves: str) -> str:
    """The whole page. `samples` are lists of (original, shown, probability of being replaced)."""
    last = (evaluations or training)[-1]
    source = "validation" if evaluations else "training"
    cards = [(f"{training[-1]['step']:,}", "steps")]
    cards += [(f"{last[key]:.3f}", label) for key, label in [
        ("loss", "loss"), ("masked_lm_accuracy", "generator accuracy"), ("disc_auc", "AUC"),
        ("disc_precision", "precision"), ("disc_recall", "recall")] if key in last]
    cards.append((format_duration(_training_seconds(training)), "training time"))
    settings = "".join(
        f"<div><span class=faint>{html.escape(key)}</span> {html.escape(str(value))}</div>"
        for part in run for key, value in vars(part).items())
    subtitle = (f"{run.model.model_size}, {run.model.num_layers} layers of {run.model.hidden_size}; "
                f"vocabulary of {run.text.vocab_size:,}; figures of {source} at step {last['step']:,}")
    return _PAGE.format(
        title=html.escape(name), subtitle=html.escape(subtitle), curves=curves, settings=settings,
        figures="".join(f"<div><b>{value}</b><span class=faint>{label}</span></div>"
                        for value, label in cards),
        samples=_samples_html(samples) if samples else "")


def _samples_html(samples: list) -> str:
    paragraphs = []
    for sample in samples:
        words = []
        for original, shown, probability in sample:
            mark = f"background:rgba(194,65,59,{0.75 * probability:.2f})"
            kind = ' class="replaced"' if original != shown else ""
            hint = f"{original} → {shown}: {probability:.3f}"
            words.append(f'<span{kind} style="{mark}" title="{html.escape(hint)}">'
                         f"{html.escape(shown)}</span>")
        paragraphs.append(f'<div class="sample">{" ".join(words)}</div>')
    return ("<h2>What the discriminator sees</h2><div class=faint>Red: how likely it takes a token "
            "for a replaced one; framed: the generator did replace it. Point at a token for the "
            "original.</div>" + "".join(paragraphs))


def _training_seconds(training: list[dict]) -> float:
    """Time of all steps at the reported speeds, breaks between starts left out."""
    seconds, before = 0.0, 0
    for line in training:
        if "steps_per_second" in line:
            seconds += (line["step"] - before) / line["steps_per_second"]
        before = line["step"]
    return seconds
