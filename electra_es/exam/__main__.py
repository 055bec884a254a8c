"""Examines a model on Spanish minimal pairs: does it prefer the right sentence to the wrong one?

    python -m electra_es.exam --model=runs/sample/model
    python -m electra_es.exam --model=DIR --phenomenon=accents,enye --show_wrong=5
    python -m electra_es.exam --model=DIR --output=exam.json              # or exam.csv
    python -m electra_es.exam --model=RUN --steps=all --output=exam.png   # a curve by phenomenon

DIR is a model directory, a SavedModel, a Hugging Face folder or an ONNX folder; RUN is a model directory,
of which each kept checkpoint is examined. docs/exam.md
"""

from typing import Literal

from electra_es.errors import UsageError, run_main
from electra_es.flags import define, parse_flags_only, required
from electra_es.settings import NAME, PATH, Range


def main() -> None:
    model = define("model", str, "", "Model directory or an export of one.", PATH)
    phenomena = define("phenomenon", tuple[str, ...], (), "Only these, comma-separated; none: all.", NAME)
    own_pairs = define("pairs", str, "", "File or folder of your own pairs; none: those of this project.",
                       PATH)
    records = define("records", str, "", "Records directory whose counts are the floor; none: the counts "
                     "in the model directory.", PATH)
    steps = define("steps", Literal["last", "all"], "last", "Checkpoints of a run to examine.")
    show_wrong = define("show_wrong", int, 0, "Wrong answers to list, of each examinee.",
                        Range(low=0, high=100_000, why="there are no more pairs"))
    output = define("output", str, "", "File for the results: .json or .csv; with --steps=all also .png "
                    "or .svg.", PATH)
    parse_flags_only()
    path = required(model, "a model directory or an export of one")
    every_step = steps.value == "all"
    if every_step and show_wrong.value:
        raise UsageError("--show_wrong: has no effect with --steps=all")

    from electra_es.exam import tables
    from electra_es.exam.any_model import examine
    from electra_es.minimal_pairs.pairs import load_pairs
    from electra_es.minimal_pairs.results import EXAMINEES

    if output.value:
        tables.check_output(output.value, every_step)
    pairs = load_pairs(own_pairs.value, phenomena.value)
    examined = examine(path, pairs, records=records.value, every_step=every_step)
    last = examined[-1]
    if every_step:
        print(tables.table_of_steps(examined))
    else:
        print(path + ("" if last.step is None else f": weights of step {last.step:,}"))
        print(tables.table(last.result))
    for examinee in EXAMINEES:
        if show_wrong.value and last.result.all.of(examinee):
            print(f"\n{tables.wrong_answers(last.result, examinee, show_wrong.value)}")
    if output.value:
        tables.write(output.value, path, examined)
        print(f"\n{output.value}: written")


if __name__ == "__main__":
    run_main(main)
