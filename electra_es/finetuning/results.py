"""`trial.json` and `results.json`: what a trial gave, and what all of them give together.

    results.json
      task, kind, title, name, model, parameters, protocol, labels by id
      split, metric, mean, std, median, values        the headline
      metrics     "test/accuracy" -> mean, std, median, values
      trials      each with seed, steps, seconds, metrics, splits of which it predicts one class only
      splits      examples, windows, dropped rows by reason
      settings, grid, versions
"""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

import electra_es
from electra_es.errors import UsageError

RESULTS_FILE, TRIAL_FILE = "results.json", "trial.json"


def predictions_file(split: str) -> str:
    return f"predictions-{split}.jsonl"


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (0 for one value) and median of the trials."""
    return {"mean": statistics.fmean(values),
            "std": statistics.stdev(values) if len(values) > 1 else 0.0,
            "median": statistics.median(values), "values": list(values)}


def summarise_trials(trials: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Metric -> `summary`, for the metrics that all trials have."""
    names = [name for name in trials[0]["metrics"]
             if all(name in trial["metrics"] for trial in trials)]
    return {name: summary([trial["metrics"][name] for trial in trials]) for name in names}


def versions() -> dict[str, str]:
    """What computed the results."""
    return {"electra_es": electra_es.__version__, "tensorflow": tf.__version__,
            "numpy": np.__version__, "python": platform.python_version()}


def write_json(path: str, values: Any) -> None:
    write_text(path, [json.dumps(values, indent=2, ensure_ascii=False), "\n"])


def write_text(path: str, parts: Any) -> None:
    """Writes strings under a temporary name, then renames.

    Raises:
      UsageError: the file cannot be written.
    """
    try:
        with open(path + ".writing", "w", encoding="utf-8", errors="surrogatepass") as file:
            file.writelines(parts)
        os.replace(path + ".writing", path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from None


def read_json(path: str) -> Any:
    """Raises UsageError: no such file, or not JSON."""
    try:
        with open(path, encoding="utf-8", errors="surrogatepass") as file:
            return json.load(file)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error})") from None


def read_results(path: str) -> dict[str, Any]:
    """Reads the `results.json` of a run.

    Args:
      path: of the file, or of the run's directory.

    Raises:
      UsageError: not results of fine-tuning.
    """
    if os.path.isdir(path):
        path = os.path.join(path, RESULTS_FILE)
    values = read_json(path)
    for key in ("task", "name", "split", "metric", "metrics", "trials"):
        if not isinstance(values, dict) or key not in values:
            raise UsageError(f"{path}: no {key}: expected a results.json of electra_es.finetuning.run")
    return values
