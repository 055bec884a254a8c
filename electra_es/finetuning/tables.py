"""Tables of results: ours beside the published ones, each figure under the metric that it is.

Sources print different metrics under one name ("F1" is accuracy in one table and seqeval's F1 of
bare tags in another). So a table has one column for each metric as it is computed, and a row has a
figure only in the columns of what its source computes.
"""

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from electra_es.durations import format_duration

PUBLISHED_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "published.json")
LABELS = {
    "accuracy": "accuracy", "entity_f1": "entity F1 (seqeval, lenient)",
    "entity_f1_strict": "entity F1 (seqeval, strict)",
    "seqeval_f1_untyped": "seqeval F1 of bare tags", "macro_f1": "macro F1",
    "binary_f1": "F1 of class 1", "mcc": "Matthews correlation", "pearson": "Pearson",
    "spearman": "Spearman", "combined": "mean of Pearson and Spearman",
    "exact_match": "exact match", "f1": "F1 of answer words",
}
_ONE_CLASS, _AS_SELECTRA, _SELECTED = "†", "‡", "§"
_NOTES = {
    _ONE_CLASS: "A trial predicts one class only.",
    _AS_SELECTRA: "The test set in the place of dev, weights of the last step: as SELECTRA's figures "
                  "were made.",
    _SELECTED: "Settings or epoch selected on dev.",
}


class Row(NamedTuple):
    """A row: a model, and its figure for some of the metrics."""

    model: str
    source: str
    split: str
    cells: dict[str, str]
    values: dict[str, float]  # the same as numbers, for pictures
    is_ours: bool = False


class Table(NamedTuple):
    """The results of one task."""

    task: str
    title: str
    metrics: list[str]
    rows: list[Row]
    notes: list[str]


class OurRow(NamedTuple):
    """A row of ours before it is one: the results of a run, or of the ensemble of its trials."""

    results: dict[str, Any]
    ensemble: dict[str, float] | None = None  # "test/accuracy" -> value


def published_facts() -> dict[str, Any]:
    with open(PUBLISHED_FILE, encoding="utf-8") as file:
        return json.load(file)


def results_table(ours: Sequence[OurRow]) -> Table:
    """The published rows of a task, then ours.

    Args:
      ours: of one task, at least one.
    """
    first = ours[0].results
    facts = published_facts()
    rows, notes = [], []
    metrics: list[str] = []
    for entry in facts["results"].get(first["task"], []):
        metric, source = entry["metric"], facts["sources"][entry["source"]]
        metrics.append(metric)
        printed = f'; prints "{entry["printed_as"]}"' if "printed_as" in entry else ""
        notes.append(f"{source['short']}: {source['title']}. {LABELS[metric]}{printed}. "
                     f"Recipe: {source['recipe']}. {source.get('note', '')}".strip())
        rows += [Row(model, source["short"], entry["split"], {metric: shown(*values)},
                     {metric: values[0]}) for model, values in entry["rows"].items()]
    marks: set[str] = set()
    for row in ours:
        metrics += [name.split("/")[1] for name in row.results["metrics"]]
        rows.append(_our_row(row, marks))
    notes += [f"{mark} {text}" for mark, text in _NOTES.items() if mark in marks]
    notes.append("Ours: mean ± standard deviation (of the sample) over the trials.")
    return Table(first["task"], first["title"] or first["task"], list(dict.fromkeys(metrics)), rows,
                 notes)


def _our_row(row: OurRow, marks: set[str]) -> Row:
    results, split = row.results, row.results["split"]
    of_row = marks_of(results)
    marks |= set(of_row)
    trials = len(results["trials"])
    what = f"ensemble of {trials}" if row.ensemble is not None else (
        f"{trials} trial{'s' * (trials > 1)}")
    name = f"{results['name']} ({results['parameters'] / 1e6:.0f}M), {what}"
    cells, values = {}, {}
    for metric, figures in results["metrics"].items():
        if metric.startswith(f"{split}/"):
            short = metric.split("/")[1]
            values[short] = figures["mean"] if row.ensemble is None else row.ensemble[metric]
            cells[short] = shown(values[short]) if row.ensemble is not None or trials == 1 else (
                shown(figures["mean"], figures["std"]))
    return Row(f"{name} {''.join(of_row)}".rstrip(), "this run", split, cells, values, is_ours=True)


def marks_of(results: dict[str, Any]) -> list[str]:
    """What a reader has to know of results beyond their figures."""
    settings = results["settings"]
    found = {
        _ONE_CLASS: any(results["split"] in trial["one_class"] for trial in results["trials"]),
        _AS_SELECTRA: results["protocol"] == "selectra",
        _SELECTED: bool(results["grid"] or settings["keep"] == "best" or settings["early_stopping"])}
    return [mark for mark, holds in found.items() if holds]


def shown(mean: float, std: float | None = None) -> str:
    """`0.8630` or `0.8630 ± 0.0040`."""
    return f"{mean:.4f}" if std is None else f"{mean:.4f} ± {std:.4f}"


def trials_table(results: dict[str, Any]) -> list[list[str]]:
    """Head, a row for each trial, then mean, standard deviation and median."""
    names = list(results["metrics"])
    rows = [["", *names, "seconds"]]
    for trial in results["trials"]:
        mark = f" {_ONE_CLASS}" if trial["one_class"] else ""
        rows.append([f"trial {trial['trial']}{mark}",
                     *(f"{trial['metrics'][name]:.4f}" for name in names),
                     format_duration(trial["seconds"])])
    for statistic in ("mean", "std", "median"):
        rows.append([statistic, *(f"{results['metrics'][name][statistic]:.4f}" for name in names), ""])
    return rows


def summary_lines(results: dict[str, Any]) -> list[str]:
    """What the command prints at its end."""
    rows = trials_table(results)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in rows]
    return ["", f"{results['title'] or results['task']}, {results['name']}", *lines,
            *(_NOTES[mark] if mark != _ONE_CLASS else f"{mark} {_NOTES[mark]}"
              for mark in marks_of(results))]
