"""Results of the exam as tables for people, as CSV and as an image."""

import csv
import io
import math
import os
from collections.abc import Sequence

from electra_es import files
from electra_es.errors import UsageError
from electra_es.exam.any_model import Examined
from electra_es.minimal_pairs.results import EXAMINEES, Answer, Examinee, ExamResult, Result
from electra_es.monitoring import charts, exam_charts
from electra_es.monitoring.metrics_log import RunLog

HEADINGS: dict[Examinee, str] = {
    "discriminator": "discriminator", "generator": "generator", "frequency": "counting"}


def table(result: ExamResult) -> str:
    """A line for each phenomenon and one for all: share of right answers and interval of 95 %."""
    taken = [examinee for examinee in EXAMINEES if result.all.of(examinee)]
    rows = [["phenomenon", "pairs", *(HEADINGS[each] for each in taken)]]
    for each in (*result.phenomena, result.all):
        rows.append([each.name, str(each.pairs), *(_share(each, examinee) for examinee in taken)])
    return _aligned(rows)


def _share(result: Result, examinee: Examinee) -> str:
    score = result.of(examinee)
    return "" if score is None else f"{score.accuracy:.3f} ({score.low:.2f} to {score.high:.2f})"


def table_of_steps(examined: Sequence[Examined]) -> str:
    """A table for each examinee, with a column for each step; counting, the same at each, has one."""
    parts = []
    for examinee in EXAMINEES:
        if not examined[0].result.all.of(examinee):
            continue
        columns = examined if examinee != "frequency" else examined[:1]
        rows = [[HEADINGS[examinee], "pairs",
                 *(f"{each.step:,}" if examinee != "frequency" else "share" for each in columns)]]
        for i, first in enumerate((*examined[0].result.phenomena, examined[0].result.all)):
            results = [(*each.result.phenomena, each.result.all)[i] for each in columns]
            rows.append([first.name, str(first.pairs), *(
                f"{score.accuracy:.3f}" for result in results if (score := result.of(examinee)))])
        parts.append(_aligned(rows))
    return "\n\n".join(parts)


def wrong_answers(result: ExamResult, examinee: Examinee, number: int) -> str:
    """The answers in which it is surest of the wrong word, with the probabilities of both words."""
    found = result.wrong(examinee)
    lines = [f"{HEADINGS[examinee]}: {len(found)} of {len(result.answers)} wrong or undecided"]
    return "\n".join(lines + [f"  {_answer(answer, examinee)}" for answer in found[:number]])


def _answer(answer: Answer, examinee: Examinee) -> str:
    pair, preference = answer.pair, answer.preferences[examinee]
    return (f"{pair.phenomenon}: {pair.right}  right {pair.right_word} {_probability(preference.right)}, "
            f"wrong {pair.wrong_word} {_probability(preference.wrong)}"
            if preference.points == 0 else f"{pair.phenomenon}: {pair.right}  undecided: "
            f"{pair.right_word} and {pair.wrong_word}")


def _probability(logarithm: float) -> str:
    return f"{math.exp(logarithm):.3g}"


def write(path: str, model: str, examined: Sequence[Examined]) -> None:
    """Writes a file; the ending says what: .json, .csv (a line for each share), .png or .svg (curves).

    Raises:
      UsageError: another ending, or it cannot be written.
    """
    ending = os.path.splitext(path)[1]
    if ending == ".json":
        files.write_json(path, {"model": model, "steps": [each.to_json() for each in examined]}
                         if len(examined) > 1 else {"model": model, **examined[0].to_json()})
    elif ending == ".csv":
        files.write_bytes(path, _csv(examined).encode())
    else:
        drawn = [charts.DrawnRun(RunLog([], [], [], [each.to_json() for each in examined]), ())]
        picture = io.BytesIO()
        charts.image(exam_charts.panels(drawn), [model], picture, kind=ending[1:],
                     note="(band: interval of 95 %)")
        files.write_bytes(path, picture.getvalue())


def check_output(path: str, every_step: bool) -> None:
    """Raises UsageError if `write` could not write `path`; for before the work."""
    if os.path.splitext(path)[1] not in (".json", ".csv", *((".png", ".svg") if every_step else ())):
        raise UsageError(f"--output={path}: expected a name in .json or .csv"
                         + (", .png or .svg" if every_step else "; .png and .svg need --steps=all"))
    files.check_can_be_file(path)


def _csv(examined: Sequence[Examined]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "phenomenon", "pairs", "examinee", "right", "accuracy", "low", "high"])
    for each in examined:
        for result in (*each.result.phenomena, each.result.all):
            for examinee in EXAMINEES:
                if score := result.of(examinee):
                    writer.writerow([each.step, result.name, result.pairs, examinee, score.right,
                                     f"{score.accuracy:.4f}", f"{score.low:.4f}", f"{score.high:.4f}"])
    return text.getvalue()


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)
