"""Documents from corpus files: text with blank lines, JSON lines, parquet; plain, .gz, .zst, .xz, .bz2.

| corpus | file | text under | also read |
|---|---|---|---|
| OSCAR 2019, 21.09, CC-100, plain text | .txt(.gz, .xz) | paragraphs; a blank line ends a document | |
| OSCAR 2019, 21.09 as JSON | .jsonl(.gz) | text | |
| OSCAR 22.01, 23.01 | .jsonl(.gz, .zst) | content | language, probability, annotations, categories |
| HPLT | .jsonl(.zst), .parquet | text | lang, prob |
| CulturaX, FineWeb-2 | .parquet | text | language, language_score |

Nothing is lost silently: `on_bad` is called with a reason for everything that cannot be read.
A plain text or JSON lines file can be read in parts (byte ranges), a parquet file
by row groups. Every document belongs to exactly one part.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from data_prep.corpus.lines import Line, OnBad, read_lines
from electra_es import files
from electra_es.errors import UsageError, import_optional

INPUT_FORMATS = ("auto", "text", "jsonl", "parquet")
MAX_DOCUMENT_BYTES = 10_000_000

_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".xz": "xz", ".bz2": "bz2"}
_TEXT_FIELDS = ("text", "content")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
      text: paragraphs or sentences, one per line.
      place: position in its file, for messages: byte, line or row.
      language, language_probability: from the corpus, if it has them.
      quality_warnings: OSCAR's annotations, such as "tiny" or "header", and categories of the site
        that the document is from, such as "adult".
    """

    text: str
    place: str = ""
    language: str | None = None
    language_probability: float | None = None
    quality_warnings: tuple[str, ...] = ()


def input_format_of(path: str) -> tuple[str, str | None]:
    """(format, compression) from the name of a file; other names than JSON and parquet are text."""
    lowered = path.lower()
    compression = None
    for suffix, name in _COMPRESSIONS.items():
        if lowered.endswith(suffix):
            lowered, compression = lowered.removesuffix(suffix), name
            break
    if lowered.endswith((".jsonl", ".json", ".ndjson")):
        return "jsonl", compression
    return ("parquet" if lowered.endswith(".parquet") else "text"), compression


def is_splittable(path: str) -> bool:
    return input_format_of(path)[1] is None


def is_compressed(path: str) -> bool:
    """Whether a file is compressed; parquet is compressed inside."""
    kind, compression = input_format_of(path)
    return kind == "parquet" or compression is not None


def read_documents(path: str, *, start: int = 0, end: int | None = None,
                   input_format: str = "auto", max_document_bytes: int = MAX_DOCUMENT_BYTES,
                   on_bad: OnBad = lambda reason, detail: None) -> Iterator[Document]:
    """Yields the documents of a file (local or gs://), streamed.

    Args:
      path: the file.
      start, end: part of an uncompressed file, in bytes. However a file is divided into parts, each
        document is yielded exactly once.
      input_format: "auto" goes by the name; or "text", "jsonl", "parquet".
      max_document_bytes: longer documents are bad input (`huge_document`) and never in memory.
      on_bad: called for each document or end of a file that cannot be used.

    Raises:
      UsageError: the file cannot be opened.
    """
    by_name, compression = input_format_of(path)
    kind = by_name if input_format == "auto" else input_format
    if kind not in INPUT_FORMATS[1:]:
        raise UsageError(f"input_format={input_format}: expected one of {', '.join(INPUT_FORMATS)}")
    with files.open_read(path) as file:
        if kind == "parquet":
            yield from _read_parquet(file, start, end, max_document_bytes, on_bad)
            return
        lines = read_lines(file, compression, start, end, max_document_bytes, on_bad)
        if kind == "jsonl":
            yield from _read_jsonl(lines, end, max_document_bytes, on_bad)
        else:
            yield from _read_text(lines, start, end, max_document_bytes, on_bad)


def _read_text(lines: Iterator[Line], start: int, end: int | None, limit: int,
               on_bad: OnBad) -> Iterator[Document]:
    """Documents whose preceding blank line starts after `start` and not after `end`.

    The file's first document has none and belongs to the part with start 0.
    """
    body: list[bytes] = []
    first = size = 0
    owned = start == 0

    def finished() -> Iterator[Document]:
        place = f"byte {first}"
        if size > limit:
            on_bad("huge_document", f"{place}: over {limit} bytes")
        elif size and (text := _decoded(b"\n".join(body), place, on_bad)) is not None:
            yield Document(text, place)

    for line_start, data in lines:
        if not owned and end is not None and line_start > end:
            return  # No document begins in this part: it lies inside an earlier one.
        if data is None or data.strip():
            if owned:
                first = first if size else line_start
                size += limit + 1 if data is None else len(data) + 1
                if data is None or size > limit:
                    body.clear()
                else:
                    body.append(data)
        else:
            yield from finished()
            if end is not None and line_start > end:
                return
            body, size, owned = [], 0, True
    yield from finished()


