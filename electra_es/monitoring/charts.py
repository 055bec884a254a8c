"""The curves of one or several runs, drawn with matplotlib: a panel by itself, or all in one image.

In the page each panel is a separate image, so that the page can show as many side by side as fit.
"""

import functools
import io
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from electra_es.monitoring.metrics_log import Line, RunLog

INK, FAINT, GRID = "#1f2933", "#5f6c7b", "#e4e7eb"
_BLUE, _RED, _GREEN, _AMBER = "#2563a8", "#c2413b", "#2f855a", "#b7791f"
RUN_COLOURS = (_BLUE, _RED, _GREEN, _AMBER, "#6b46c1", "#0e7490", "#97266d", "#4a5568")
_TICK_STEPS = (1, 2, 2.5, 5, 10)
_LINE_STYLES: Any = ("solid", (0, (4, 2)))
_STYLE: Any = {
    "font.size": 9, "axes.edgecolor": GRID, "text.color": INK, "axes.labelcolor": FAINT,
    "xtick.color": FAINT, "ytick.color": FAINT, "svg.fonttype": "none"}

Draw = Callable[[plt.Axes], None]


class Curve(NamedTuple):
    metric: str
    label: str
    colour: str  # with one run; with several each run has its own


class Panel(NamedTuple):
    title: str
    curves: tuple[Curve, ...]


PANELS = (
    Panel("Loss", (Curve("loss", "weighted sum", INK),)),
    Panel("Generator: loss", (Curve("masked_lm_loss", "masked tokens", _BLUE),)),
    Panel("Generator: accuracy", (Curve("masked_lm_accuracy", "best guess", _BLUE),
                                  Curve("sampled_masked_lm_accuracy", "sample", _AMBER))),
    Panel("Discriminator: loss", (Curve("disc_loss", "all tokens", _RED),)),
    Panel("Discriminator: AUC (validation)", (Curve("disc_auc", "area under the curve", _RED),)),
    Panel("Discriminator: replaced tokens", (Curve("disc_precision", "precision", _GREEN),
                                             Curve("disc_recall", "recall", _RED))),
    Panel("Discriminator: accuracy", (Curve("disc_accuracy", "all tokens", _RED),
                                      Curve("always_original", 'always "original"', FAINT))),
    Panel("Learning rate", (Curve("learning_rate", "rate", INK),)),
    Panel("Gradient norm (before clipping)", (Curve("gradient_norm", "norm", INK),)),
    Panel("Speed (examples per second)", (Curve("examples_per_second", "examples/s", _GREEN),)),
)


class DrawnRun(NamedTuple):
    """What is drawn of a run: its log, and the steps at which a new cycle of the schedule begins."""

    log: RunLog
    restart_steps: tuple[int, ...]


def panels_of(runs: list[DrawnRun]) -> list[Panel]:
    """The panels for which a run has values: a model without a discriminator has fewer."""
    return [panel for panel in PANELS if any(
        len(_points(lines, curve.metric)[0]) for curve in panel.curves for run in runs
        for lines in (run.log.training, run.log.evaluations))]


def draws(runs: list[DrawnRun]) -> list[tuple[str, Draw]]:
    """Title of each panel, and how to draw it."""
    return [(panel.title, functools.partial(_draw, panel=panel, runs=runs)) for panel in panels_of(runs)]


