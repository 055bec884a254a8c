"""`metrics.jsonl` and `samples.jsonl` of a run: no other module reads or writes them.

A line of `metrics.jsonl` is an object with `kind`, `step` and `time` (seconds since 1970), and

    start        devices, data and initial_weights of one start of the run, which begins at `step`
    train        means since the line before, over `steps` steps and `tokens` tokens
    evaluation   metrics over the validation examples
    exam         results of the minimal pairs, as `ExamResult.to_json` gives them

A killed process can leave half a line. A run that continues from a checkpoint repeats the steps after
it. Therefore the reader ignores half lines and uses the last line of each kind and step, and a start
first removes the lines of the steps that it will repeat.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from electra_es import files
from electra_es.errors import UsageError

METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.jsonl"
EVALUATION_FILE = "evaluation.json"

Line = dict[str, Any]


@dataclass(frozen=True)
class RunLog:
    """Content of `metrics.jsonl`; each list in the order of steps, with one line a step."""

    starts: list[Line]
    training: list[Line]
    evaluations: list[Line]
    exams: list[Line]

    def up_to(self, step: int) -> "RunLog":
        """The log without the lines of later steps: how the weights of `step` came about."""
        return RunLog(*([line for line in lines if line["step"] <= step]
                        for lines in (self.starts, self.training, self.evaluations, self.exams)))

    def training_seconds(self) -> float | None:
        """Time of all steps; validation and the time between two starts are left out.

        The first line of each start has no speed, as these steps include compiling. Their time is
        computed from the next measured speed, or from the one before if none follows. None if there is
        no speed at all.
        """
        return self._sum_over_steps(lambda line: 1 / line["steps_per_second"]
                                    if line.get("steps_per_second") else None)

    def tokens(self) -> float | None:
        """Tokens of all steps, including [CLS] and [SEP], without padding. None if no line has a count
        (logs of earlier versions)."""
        return self._sum_over_steps(lambda line: line["tokens"] / line["steps"]
                                    if line.get("steps") else None)

    def _sum_over_steps(self, of_one_step: Callable[[Line], float | None]) -> float | None:
        measured = [(line["step"], value) for line in self.training
                    if (value := of_one_step(line)) is not None]
        if not measured:
            return None
        total, before = 0.0, 0
        for step, value in measured:
            total += (step - before) * value
            before = step
        return total + (self.training[-1]["step"] - before) * measured[-1][1]


def read_log(model_dir: str) -> RunLog:
    """Reads `metrics.jsonl`; the lists are empty if there is no such file (an imported model)."""
    lines = _read(os.path.join(model_dir, METRICS_FILE))[0]
    return RunLog(*([line for line in lines if line.get("kind") == kind]
                    for kind in ("start", "train", "evaluation", "exam")))


def read_samples(model_dir: str) -> list[Line]:
    """The lines of `samples.jsonl`: `step` and `samples`, a list of lists of `SampleToken`."""
    return _read(os.path.join(model_dir, SAMPLES_FILE))[0]


def append_metrics(model_dir: str, kind: str, step: int, values: Mapping[str, Any]) -> None:
    """Adds a line and writes it to the disk."""
    _append(os.path.join(model_dir, METRICS_FILE),
            {"kind": kind, "step": step, "time": time.time(), **values})
    if kind == "evaluation":
        files.write_json(os.path.join(model_dir, EVALUATION_FILE), {"step": step, **values})


def is_last_evaluation(model_dir: str, step: int, metrics: Mapping[str, float]) -> bool:
    """Whether `evaluation.json` already has these figures, up to rounding of a device's sums."""
    try:
        before = files.read_json(os.path.join(model_dir, EVALUATION_FILE))
        return before.pop("step") == step and before.keys() == metrics.keys() and all(
            math.isclose(before[name], value, rel_tol=1e-5, abs_tol=1e-9)
            for name, value in metrics.items())
    except (UsageError, KeyError, TypeError):
        return False


def is_last_exam(model_dir: str, step: int, values: Mapping[str, Any]) -> bool:
    """Whether the last exam in `metrics.jsonl` is of this step and has these results."""
    exams = read_log(model_dir).exams
    return bool(exams) and exams[-1]["step"] == step and all(
        exams[-1].get(name) == value for name, value in values.items())


def append_samples(model_dir: str, step: int, samples: list) -> None:
    _append(os.path.join(model_dir, SAMPLES_FILE), {"step": step, "samples": samples})


def tidy(model_dir: str, last_step: float = math.inf) -> None:
    """Removes half lines, and the lines of steps after `last_step`."""
    for name in (METRICS_FILE, SAMPLES_FILE):
        path = os.path.join(model_dir, name)
        lines, all_whole = _read(path)
        kept = [line for line in lines if line["step"] <= last_step]
        if len(kept) < len(lines) or not all_whole:
            files.write_bytes(path, "".join(f"{_text(line)}\n" for line in kept).encode())
    path = os.path.join(model_dir, EVALUATION_FILE)
    if files.exists(path) and _step_of(path) > last_step:
        files.remove(path)


def _step_of(path: str) -> float:
    """The step of `evaluation.json`; infinity if the file is damaged."""
    try:
        return float(files.read_json(path)["step"])
    except (UsageError, KeyError, TypeError, ValueError):
        return math.inf


def _read(path: str) -> tuple[list[Line], bool]:
    """Returns the lines, and whether each of the file's lines was whole.

    The file is read as bytes: a half line may end within a character, and text may hold characters
    that Python treats as the end of a line.
    """
    if not files.exists(path):
        return [], True
    texts = files.read_bytes(path).split(b"\n")
    by_kind_and_step: dict[tuple, Line] = {}
    all_whole = texts[-1] == b""
    for text in filter(None, texts):
        try:
            line = json.loads(text)
            by_kind_and_step[line.get("kind"), int(line["step"])] = line
        except (ValueError, KeyError, TypeError, AttributeError):
            all_whole = False
    return sorted(by_kind_and_step.values(), key=lambda line: line["step"]), all_whole


def _text(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False)


def _append(path: str, line: Line) -> None:
    files.append_line(path, _text(line))
