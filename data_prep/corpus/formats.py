"""Which format and compression a file has, by its name and by its first bytes."""

import os
from typing import BinaryIO, NamedTuple

from electra_es import files
from electra_es.errors import UsageError

INPUT_FORMATS = ("auto", "text", "jsonl", "parquet")

_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd", ".xz": "xz", ".bz2": "bz2"}
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"BZh": "bz2",
          b"PAR1": "parquet", b"PK\x03\x04": "a zip archive", b"7z\xbc\xaf": "a 7z archive",
          b"Rar!": "a rar archive", b"%PDF": "a PDF", b"Obj\x01": "Avro", b"ARROW1": "Arrow",
          b"\x80\x04\x95": "a pickle", b"\x93NUMPY": "a NumPy array"}
# Tables, markup, archives and programs, which a glob or a folder may hold beside the text.
_NO_TEXT = (".csv", ".tsv", ".xls", ".xlsx", ".html", ".htm", ".xml", ".warc", ".wet", ".wat", ".zip",
            ".tar", ".tgz", ".7z", ".rar", ".pdf", ".doc", ".docx", ".odt", ".epub", ".arrow", ".avro",
            ".orc", ".feather", ".npy", ".npz", ".pkl", ".pickle", ".tfrecord", ".db", ".sqlite", ".py",
            ".exe", ".png", ".jpg", ".jpeg", ".gif")
_MOST_MAGIC = max(map(len, _MAGIC))


class Format(NamedTuple):
    """Kind of a file ("text", "jsonl", "parquet") and compression ("gzip", "zstd", "xz", "bz2", None)."""

    kind: str
    compression: str | None


def input_format_of(path: str) -> Format:
    """The format that the name of a file states; other names than JSON and parquet are text."""
    lowered = path.lower()
    compression = None
    for suffix, name in _COMPRESSIONS.items():
        if lowered.endswith(suffix):
            lowered, compression = lowered.removesuffix(suffix), name
            break
    if lowered.endswith((".jsonl", ".json", ".ndjson")):
        return Format("jsonl", compression)
    return Format("parquet" if lowered.endswith(".parquet") else "text", compression)


def format_of_content(file: BinaryIO, path: str, input_format: str, is_start: bool = True) -> Format:
    """The format of an open file. The first bytes decide where they contradict the name.

    Args:
      file: at its start, and left there.
      input_format: one of `INPUT_FORMATS`; "auto" goes by name and content.
      is_start: whether to look at the content.

    Raises:
      UsageError: the content is none that can be read.
    """
    if input_format not in INPUT_FORMATS:
        raise UsageError(f"input_format={input_format}: expected one of {', '.join(INPUT_FORMATS)}")
    kind, compression = input_format_of(path)
    if input_format != "auto":
        kind = input_format
    if compression or kind == "parquet" or not is_start:
        return Format(kind, compression)
    first = file.read(_MOST_MAGIC)
    file.seek(0)
    found = next((name for magic, name in _MAGIC.items() if first.startswith(magic)), None)
    if found in _COMPRESSIONS.values():
        return Format(kind, found)
    if found == "parquet" and input_format == "auto":
        return Format("parquet", None)
    if found and found != "parquet":
        raise UsageError(f"{path}: is {found}: expected text, JSON lines or parquet")
    return Format(kind, None)


def format_of_file(path: str, input_format: str = "auto") -> Format:
    """The format of a file that is to be read.

    In a bucket the name alone decides: opening each of many files there takes long. A file that is
    gone since it was listed is told of when it is read.

    Raises:
      UsageError: name or content are those of something that is no text.
    """
    lowered = path.lower()
    for suffix in _COMPRESSIONS:
        lowered = lowered.removesuffix(suffix)
    if input_format == "auto" and lowered.endswith(_NO_TEXT):
        raise UsageError(f"{path}: expected text, JSON lines or parquet, which its name does not say: "
                         "leave it out, or give text a name that ends in .txt")
    if files.is_remote(path) or not os.path.exists(path):
        return input_format_of(path)
    with files.open_read(path) as file:
        return format_of_content(file, path, input_format)


def is_compressed(path: str) -> bool:
    """Whether a file is compressed; parquet is compressed inside."""
    kind, compression = input_format_of(path)
    return kind == "parquet" or compression is not None
