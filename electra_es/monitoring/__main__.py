"""Draws the report of a run.

    python -m electra_es.monitoring --model_dir=runs/small --output=report.html
    python -m electra_es.monitoring --model_dir=runs/small --output=report.png
"""

from absl import flags

from electra_es.errors import run_main


def main() -> None:
    model_dir = flags.DEFINE_string("model_dir", "", "The run to draw.")
    output = flags.DEFINE_string("output", "report.html", "Where to: a name in .html or .png.")
    # Not above: matplotlib takes longer to import than a short run to report.
    from electra_es.flags import parse_flags, required
    from electra_es.monitoring.report import write_report

    parse_flags()
    write_report(required(model_dir, "a model directory"), output.value)


if __name__ == "__main__":
    run_main(main)
