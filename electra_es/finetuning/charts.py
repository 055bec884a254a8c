"""Pictures of results: our figures beside the published ones, and which classes are confused."""

import io
import itertools
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from electra_es.finetuning.analysis import Confusion
from electra_es.finetuning.tables import LABELS, Table

_INK, _FAINT, _GRID, _BLUE, _RED = "#1f2933", "#5f6c7b", "#e4e7eb", "#2563a8", "#c2413b"
_RUNS = (_RED, _BLUE, "#2f855a", "#b7791f", "#6b46c1")
_STYLE: Any = {
    "font.size": 9, "axes.edgecolor": _GRID, "text.color": _INK, "axes.labelcolor": _FAINT,
    "xtick.color": _FAINT, "ytick.color": _INK, "svg.hashsalt": "electra-es"}


def draw(table: Table, metric: str, runs: list[dict[str, Any]], matrix: Confusion | None
         ) -> plt.Figure:
    """One figure of a task: every row that has `metric`, the curves of our runs over their epochs,
    and the confusion matrix if there is one."""
    with plt.rc_context(_STYLE):
        rows = [row for row in table.rows if metric in row.values]
        side = 1.2 * (1.5 + 0.3 * len(matrix.classes)) if matrix else 0.0
        widths = [6.0, 3.5] + ([side] if matrix else [])
        figure, axes = plt.subplots(
            1, len(widths), figsize=(sum(widths), max(3.0, 1.4 + 0.24 * len(rows), side / 1.2)),
            squeeze=False, width_ratios=widths, layout="constrained")
        _compare(axes[0, 0], table, metric)
        _learning(axes[0, 1], runs, metric)
        if matrix:
            _confusions(axes[0, 2], matrix, runs[0]["name"])
        figure.suptitle(table.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        return figure


def _compare(axes: plt.Axes, table: Table, metric: str) -> None:
    rows = sorted((row for row in table.rows if metric in row.values),
                  key=lambda row: row.values[metric])
    places = np.arange(len(rows))
    values = [row.values[metric] for row in rows]
    colours = [_RED if row.is_ours else _BLUE for row in rows]
    axes.hlines(places, min(values), values, color=_GRID)
    axes.scatter(values, places, c=colours, s=26, zorder=3)
    axes.set_yticks(places, [f"{row.model}   {row.source}" for row in rows])
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if row.is_ours else "normal")
    axes.set_xlabel(f"{LABELS[metric]}, {'/'.join(sorted({row.split for row in rows}))}")
    axes.grid(axis="x", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)


def _learning(axes: plt.Axes, runs: list[dict[str, Any]], metric: str) -> None:
    """The mean over a run's trials after each epoch that all of them reached."""
    for run, colour in zip(runs, itertools.cycle(_RUNS), strict=False):
        name = f"{'test' if run['protocol'] == 'selectra' else 'dev'}/{metric}"
        trials = [[epoch[name] for epoch in trial["epochs"] if name in epoch]
                  for trial in run["trials"]]
        values = np.mean(list(zip(*trials, strict=False)), axis=1) if all(trials) else []
        axes.plot(range(1, len(values) + 1), values, marker="o", markersize=4, color=colour,
                  label=f"{run['name']}, {name.split('/')[0]}")
    axes.set_title("After each epoch", loc="left", fontsize=10)
    longest = max(len(trial["epochs"]) for run in runs for trial in run["trials"])
    axes.set_xlim(0.5, longest + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.grid(color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
    axes.legend(frameon=False, fontsize=8)


def _confusions(axes: plt.Axes, matrix: Confusion, name: str) -> None:
    """Shares of each row; the numbers are counts over all trials of the run `name`."""
    counts, size = matrix.counts, len(matrix.classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(size), matrix.classes, rotation=90)
    axes.set_yticks(range(size), matrix.classes)
    for i, j in np.argwhere(counts):
        axes.text(j, i, _short(counts[i, j]), ha="center", va="center", fontsize=6.5,
                  color="white" if shares[i, j] > 0.6 else _INK)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    rest = f", the {size} most frequent of {matrix.of}" if matrix.of > size else ""
    axes.set_title(f"Confusions of {name}{rest}", loc="left", fontsize=10)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _short(count: int) -> str:
    return str(count) if count < 1000 else f"{count / 1000:.0f}k"


def as_bytes(figure: plt.Figure, kind: str) -> bytes:
    """The figure as `png` or `svg`; the same figure gives the same bytes."""
    data = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with plt.rc_context(_STYLE):
        figure.savefig(data, format=kind, dpi=110, metadata=metadata)
    return data.getvalue()
