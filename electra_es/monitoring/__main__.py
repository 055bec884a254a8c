"""Draws the report of a run.

    python -m electra_es.monitoring --model_dir=runs/small --output=report.html
    python -m electra_es.monitoring --model_dir=runs/small --output=report.png
"""

from electra_es.errors import run_main


def main() -> None:
    # Not above: matplotlib takes longer to import than a short run to report.
    from electra_es.flags import define, parse_flags_only, required
    from electra_es.monitoring.report import write_report
    from electra_es.settings import PATH

    model_dir = define("model_dir", str, "", "The run to draw.", PATH)
    output = define("output", str, "report.html", "Where to: a name in .html or .png.", PATH)
    parse_flags_only()
    write_report(required(model_dir, "a model directory"), output.value)


if __name__ == "__main__":
    run_main(main)