def svg(title: str, draw: Draw) -> str:
    """One panel as an SVG element, with only those ids to which it refers itself."""
    with plt.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure, axes = plt.subplots(figsize=(4.4, 2.9),
                                    layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
        draw(axes)  # without a title, which the page writes
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    element = text.getvalue()[text.getvalue().index("<svg"):]
    return re.sub(r' id="[a-z0-9.]+_\d+"', "", element)


def image(panels: list[tuple[str, Draw]], names: list[str], output: str | io.BytesIO, *,
          kind: str = "png", note: str = "(lines: training, dots: validation)") -> None:
    """Panels in one image.

    Args:
      panels: titles, and how to draw each.
      names: of the runs, for the legend.
      output: where to.
      kind: png or svg.
      note: what the marks mean.
    """
    rows = -(-len(panels) // 3)
    with plt.rc_context(_STYLE):
        figure, all_axes = plt.subplots(
            rows, 3, figsize=(13, 2.9 * rows), squeeze=False,
            layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
        for (panel_title, draw), axes in zip(panels, all_axes.flat, strict=False):
            axes.set_title(panel_title, loc="left", fontsize=10, fontweight="bold")
            draw(axes)
        for axes in all_axes.flat[len(panels):]:
            axes.set_axis_off()
        if len(names) > 1:
            figure.legend(handles=[Line2D([], [], color=colour_of(i), label=name)
                                   for i, name in enumerate(names)],
                          loc="outside upper left", frameon=False, ncols=len(names))
        figure.supxlabel(f"step     {note}", fontsize=9, color=FAINT)
        figure.savefig(output, format=kind, dpi=110)
        plt.close(figure)


def colour_of(run: int) -> str:
    return RUN_COLOURS[run % len(RUN_COLOURS)]


def dress(axes: plt.Axes, runs: list[DrawnRun]) -> None:
    """Grid and axes; all panels have the same steps."""
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
    # The axis starts at step 0 even with a single report: a range of one point has no useful ticks.
    axes.set_xlim(0, 1.03 * _last_step(runs))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=_TICK_STEPS))
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=_TICK_STEPS))
    axes.yaxis.set_major_formatter(_readable)


def _draw(axes: plt.Axes, panel: Panel, runs: list[DrawnRun]) -> None:
    for number, run in enumerate(runs):
        for style, curve in zip(_LINE_STYLES, panel.curves, strict=False):
            several = len(runs) > 1
            look = {"color": colour_of(number) if several else curve.colour,
                    "linestyle": style if several else "solid"}
            _curve(axes, run.log.training, curve.metric, look)
            _dots(axes, run.log.evaluations, curve.metric, look)
        for step in run.restart_steps:
            if step <= _last_step([run]):
                axes.axvline(step, color=FAINT, linewidth=0.8, linestyle=":")
    dress(axes, runs)
    if len(panel.curves) > 1:
        axes.legend(handles=[
            Line2D([], [], color=FAINT if len(runs) > 1 else curve.colour, label=curve.label,
                   linestyle=style if len(runs) > 1 else "solid")
            for style, curve in zip(_LINE_STYLES, panel.curves, strict=False)],
            frameon=False, fontsize=8, labelcolor=INK)


def _readable(value: float, _: float) -> str:
    """3.2e-5, not 0.000032."""
    if not 0 < abs(value) < 1e-4:
        return f"{value:.6g}"
    digits, exponent = f"{value:.2e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def _last_step(runs: list[DrawnRun]) -> int:
    return max(line["step"] for run in runs for line in (
        *run.log.training, *run.log.evaluations, *run.log.exams))


def _curve(axes: plt.Axes, lines: list[Line], metric: str, look: dict[str, Any]) -> None:
    """The values; many values are faint, with their running mean over a twentieth of them."""
    steps, values = _points(lines, metric)
    width = len(values) // 20
    if len(values) == 1:
        axes.plot(steps, values, marker="_", markersize=14, markeredgewidth=1.8, **look)
    elif width < 2:
        axes.plot(steps, values, linewidth=1.6, **look)
    else:
        axes.plot(steps, values, linewidth=0.8, alpha=0.3, color=look["color"])
        sums = np.cumsum(np.concatenate([[0.0], values]))
        ends = np.arange(1, len(values) + 1)
        starts = np.maximum(ends - width, 0)
        axes.plot(steps, (sums[ends] - sums[starts]) / (ends - starts), linewidth=1.8, **look)


def _dots(axes: plt.Axes, lines: list[Line], metric: str, look: dict[str, Any]) -> None:
    steps, values = _points(lines, metric)
    only_here = metric == "disc_auc"  # only evaluations have it, so a line joins the dots
    axes.plot(steps, values, marker="o", markersize=5, markeredgecolor="white", color=look["color"],
              linestyle=look["linestyle"] if only_here else "none", linewidth=1.2)


def _points(lines: list[Line], metric: str) -> tuple[np.ndarray, np.ndarray]:
    if metric == "always_original":
        lines = [{**line, metric: 1 - line["replaced_share"]} for line in lines
                 if "replaced_share" in line]
    lines = [line for line in lines if metric in line]
    return (np.array([line["step"] for line in lines]),
            np.array([line[metric] for line in lines], np.float64))
