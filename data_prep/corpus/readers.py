"""Documents from corpus files: text with blank lines, JSON lines, parquet; plain, .gz, .zst, .xz, .bz2.

| corpus | file | text under | also read |
|---|---|---|---|
| OSCAR 2019, 21.09, CC-100, plain text | .txt(.gz, .xz) | paragraphs; a blank line ends a document | |
| OSCAR 2019, 21.09 as JSON | .jsonl(.gz) | text | |
| OSCAR 22.01, 23.01 | .jsonl(.gz, .zst) | content | language, probability, annotations, categories |
| HPLT | .jsonl(.zst), .parquet | text | lang, prob |
| CulturaX, FineWeb-2 | .parquet | text | language, language_score |

Nothing is lost silently: `on_bad` is called with a reason, a place and the bytes of text for everything
that cannot be read. What a document is depends on the format; its size, the language of its corpus and
what makes it bad do not. A plain text or JSON lines file can be read in parts (byte ranges), a parquet
file by row groups. Every document belongs to exactly one part.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, TypeVar

from data_prep.corpus.fields import (
    LANGUAGE_FIELDS,
    PROBABILITY_FIELDS,
    TEXT_FIELDS,
    Document,
    decoded,
    from_fields,
)
from data_prep.corpus.formats import format_of_content
from data_prep.corpus.lines import COMPRESSION_RATIO, Line, OnBad, Watched, read_lines
from electra_es import files
from electra_es.errors import UsageError, import_optional, reason

ItemT = TypeVar("ItemT")

MAX_DOCUMENT_BYTES = 10_000_000

# A character of one byte of UTF-8 takes up to six in JSON; and metadata stand beside the text.
_JSON_ESCAPE_BYTES = 6
_JSON_METADATA_BYTES = 1 << 20
_PARQUET_BATCH = 256


def read_documents(path: str, *, start: int = 0, end: int | None = None,
                   input_format: str = "auto", max_document_bytes: int = MAX_DOCUMENT_BYTES,
                   on_bad: OnBad = lambda reason, detail, size: None,
                   on_read: Callable[[int], None] | None = None) -> Iterator[Document]:
    """Yields the documents of a file (local or gs://), streamed.

    Args:
      path: the file.
      start, end: part of an uncompressed file, in bytes. However a file is divided into parts, each
        document is yielded exactly once.
      input_format: "auto" goes by name and content; or "text", "jsonl", "parquet".
      max_document_bytes: a document of more bytes, line ends included, is bad input (`huge_document`)
        and never in memory.
      on_bad: called for each document or end of a file that cannot be used.
      on_read: called with the number of bytes whenever some are read; not for parquet.

    Raises:
      UsageError: the file cannot be opened, or holds what is no text.
    """
    with files.open_read(path) as file:
        # A file is in parts only if the part at its start has been found to be no compressed file.
        kind, compression = format_of_content(file, path, input_format, is_start=start == 0)
        if compression and end is not None and end < file.seek(0, os.SEEK_END):
            raise UsageError(f"{path}: is {compression}, which its name does not say: expected one that "
                             "does, as it cannot be divided into parts")
        file.seek(0)
        if kind == "parquet":
            yield from _read_parquet(file, start, end, max_document_bytes, on_bad)
            return
        source = Watched(file, on_read) if on_read else file
        if kind == "jsonl":
            longest = _JSON_ESCAPE_BYTES * max_document_bytes + _JSON_METADATA_BYTES
            lines = read_lines(source, compression, start, end, longest, on_bad)
            yield from _read_jsonl(lines, end, max_document_bytes, on_bad)
        else:
            lines = read_lines(source, compression, start, end, max_document_bytes, on_bad)
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
            on_bad("huge_document", f"{place}: over {limit} bytes", size)
        elif size and (text := decoded(b"\n".join(body), place, on_bad)) is not None:
            yield Document(text, place)

    for line_start, data, length in lines:
        if not owned and end is not None and line_start > end:
            return  # No document begins in this part: it lies inside an earlier one.
        if data is None or not _is_blank(data):
            if owned:
                first = first if size else line_start
                size += length + 1
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


def _is_blank(data: bytes) -> bool:
    """Whether a line is one of whitespace only, as `str.strip` has it: that of the original's builder."""
    data = data.strip()
    if not data or 0x20 < data[0] < 0x80:  # A visible letter of ASCII, or nothing: nearly always.
        return not data
    return not data.decode("utf-8", "replace").strip()


def _read_jsonl(lines: Iterator[Line], end: int | None, limit: int,
                on_bad: OnBad) -> Iterator[Document]:
    for line_start, data, length in lines:
        if end is not None and line_start > end:
            return
        place = f"byte {line_start}"
        if data is None:
            on_bad("huge_document", f"{place}: over {limit} bytes", length)
            continue
        text = None if _is_blank(data) else decoded(data, place, on_bad)
        if text is None:
            continue
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            on_bad("invalid_json", f"{place}: {error}: {text[:60]!r}", length)
            continue
        if document := from_fields(values, place, length, limit, on_bad):
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
            on_bad("unreadable_parquet", reason(error),
                   file.seek(0, os.SEEK_END) * COMPRESSION_RATIO)
        return
    known = set(TEXT_FIELDS) | {*LANGUAGE_FIELDS, *PROBABILITY_FIELDS, "metadata"}
    names = parquet.schema_arrow.names
    # Without a column of text, all columns are read, so that the message can name them.
    has_text = not set(TEXT_FIELDS).isdisjoint(names)
    columns = [name for name in names if name in known or not has_text]
    for group in range(parquet.num_row_groups):
        metadata = parquet.metadata.row_group(group)
        column = metadata.column(0)
        offset = min(column.dictionary_page_offset or column.data_page_offset,
                     column.data_page_offset)
        if not start <= offset < (end if end is not None else offset + 1):
            continue
        read = sum(metadata.column(i).total_uncompressed_size for i in range(metadata.num_columns)
                   if metadata.column(i).path_in_schema.split(".")[0] in columns)
        bytes_per_row = read // max(1, metadata.num_rows)
        row = 0
        try:
            for values in _parquet_rows(parquet, group, columns):
                place = f"row group {group}, row {row}"
                row += 1
                if document := from_fields(values, place, bytes_per_row, limit, on_bad):
                    yield document
        except (pyarrow.ArrowException, OSError) as error:
            on_bad("unreadable_parquet", f"row group {group}, from row {row} on: {reason(error)}",
                   bytes_per_row * (metadata.num_rows - row))


def _parquet_rows(parquet: Any, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a row group, up to the first that cannot be read."""
    pyarrow = import_optional("pyarrow", "requirements-data.txt")
    row = 0
    try:
        for batch in parquet.iter_batches(_PARQUET_BATCH, row_groups=[group], columns=columns):
            yield from _batch_rows(batch)
            row += len(batch)
    except (pyarrow.ArrowException, OSError):
        # The rows of the batch that stand before the damaged page.
        for number, batch in enumerate(parquet.iter_batches(1, row_groups=[group], columns=columns)):
            if number >= row:
                yield from _batch_rows(batch)


def _batch_rows(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of a batch; one that is not UTF-8 has bytes for its text."""
    try:
        yield from batch.to_pylist()
        return
    except UnicodeDecodeError:
        pass
    for number in range(len(batch)):
        row = batch.slice(number, 1)
        try:
            yield from row.to_pylist()
        except UnicodeDecodeError:
            yield {name: row.column(name).cast("binary").to_pylist()[0]
                   for name in TEXT_FIELDS if name in row.schema.names}


def batches(documents: Iterable[ItemT], characters: int = 1 << 20,
            length: Callable[[Any], int] = len) -> Iterator[list[ItemT]]:
    """Documents, or their texts, in lists of about so many characters.

    Args:
      length: the characters of one of them.
    """
    batch: list[ItemT] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += length(document)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
