"""Which files the input of a command is: comma-separated paths, globs and folders."""

import hashlib
import os
import re
from collections.abc import Sequence

from electra_es import files
from electra_es.errors import UsageError


def parts_of(pattern: str) -> list[str]:
    """The globs of a comma-separated list; a comma that belongs to a path is written "\\,".

    A text that is as a whole the path of a local file or folder is that path, whatever is in it.
    """
    if not files.is_remote(pattern) and os.path.exists(pattern):
        return [pattern]
    parts = re.split(r"(?<!\\),", pattern)
    return [part.strip().replace("\\,", ",") for part in parts if part.strip()]


def list_files(pattern: str) -> list[tuple[str, int]]:
    """Files of a comma-separated list of globs (`**` reaches into folders) with their sizes.

    A directory means all files in it except hidden ones. The result is sorted by path; a file is listed
    once even if several globs and links lead to it.

    Raises:
      UsageError: one of the globs matches no file, or a link that leads to none.
    """
    found: dict[str, tuple[str, int]] = {}
    for part in parts_of(pattern):
        matches = files.find(part)
        if not matches:
            raise UsageError(f"{part}: expected input files, but nothing matches")
        for path, size in sorted(matches):
            found.setdefault(_real(path), (path, size))
    if not found:
        raise UsageError(f'input="{pattern}": expected a path or glob of text files')
    return sorted(found.values())


def without(found: Sequence[tuple[str, int]], others: Sequence[tuple[str, int]]
            ) -> list[tuple[str, int]]:
    """The files of `found` that are not in `others`, however their paths are written."""
    names = {_real(path) for path, _ in others}
    return [(path, size) for path, size in found if _real(path) not in names]


def _real(path: str) -> str:
    return path if files.is_remote(path) else os.path.realpath(path)


def state(found: Sequence[tuple[str, int]]) -> str:
    """A hash of the times of change of the local files, to notice later changes."""
    times = [os.stat(path).st_mtime_ns for path, _ in found if not files.is_remote(path)]
    return hashlib.sha256(repr(times).encode()).hexdigest()
