"""Draws the report of one run or of several runs.

    python -m electra_es.monitoring --model_dir=runs/small --output=report.html
    python -m electra_es.monitoring --model_dir=runs/small,runs/medium --output=report.html
    python -m electra_es.monitoring --model_dir=runs/small --output=report.png
"""

from electra_es.errors import UsageError, run_main


def main() -> None:
    # Imported here: matplotlib takes longer to import than a short run takes to draw.
    from electra_es.flags import define, parse_flags_only
    from electra_es.monitoring.report import write_report
    from electra_es.settings import PATH

    model_dirs = define("model_dir", tuple[str, ...], (), "The runs to draw, comma-separated.", PATH)
    output = define("output", str, "report.html", "Where to: a name in .html or .png.", PATH)
    parse_flags_only()
    if not model_dirs.value:
        raise UsageError("--model_dir: expected a model directory, or several with commas between")
    print(write_report(model_dirs.value, output.value))


if __name__ == "__main__":
    run_main(main)
