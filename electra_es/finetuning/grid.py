"""The grid: settings that are tried with one trial each, and of which the best on dev is used."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from electra_es.errors import UsageError, nearest_hint
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.settings import field_type

Grid = Mapping[str, tuple[Any, ...]]

SETTINGS = ("train_batch_size", "learning_rate", "weight_decay")
# EvalES (github.com/PlanTL-GOB-ES/lm-spanish): 12 points.
NAMED: dict[str, Grid] = {
    "evales": {"train_batch_size": (8, 16), "weight_decay": (0.1, 0.01),
               "learning_rate": (1e-5, 3e-5, 5e-5)}}


def parse_grid(text: str) -> Grid:
    """Parses `evales`, or assignments such as `train_batch_size=8,16 learning_rate=1e-5,3e-5`.

    Raises:
      UsageError: another setting than SETTINGS, or a value that is no number.
    """
    if text in NAMED:
        return NAMED[text]
    grid = {}
    for assignment in text.split():
        name, _, values = assignment.partition("=")
        if name not in SETTINGS or not values:
            raise UsageError(f"--grid={text}: {assignment}: expected {', '.join(NAMED)}, or values of "
                             f"{', '.join(SETTINGS)} such as learning_rate=1e-5,3e-5"
                             f"{nearest_hint(name, (*NAMED, *SETTINGS))}")
        kind = field_type(FinetuningConfig, name)
        try:
            grid[name] = tuple(kind(value) for value in values.split(","))
        except ValueError:
            raise UsageError(f"--grid={text}: {assignment}: expected numbers with commas between"
                             ) from None
    return grid


def grid_points(config: FinetuningConfig, grid: Grid) -> dict[str, FinetuningConfig]:
    """Name of each point -> its settings; the names are those of folders."""
    points = {}
    for values in itertools.product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        name = "_".join(f"{key}-{value:g}" for key, value in settings.items())
        points[name] = dataclasses.replace(config, **settings)
    return points


def best_point(names: Sequence[str], trials: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The point whose trial has the greatest `metric`, of dev; the first of equal ones."""
    values = [trial["metrics"][metric] for trial in trials]
    return names[values.index(max(values))]
