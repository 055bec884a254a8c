"""Tables with one example a row: TSV, CSV, JSON lines, parquet."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from electra_es.errors import UsageError, nearest_hint
from electra_es.finetuning.examples import TaggingExample, TextExample
from electra_es.finetuning.formats.rows import (
    BadRow,
    Rows,
    decode,
    read_bytes,
    read_lines,
    to_label,
)
from electra_es.finetuning.tasks import Task

# A row as a table gives it: where it stands, and its values by column; or what is wrong with it.
Row = tuple[str, dict[Any, Any] | BadRow]


def read_table(task: Task, split: str, path: str, rows: Rows) -> Iterator[TextExample | TaggingExample]:
    """Examples of a file, one a row that belongs to the task and the split."""
    to_example = _tagging if task.kind == "tagging" else _texts
    for where, values in _READERS[_layout(task, path)](task, path):
        try:
            if isinstance(values, BadRow):
                raise values
            if _belongs(task, split, values):
                example = to_example(task, values, where)
                rule = _drop_rule(task, example)
                if rule:
                    rows.drop(rule)
                else:
                    yield example
        except BadRow as error:
            rows.bad(where, error)


def _layout(task: Task, path: str) -> str:
    if task.layout != "table":
        return task.layout
    ending = path.lower().rsplit(".", 1)[-1]
    return {"csv": "csv", "jsonl": "jsonl", "parquet": "parquet"}.get(ending, "tsv")


def _read_tsv(task: Task, path: str) -> Iterator[Row]:
    """Quotes are text (QUOTE_NONE): translations are full of lone ones."""
    separator = task.separator or "\t"
    lines = ((number, line.split(separator)) for number, line in read_lines(path, task.encoding))
    yield from _with_names(task, path, lines)


def _read_csv(task: Task, path: str) -> Iterator[Row]:
    text = "\n".join(decode(line, task.encoding, f"{path}:{number}")
                     for number, line in enumerate(read_bytes(path).split(b"\n"), start=1))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=task.separator or ",", strict=True)

    def lines() -> Iterator[tuple[int, list[str]]]:
        number = 1
        try:
            for fields in reader:
                yield number, fields
                number = reader.line_num + 1
        except csv.Error as error:
            raise UsageError(f"{path}:{number}: not CSV ({error})") from None

    yield from _with_names(task, path, lines())


def _with_names(task: Task, path: str, lines: Iterator[tuple[int, list[str]]]) -> Iterator[Row]:
    """Rows as values by column number, and by name too if there is a header."""
    names: list[str] = []
    width = 0
    for number, fields in lines:
        if not width:
            width = len(fields)
            if task.header:
                names = fields
                _check_names(task, path, names)
                continue
        if len(fields) != width:
            few = "few" if len(fields) < width else "many"
            yield f"{path}:{number}", BadRow(f"too {few} fields", f"{len(fields)}: expected {width}")
            continue
        values: dict[Any, Any] = dict(enumerate(fields))
        values |= {i - width: value for i, value in enumerate(fields)}
        yield f"{path}:{number}", values | dict(zip(names, fields, strict=False))


def _read_jsonl(task: Task, path: str) -> Iterator[Row]:
    for number, line in read_lines(path, task.encoding):
        where = f"{path}:{number}"
        try:
            values = json.loads(line)
        except ValueError as error:
            yield where, BadRow("not JSON", str(error))
            continue
        yield where, values if isinstance(values, dict) else BadRow(
            "not a JSON object", type(values).__name__)


def _read_parquet(task: Task, path: str) -> Iterator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UsageError(f"{path}: parquet needs pyarrow: pip install pyarrow") from None
    try:
        file = pq.ParquetFile(io.BytesIO(read_bytes(path)))
    except pa.ArrowInvalid as error:
        raise UsageError(f"{path}: not parquet ({str(error).splitlines()[0]})") from None
    _check_names(task, path, file.schema_arrow.names)
    number = 0
    for batch in file.iter_batches():
        for values in batch.to_pylist():
            number += 1
            yield f"{path}: row {number}", values


def _check_names(task: Task, path: str, names: list[str]) -> None:
    wanted = [*task.columns.values(), *task.filter, *([task.split_column] if task.split_column else [])]
    for column in wanted:
        if isinstance(column, str) and column not in names:
            raise UsageError(f'{path}: no column "{column}": expected one of {", ".join(names)}'
                             f"{nearest_hint(column, names)}")
        if isinstance(column, tuple) and not set(column) & set(names):
            raise UsageError(f"{path}: none of the columns {', '.join(map(str, column))}: expected "
                             f"one of {', '.join(names)}")


def _value(values: dict[Any, Any], column: Any) -> Any:
    """The value in a column; of a list of names, in the first that there is.

    Raises:
      BadRow: no such column.
    """
    for name in column if isinstance(column, tuple) else (column,):
        if values.get(name) is not None:
            return values[name]
    known = [name for name in values if isinstance(name, str)] or [*range(len(values) // 2)]
    raise BadRow("no value", f'"{column}": expected one of {", ".join(map(str, known))}')


def _belongs(task: Task, split: str, values: dict[Any, Any]) -> bool:
    if task.split_column and str(_value(values, task.split_column)) != split:
        return False
    return all(str(_value(values, column)) == value for column, value in task.filter.items())


def _texts(task: Task, values: dict[Any, Any], where: str) -> TextExample:
    texts = []
    for role in ("text", "text_pair"):
        if role in task.columns:
            text = _value(values, task.columns[role])
            if not isinstance(text, str):
                raise BadRow(f"{role} is no text", f"{text!r}")
            if not text.strip() and "" not in task.drop_texts:
                raise BadRow("empty text", f"{role}: expected words")
            texts.append(text)
    if task.kind == "classification":
        label: str | float = to_label(task, _value(values, task.columns["label"]))
    else:
        label = _score(task, _value(values, task.columns["score"]))
    return TextExample(tuple(texts), label, where)


def _score(task: Task, text: Any) -> float:
    low, high = task.score_range
    try:
        score = float(text)
    except (TypeError, ValueError):
        score = math.nan
    if not low <= score <= high:
        raise BadRow("no score in the task's range", f'"{text}": expected a number from {low} to {high}')
    return score


def _tagging(task: Task, values: dict[Any, Any], where: str) -> TaggingExample:
    words, labels = (_value(values, task.columns[role]) for role in ("word", "label"))
    for role, value in (("words", words), ("labels", labels)):
        if not isinstance(value, list):
            raise BadRow(f"{role} are no list", f"{value!r}")
    if len(words) != len(labels) or not words:
        raise BadRow("not as many labels as words", f"{len(labels)} and {len(words)}")
    if not all(isinstance(word, str) and word for word in words):
        raise BadRow("empty word", "expected texts")
    return TaggingExample(tuple(words), tuple(to_label(task, label) for label in labels), where)


def _drop_rule(task: Task, example: TextExample | TaggingExample) -> str:
    """The rule by which an example is left out, or an empty string."""
    if isinstance(example, TextExample):
        for text in example.texts:
            if text in task.drop_texts or (not text.strip() and "" in task.drop_texts):
                return f'text is "{text}"' if text.strip() else "empty text"
    return ""


_READERS: dict[str, Callable[[Task, str], Iterator[Row]]] = {
    "tsv": _read_tsv, "csv": _read_csv, "jsonl": _read_jsonl, "parquet": _read_parquet}
