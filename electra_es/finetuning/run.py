r"""Fine-tunes a pretrained model for a task, in several trials, and scores it.

    python -m electra_es.finetuning.run --task=conll2002_ner --model=runs/small \
        --data=data/conll2002 --output=runs/small-ner --num_trials=5
    python -m electra_es.finetuning.run --task=my_task.json --model=OWNER/NAME --data=data \
        --output=runs/mine --learning_rate=5e-5 --keep=best --early_stopping=2
    python -m electra_es.finetuning.run --task=pawsx_es ... --grid=evales
    python -m electra_es.finetuning.run --task=pawsx_es ... \
        --grid='train_batch_size=16,32 learning_rate=5e-5,1e-4'
    python -m electra_es.finetuning.run --task=pawsx_es ... --protocol=selectra --num_trials=5

The same command goes on after a crash or Ctrl-C; finished trials are not repeated. A setting takes
its value from, weakest first: the recipe of SELECTRA's model card, the recipe in the task's file,
its flag. `python -m electra_es.finetuning.report` sets the results beside published ones.
"""

from typing import Any

from absl import flags

from electra_es.config import from_dict
from electra_es.errors import EXIT_STOPPED, UsageError, run_main
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.flags import define, define_config_flags, parse_flags_only, required
from electra_es.settings import NAME, PATH


def main() -> int:
    task_name = define("task", str, "", "Name of a shipped task, or a JSON file.", PATH)
    model = define(
        "model", str, "", "Model directory, Hugging Face folder, or OWNER/NAME of a model on the hub.",
        PATH)
    data = define("data", str, "", "Directory with the task's files; a bundled task needs none.", PATH)
    output = define("output", str, "", "Where the run lives, and goes on if it is there.", PATH)
    grid = define("grid", str, "", "Settings to choose from on dev: evales, or setting=value,value "
                  "and so on.")
    name = define("name", str, "", "Name of the model in tables; none: that of --model.", NAME)
    skip = define("skip_bad_rows", bool, False, "Leave out (and count) rows that cannot be read.")
    scratch = define("from_scratch", bool, False, "Draw the model's weights anew: what the same "
                     "network gives without pretraining.")
    tpu = define("tpu", str, "", "local, on a TPU VM.", NAME)
    define_config_flags(FinetuningConfig)
    parse_flags_only()
    # Not above: TensorFlow takes seconds to import, and --help needs none of it.
    from electra_es.finetuning.finetune import finetune
    from electra_es.finetuning.grid import parse_grid
    from electra_es.finetuning.tables import summary_lines
    from electra_es.finetuning.tasks import default_data_dir, load_task
    from electra_es.training.devices import TpuAddress

    task = load_task(required(task_name, "the name of a task, or a JSON file"))
    config = settings(task.recipe, f"task={task.name}: recipe")
    data_dir = data.value or default_data_dir(task)
    if not data_dir:
        raise UsageError(f"--data: expected the directory with the files of {task.name}"
                         f"{'; ' + task.how_to_get if task.how_to_get else ''}")
    results = finetune(
        task, config, model=required(model, "a model directory, a Hugging Face folder or OWNER/NAME"),
        data_dir=data_dir, output=required(output, "a directory for the run"),
        grid=parse_grid(grid.value) if grid.value else None, skip_bad_rows=skip.value,
        tpu=TpuAddress(tpu.value), name=name.value,
        from_scratch=scratch.value)
    if results is None:
        return EXIT_STOPPED
    print("\n".join(summary_lines(results)))
    return 0


def settings(recipe: Any, where: str) -> FinetuningConfig:
    """The task's recipe, with the flags that were given on top."""
    given = {name: flags.FLAGS[name].value for name in FinetuningConfig.__dataclass_fields__
             if flags.FLAGS[name].value is not None}
    try:
        from_dict(FinetuningConfig, dict(recipe))  # type: ignore[type-var]
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    return from_dict(FinetuningConfig, {**recipe, **given})  # type: ignore[type-var]


if __name__ == "__main__":
    run_main(main)
