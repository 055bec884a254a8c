"""A run of fine-tuning from beginning to end: the grid if there is one, the trials, the results."""

import dataclasses
import os
import shutil
from typing import Any

from electra_es.files import only_run_in
from electra_es.finetuning.data import load_task_data
from electra_es.finetuning.grid import Grid, best_point, grid_points
from electra_es.finetuning.model import as_model_dir, load_pretrained
from electra_es.finetuning.results import RESULTS_FILE, summarise_trials, versions, write_json
from electra_es.finetuning.run_checks import check_fits, check_local, check_same_run, splits_to_score
from electra_es.finetuning.saved import id2label
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.tasks import Task
from electra_es.finetuning.trial import MODEL_DIR
from electra_es.finetuning.trials import Run, Trial, one_at_a_time, run_trial
from electra_es.model.pretrainer import count_parameters
from electra_es.training.devices import TpuAddress, set_up_devices
from electra_es.training.interruption import Interrupted, StopSignal
from electra_es.training.workers import Workers

PRETRAINED_DIR = "pretrained"


def finetune(task: Task, config: FinetuningConfig, *, model: str, data_dir: str, output: str,
             grid: Grid | None = None, tpu: TpuAddress = TpuAddress(), skip_bad_rows: bool = False,
             name: str = "", from_scratch: bool = False) -> dict[str, Any] | None:
    """Fine-tunes a model for a task in `output`; goes on where an earlier start ended.

    Args:
      task: the task.
      config: the settings; with a grid, those that it does not try.
      model: a model directory, a Hugging Face folder, or a name on the hub.
      data_dir: where the task's files are.
      output: the run's directory.
      grid: settings to choose from, on dev.
      tpu: TPU to use, if any.
      skip_bad_rows: whether rows that cannot be read are counted instead of ending the run.
      name: of the model in tables; empty: as `model`.
      from_scratch: whether the weights of the model are drawn anew, for comparison, for each
        trial.

    Returns:
      what `results.json` holds, or None if a signal ended the run early, after saving.

    Raises:
      UsageError: wrong use or bad input; nothing already written is lost.
      CheckFailed: max_bad_steps non-finite steps in a row.
    """
    # ---- Devices, model, data: what can be wrong is looked at before step 1.
    check_local(output, tpu)
    # All points of a grid are trained with the same threads: those that suit the smallest batch.
    batch_sizes = (grid or {}).get("train_batch_size", (config.train_batch_size,))
    smallest = dataclasses.replace(config, train_batch_size=min(batch_sizes))
    strategy = set_up_devices(smallest.for_training(1), tpu)
    with only_run_in(output), StopSignal(Workers(strategy)) as stop:
        model_dir = as_model_dir(model, os.path.join(output, PRETRAINED_DIR))
        with strategy.scope():
            pretrained = load_pretrained(model_dir, model, config.precision,
                                         config.seed if from_scratch else None)
        check_fits(config, pretrained)
        scored = splits_to_score(task, config, data_dir, with_selection=bool(grid))
        data = load_task_data(task, pretrained.tokenizer, config, data_dir, ("train", *scored),
                              skip_bad_rows=skip_bad_rows)
        counts = data.counts()
        check_same_run(output, task, config, grid, pretrained, counts)
        for split, count in counts.items():
            print(split_line(split, count), flush=True)
        run = Run(output, pretrained, data, strategy, stop)

        try:
            # ---- The grid: one trial each, scored on dev and nothing else.
            points: dict[str, Trial] = {}
            first_dir = "trial-1"
            finetuner = one_at_a_time(run)
            if grid:
                settings = grid_points(config, grid)
                for point, tried in settings.items():
                    print(f"grid: {point}", flush=True)
                    points[point] = run_trial(run, finetuner, tried, os.path.join("grid", point), 1,
                                              ("dev",))
                chosen = best_point(list(points), list(points.values()), f"dev/{task.metric}")
                print(f"grid: the best on dev is {chosen}", flush=True)
                config, first_dir = settings[chosen], os.path.join("grid", chosen)
                for point in points:
                    if point != chosen:  # its weights are of no use any more
                        shutil.rmtree(os.path.join(output, "grid", point, MODEL_DIR),
                                      ignore_errors=True)

            # ---- The trials; with a grid the first is that of the chosen point.
            trials = [
                run_trial(run, finetuner, config, first_dir if number == 1 else f"trial-{number}",
                          number, scored)
                for number in range(1, config.num_trials + 1)]
        except Interrupted:
            return None

        # ---- The results.
        headline_split = "test" if "test" in scored else "dev"
        metrics = summarise_trials(trials)
        results = {
            "task": task.name, "kind": task.kind, "title": task.title, "scheme": task.scheme,
            "name": name or (os.path.basename(os.path.normpath(model))
                             + (" from scratch" if from_scratch else "")),
            "model": pretrained.origin,
            "parameters": count_parameters([pretrained.model.embeddings,
                                            pretrained.model.discriminator]),
            "protocol": config.protocol, "id2label": id2label(task),
            "split": headline_split, "metric": task.metric,
            **metrics[f"{headline_split}/{task.metric}"],
            "metrics": metrics, "trials": trials, "splits": counts,
            "settings": dataclasses.asdict(config), "task_settings": dataclasses.asdict(task),
            "grid": {point: trial["metrics"] for point, trial in points.items()},
            "versions": versions()}
        write_json(os.path.join(output, RESULTS_FILE), results)
        return results


def split_line(split: str, count: dict[str, Any]) -> str:
    """`dev: 1,962 examples in 1,970 windows; dropped: 38 NS`."""
    dropped = ", ".join(f"{number} {reason}" for reason, number in count["dropped"].items())
    return (f"{split}: {count['examples']:,} examples in {count['windows']:,} windows"
            + (f"; dropped: {dropped}" if dropped else ""))