def _read_jsonl(lines: Iterator[Line], end: int | None, limit: int,
                on_bad: OnBad) -> Iterator[Document]:
    for line_start, data in lines:
        if end is not None and line_start > end:
            return
        place = f"byte {line_start}"
        if data is None:
            on_bad("huge_document", f"{place}: over {limit} bytes")
            continue
        text = _decoded(data, place, on_bad) if data.strip() else None
        if text is None:
            continue
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            on_bad("invalid_json", f"{place}: {error}: {text[:60]!r}")
            continue
        if document := _from_fields(values, place, on_bad):
            yield document


def _read_parquet(file: BinaryIO, start: int, end: int | None, limit: int,
                  on_bad: OnBad) -> Iterator[Document]:
    """Row groups whose first byte lies in [start, end)."""
    pyarrow = import_optional("pyarrow", "requirements-data.txt")
    parquet_files = import_optional("pyarrow.parquet", "requirements-data.txt")
    try:
        parquet = parquet_files.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        if not start:
            on_bad("unreadable_parquet", str(error).splitlines()[0])
        return
    known = set(_TEXT_FIELDS) | {"language", "language_score", "lang", "prob", "metadata"}
    names = parquet.schema_arrow.names
    # Without a column of text, all columns are read, so that the message can name them.
    has_text = not set(_TEXT_FIELDS).isdisjoint(names)
    columns = [name for name in names if name in known or not has_text]
    for group in range(parquet.num_row_groups):
        column = parquet.metadata.row_group(group).column(0)
        offset = min(column.dictionary_page_offset or column.data_page_offset,
                     column.data_page_offset)
        if not start <= offset < (end if end is not None else offset + 1):
            continue
        row = 0
        try:
            for batch in parquet.iter_batches(256, row_groups=[group], columns=columns):
                for values in batch.to_pylist():
                    place = f"row group {group}, row {row}"
                    row += 1
                    document = _from_fields(values, place, on_bad)
                    if document and len(document.text) > limit:
                        on_bad("huge_document", f"{place}: over {limit} bytes")
                    elif document:
                        yield document
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            on_bad("unreadable_parquet", f"row group {group}: {str(error).splitlines()[0]}")


def _from_fields(values: Any, place: str, on_bad: OnBad) -> Document | None:
    """A document of one JSON object or parquet row of any corpus in the module docstring."""
    if not isinstance(values, dict):
        on_bad("no_text_field", f"{place}: expected an object, not {type(values).__name__}")
        return None
    field = next((name for name in _TEXT_FIELDS if name in values), None)
    if field is None:
        on_bad("no_text_field", f"{place}: has {', '.join(list(values)[:6])}")
        return None
    text = values[field]
    if not isinstance(text, str):
        on_bad("text_is_no_string", f"{place}: {field} is {type(text).__name__}")
        return None
    if "\0" in text:
        on_bad("nul_character", place)
        return None
    if _LONE_SURROGATE.search(text):  # Valid JSON, but invalid Unicode.
        on_bad("invalid_utf8", f"{place}: lone surrogate")
        return None
    language, probability, warnings = _metadata(values)
    return Document(text, place, language, probability, warnings)


def _metadata(values: dict[str, Any]) -> tuple[str | None, float | None, tuple[str, ...]]:
    """Language, its probability, quality warnings; a value of an unexpected type is ignored."""
    metadata = values.get("metadata")
    warnings: list[str] = []
    if isinstance(metadata, dict):  # OSCAR: 22.01 has annotation, 23.01 has the other two.
        identification = metadata.get("identification")
        if not isinstance(identification, dict):
            identification = {}
        language, probability = identification.get("label"), identification.get("prob")
        for name in ("annotation", "quality_warnings", "categories"):
            found = metadata.get(name)
            warnings += map(str, found) if isinstance(found, list) else ()
    else:
        language = values.get("language", values.get("lang"))
        probability = values.get("language_score", values.get("prob"))
    # HPLT has lists, with the best value first.
    language, probability = (value[0] if isinstance(value, list) and value else value
                             for value in (language, probability))
    if probability in (0, 1):  # Another integer may be too large for a float.
        probability = float(probability)
    return (language if isinstance(language, str) else None,
            probability if isinstance(probability, float) else None,
            tuple(warnings))


def _decoded(data: bytes, place: str, on_bad: OnBad) -> str | None:
    if b"\0" in data:
        on_bad("nul_character", place)
        return None
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        on_bad("invalid_utf8", f"{place}: byte {data[error.start]:#04x} at {error.start}")
        return None
