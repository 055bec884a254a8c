"""Draws the report of a run, or of several in one.

    python -m electra_es.monitoring --model_dir=runs/small --output=report.html
    python -m electra_es.monitoring --model_dir=runs/small,runs/medium --output=report.html
    python -m electra_es.monitoring --model_dir=runs/small --output=report.png
"""

from absl import flags

from electra_es.errors import UsageError, run_main


def main() -> None:
    model_dirs = flags.DEFINE_list("model_dir", [], "The runs to draw, comma-separated.")
    output = flags.DEFINE_string("output", "report.html", "Where to: a name in .html or .png.")
    # Not above: matplotlib takes longer to import than a short run to report.
    from electra_es.flags import parse_flags
    from electra_es.monitoring.report import write_report

    if rest := parse_flags():
        raise UsageError(f'"{rest[0]}": expected flags only')
    if not model_dirs.value:
        raise UsageError("--model_dir: expected a model directory, or several with commas between")
    print(write_report(model_dirs.value, output.value))


if __name__ == "__main__":
    run_main(main)
