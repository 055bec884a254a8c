"""The texts of a file: a text a line, or JSON lines, there with the name of its class if wanted."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from electra_es.errors import UsageError, nearest_hint
from electra_es.finetuning.formats.rows import BadRow, Rows, read_lines
from electra_es.zero_shot.labels import has_words


class Document(NamedTuple):
    """A text to classify; `label` is the one of its class, or empty."""

    text: str
    label: str = ""


class Columns(NamedTuple):
    """What of a file of JSON lines is read.

    Attributes:
      text, label: names of columns; an empty label: classes are not read.
      labels: the labels that a class may be.
      aliases: other name of a class -> label.
    """

    text: str = "text"
    label: str = ""
    labels: Sequence[str] = ()
    aliases: Mapping[str, str] = {}


def read_documents(path: str, columns: Columns, rows: Rows) -> list[Document]:
    """Reads a file.

    Args:
      path: a file, local or in a bucket, whose name ends in .txt or .jsonl.
      columns: of JSON lines.
      rows: counts lines that cannot be used, or ends at the first.

    Raises:
      UsageError: another ending, a file that cannot be read, a line that cannot be used, no text.
    """
    if not path.lower().endswith((".txt", ".jsonl")):
        raise UsageError(f"--input={path}: expected a name that ends in .txt or .jsonl")
    documents = list(_documents(path, columns, rows))
    if not documents:
        raise UsageError(f"--input={path}: no text in it: expected one a line")
    return documents


def _documents(path: str, columns: Columns, rows: Rows) -> Iterator[Document]:
    is_json = path.lower().endswith(".jsonl")
    for number, line in read_lines(path, "utf-8", ""):
        try:
            yield _of_json(line, columns) if is_json else Document(_checked(line))
        except BadRow as error:
            rows.bad(f"{path}:{number}", error)


def _of_json(line: str, columns: Columns) -> Document:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadRow("not JSON", str(error)) from None
    if not isinstance(values, dict):
        raise BadRow("not a JSON object", type(values).__name__)
    text = _checked(_value(values, columns.text))
    if not columns.label:
        return Document(text)
    name = str(_value(values, columns.label))
    label = columns.aliases.get(name, name)
    if label not in columns.labels:
        raise BadRow("class that is no label", f'"{name}": expected one of {", ".join(columns.labels)}'
                                               f"{nearest_hint(name, columns.labels)}, or "
                                               "--label_alias=name=label")
    return Document(text, label)


def _value(values: Mapping[str, Any], column: str) -> Any:
    if values.get(column) is None:
        raise BadRow("no value", f'"{column}": expected one of {", ".join(values)}'
                                 f"{nearest_hint(column, values)}")
    return values[column]


def _checked(text: Any) -> str:
    if not isinstance(text, str):
        raise BadRow("text is no text", f"{text!r}"[:60])
    if not has_words(text):
        raise BadRow("empty text", "expected words")
    return text
