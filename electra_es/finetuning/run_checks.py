"""What is looked at before the first step of a run."""

import dataclasses
import os
from typing import Any

from electra_es.errors import UsageError
from electra_es.finetuning.grid import Grid
from electra_es.finetuning.model import Pretrained
from electra_es.finetuning.readers import has_split
from electra_es.finetuning.results import read_json, write_json
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.tasks import Task
from electra_es.training.devices import TpuAddress

RUN_FILE = "run.json"


def check_local(output: str, tpu: TpuAddress) -> None:
    """Results, predictions and checkpoints are files of this machine."""
    if "://" in output:
        raise UsageError(f"--output={output}: expected a local directory")
    if tpu.name not in ("", "local"):
        raise UsageError(f"--tpu={tpu.name}: expected local, on a TPU VM itself; a TPU of another "
                         "machine cannot write to --output")


def check_fits(config: FinetuningConfig, pretrained: Pretrained) -> None:
    positions = pretrained.config.max_position_embeddings
    if config.max_seq_length > positions:
        raise UsageError(f"max_seq_length={config.max_seq_length}: expected at most {positions}, the "
                         f"positions of {pretrained.origin}")


def splits_to_score(task: Task, config: FinetuningConfig, data_dir: str, *, with_selection: bool
                    ) -> tuple[str, ...]:
    """The splits that are scored: dev and test, where there are such; with protocol=selectra test.

    Raises:
      UsageError: there is nothing to score, or no dev to select on.
    """
    wanted = ("test",) if config.protocol == "selectra" else ("dev", "test")
    found = tuple(split for split in wanted if has_split(task, split, data_dir))
    for split in wanted:
        if split not in found:
            print(f"{split}: {task.name} has no such split in {data_dir}; it is not scored", flush=True)
    if not found:
        raise UsageError(f"{data_dir}: no {' or '.join(wanted)} of task {task.name}: expected files "
                         f"to score on{'; ' + task.how_to_get if task.how_to_get else ''}")
    selects = with_selection or config.keep == "best" or config.early_stopping
    if selects and "dev" not in found:
        raise UsageError(f"task {task.name}: a grid, keep=best and early_stopping select on dev: "
                         "expected dev, and protocol=standard")
    return found


def check_same_run(output: str, task: Task, config: FinetuningConfig, grid: Grid | None,
                   pretrained: Pretrained, counts: dict[str, Any]) -> None:
    """Writes `run.json`, or checks that an earlier start in `output` was of the same run.

    Raises:
      UsageError: `output` holds another run; the first difference is named.
    """
    fixed = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)
             if not field.metadata["may_change"]}
    now = {"task": task.name, "labels": list(task.labels), "model": pretrained.origin,
           "vocabulary": pretrained.tokenizer.config.vocab_sha256,
           "grid": {name: list(values) for name, values in (grid or {}).items()}, **fixed,
           **{f"{split} examples": count["fingerprint"] for split, count in counts.items()}}
    path = os.path.join(output, RUN_FILE)
    if not os.path.exists(path):
        write_json(path, now)
        return
    before = read_json(path)
    for key in {**before, **now}:
        if before.get(key) != now.get(key):
            raise UsageError(f"{output}: holds a run with {key}={before.get(key)!r}, this one has "
                             f"{key}={now.get(key)!r}: expected the same, or another --output")
