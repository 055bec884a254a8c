r"""Sets results of fine-tuning beside published ones.

    python -m electra_es.finetuning.report --results=runs/small-pos,runs/small-ner --output=results.md
    python -m electra_es.finetuning.report --results=runs/small-pos --output=results.html --ensemble
    python -m electra_es.finetuning.report --results=runs/small-pos --output=results.png

A column is one metric, under the name of what it computes; published figures stand in the column of
what their source computes, whatever the source calls it. `.md` puts the pictures beside the file.
"""

import base64
import os
from typing import Any, NamedTuple

from electra_es.errors import UsageError, run_main
from electra_es.flags import define, parse_flags_only, required
from electra_es.settings import PATH

ENDINGS = (".md", ".html", ".png")


def main() -> None:
    paths = define("results", tuple[str, ...], (),
                   "results.json files, or the directories of runs; comma-separated.", PATH)
    output = define("output", str, "", "Where to: a name in .md, .html or .png.", PATH)
    with_ensemble = define("ensemble", bool, False, "Add the mean of the trials' probabilities.")
    parse_flags_only()
    if not paths.value:
        raise UsageError("--results: expected a results.json or the directory of a run, or several "
                         "with commas between")
    written = write_report(list(paths.value), required(output, "a name in .md, .html or .png"),
                           with_ensemble=with_ensemble.value)
    print(", ".join(written))


class Section(NamedTuple):
    """A task's part of a report."""

    table: Any  # tables.Table
    runs: list[Any]  # results of ours: (results, trials table, class scores)
    figure: Any


def write_report(paths: list[str], output: str, *, with_ensemble: bool = False) -> list[str]:
    """Writes the report of the runs in `paths`.

    Returns:
      the files that were written.

    Raises:
      UsageError: another ending, or no results of fine-tuning.
    """
    ending = os.path.splitext(output)[1]
    if ending not in ENDINGS:
        raise UsageError(f"--output={output}: expected a name in {', '.join(ENDINGS)}")
    sections = make_sections(paths, with_ensemble)
    from electra_es.finetuning.charts import as_bytes

    if ending == ".html":
        return [_write(output, html_page(sections).encode())]
    if ending == ".png":
        names = [output] if len(sections) == 1 else [
            f"{output.removesuffix('.png')}-{section.table.task}.png" for section in sections]
        return [_write(name, as_bytes(section.figure, "png"))
                for name, section in zip(names, sections, strict=True)]
    written = []
    for section in sections:
        picture = f"{output.removesuffix('.md')}-{section.table.task}.png"
        written.append(_write(picture, as_bytes(section.figure, "png")))
    return [_write(output, markdown(sections, list(map(os.path.basename, written))).encode()), *written]


def make_sections(paths: list[str], with_ensemble: bool) -> list[Section]:
    """Reads results, one section for each task in the order of `paths`."""
    # Not above: they import TensorFlow and matplotlib, which --help does not need.
    from electra_es.finetuning import analysis, charts, tables
    from electra_es.finetuning.results import read_results

    by_task: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for path in paths:
        results = read_results(path)
        run_dir = path if os.path.isdir(path) else os.path.dirname(path)
        by_task.setdefault(results["task"], []).append((run_dir, results))
    sections = []
    for runs in by_task.values():
        ours = []
        for run_dir, results in runs:
            ours.append(tables.OurRow(results))
            if with_ensemble and len(results["trials"]) > 1:
                ours.append(tables.OurRow(results, analysis.ensemble_metrics(run_dir, results)))
        table = tables.results_table(ours)
        shown, matrix = [], None
        for run_dir, results in runs:
            classes: list[Any] = []
            if results["kind"] in ("tagging", "classification"):
                found = analysis.read_predictions(run_dir, results, results["split"])
                classes = analysis.class_scores(found)
                matrix = matrix or analysis.confusion(found)
            shown.append((results, tables.trials_table(results), classes))
        figure = charts.draw(table, runs[0][1]["metric"], [results for _, results in runs], matrix)
        sections.append(Section(table, shown, figure))
    return sections


def markdown(sections: list[Section], pictures: list[str]) -> str:
    """The report as Markdown; each picture is that of a section."""
    from electra_es.finetuning.tables import LABELS

    lines = ["# Results of fine-tuning", ""]
    for section, picture in zip(sections, pictures, strict=True):
        table = section.table
        lines += [f"## {table.title} (`{table.task}`)", ""]
        lines += _markdown_table(
            ["model", "source", "split", *(LABELS[name] for name in table.metrics)],
            [[f"**{row.model}**" if row.is_ours else row.model, row.source, row.split,
              *(row.cells.get(name, "") for name in table.metrics)] for row in table.rows])
        lines += ["", *(f"- {note}" for note in table.notes), "", f"![{table.title}]({picture})", ""]
        for results, trials, classes in section.runs:
            lines += [f"### {results['name']}: trials", "", *_markdown_table(trials[0], trials[1:]), ""]
            if classes:
                lines += [f"### {results['name']}: classes ({results['split']})", "", *_markdown_table(
                    ["class", "precision", "recall", "F1", "number"],
                    [[row.name, *(f"{x:.4f}" for x in row[1:4]), f"{row.support:,}"]
                     for row in classes]), ""]
    return "\n".join(lines)


def _markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
            for row in (head, ["---"] * len(head), *rows)]


def html_page(sections: list[Section]) -> str:
    """The report as one page without references to other files."""
    import jinja2

    from electra_es.finetuning.charts import as_bytes
    from electra_es.finetuning.tables import LABELS

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                                    "templates")),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    pictures = [base64.b64encode(as_bytes(section.figure, "svg")).decode() for section in sections]
    return environment.get_template("results.html").render(
        sections=list(zip(sections, pictures, strict=True)), labels=LABELS)


def _write(path: str, data: bytes) -> str:
    try:
        with open(path + ".writing", "wb") as file:
            file.write(data)
        os.replace(path + ".writing", path)
    except OSError as error:
        raise UsageError(f"--output={path}: cannot be written ({error.strerror})") from None
    return path


if __name__ == "__main__":
    run_main(main)
