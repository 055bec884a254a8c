"""Results of fine-tuning: those of this model, from files, and published ones for comparison."""

import json
from collections.abc import Sequence

from electra_es.errors import UsageError

# Tasks, their metric, and published figures: SELECTRA's first model card (mean ± standard deviation
# of 5 trials), and the downstream table of the BERTIN project's card (POS accuracy and NER F1 on
# CoNLL-2002) for the others; BERTIN is its Gaussian-512.
TASKS = {"conll2002_pos": "CoNLL-2002 POS (acc)", "conll2002_ner": "CoNLL-2002 NER (F1)",
         "pawsx_es": "PAWS-X (acc)", "xnli_es": "XNLI (acc)"}
PUBLISHED = (
    ("SELECTRA small", "0.9653 ± 0.0007", "0.863 ± 0.004", "0.896 ± 0.002", "0.784 ± 0.002", "22M"),
    ("SELECTRA medium", "0.9677 ± 0.0004", "0.870 ± 0.003", "0.896 ± 0.002", "0.804 ± 0.002", "41M"),
    ("mBERT", "0.9689", "0.8616", "0.8895", "0.7606", "178M"),
    ("BETO", "0.9693", "0.8596", "0.8720", "0.8012", "110M"),
    ("BSC-BNE", "0.9706", "0.8764", "0.8815", "0.7771", "125M"),
    ("BERTIN", "0.9697", "0.8707", "0.8965", "0.7843", "125M"),
)


def read_results(paths: Sequence[str]) -> dict[str, str]:
    """Fine-tuning results: task -> "mean ± standard deviation".

    Each file is a JSON object with `task` (one of `TASKS`), `mean` and `std`.

    Raises:
      UsageError: a file cannot be read or has another format.
    """
    results = {}
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                values = json.load(file)
            task = values["task"]
            results[task] = f"{float(values['mean']):.4f} ± {float(values['std']):.4f}"
        except OSError as error:
            raise UsageError(f"--results={path}: cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"--results={path}: expected a JSON object with task, mean and std "
                             f"({type(error).__name__}: {error})") from None
        if task not in TASKS:
            raise UsageError(f'--results={path}: task="{task}": expected one of {", ".join(TASKS)}')
    return results


def results_table(name: str, parameters: int, results: dict[str, str]) -> list[tuple[str, ...]]:
    """Rows for this model and the published ones; the first row is the header."""
    size = f"{parameters / 1e6:.0f}M" if parameters >= 1e6 else f"{parameters:,}"
    return [("Model", *TASKS.values(), "Parameters"),
            (f"**{name}**", *(results.get(task, "–") for task in TASKS), size), *PUBLISHED]
