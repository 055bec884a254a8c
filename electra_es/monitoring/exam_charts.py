"""The curves of the exam: a panel for each phenomenon and one for all pairs, over the steps of runs."""

import functools
from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D

from electra_es.minimal_pairs.results import EXAMINEES, LABELS, Examinee
from electra_es.monitoring.charts import FAINT, RUN_COLOURS, Draw, DrawnRun, colour_of, dress
from electra_es.monitoring.metrics_log import Line

_COLOURS = {"discriminator": RUN_COLOURS[1], "generator": RUN_COLOURS[0], "frequency": FAINT}
_STYLES: dict[str, Any] = {
    "discriminator": "solid", "generator": (0, (4, 2)), "frequency": (0, (1, 1.5))}


def panels(runs: list[DrawnRun]) -> list[tuple[str, Draw]]:
    """Titles and how to draw each panel; all pairs come first. Empty if no run had an exam."""
    results = [result for run in runs for line in run.log.exams for result in _results(line)]
    names = dict.fromkeys(["all", *(result["name"] for result in results)]) if results else {}
    lowest = min((share["low"] for result in results for share in _shares(result)), default=0.0)
    return [(f"Exam: {name.replace('_', ' ')}", functools.partial(
        _draw, name=name, runs=runs, bottom=min(lowest, 0.4))) for name in names]


def _draw(axes: plt.Axes, *, name: str, runs: list[DrawnRun], bottom: float) -> None:
    """One run has a colour for each examinee, and a band: the interval of 95 % of the first. Several runs
    have a colour each."""
    several = len(runs) > 1
    drawn: list[Examinee] = []
    for number, run in enumerate(runs):
        for examinee in EXAMINEES:
            points = [(line["step"], result[examinee]) for line in run.log.exams
                      for result in _results(line) if result["name"] == name and result[examinee]]
            if not points:
                continue
            colour = colour_of(number) if several else _COLOURS[examinee]
            steps = np.array([step for step, _ in points])
            low, middle, high = (np.array([share[key] for _, share in points])
                                 for key in ("low", "accuracy", "high"))
            axes.plot(steps, middle, color=colour, linestyle=_STYLES[examinee], linewidth=1.4,
                      marker="" if examinee == "frequency" else "o", markersize=4,
                      markeredgecolor="white")
            if not several and not drawn:
                axes.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)
            if examinee not in drawn:
                drawn.append(examinee)
    axes.axhline(0.5, color=FAINT, linewidth=0.7)
    dress(axes, runs)
    axes.set_ylim(bottom, 1.0)
    axes.legend(handles=[Line2D([], [], color=FAINT if several else _COLOURS[each], label=LABELS[each],
                                linestyle=_STYLES[each]) for each in drawn],
                frameon=False, fontsize=8, loc="upper left")


def _results(line: Line) -> Iterable[dict[str, Any]]:
    return [*line["phenomena"], line["all"]]


def _shares(result: dict[str, Any]) -> Iterable[dict[str, float]]:
    return [result[examinee] for examinee in EXAMINEES if result[examinee]]
