"""Local and gs:// files for the data tools: list, read, write under a temporary name, rename.

Local paths go through the standard library. Everything with "://" goes through
Apache Beam's file systems (imported only then), as each worker of a Beam job has
those, and as they obey STORAGE_EMULATOR_HOST, which TensorFlow's do not.
"""

import errno
import glob
import hashlib
import io
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from electra_es.errors import UsageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEMPORARY = re.compile(r".*\.tmp-[0-9a-f]{32}")


def is_remote(path: str) -> bool:
    return "://" in path


def join(directory: str, name: str) -> str:
    return directory.rstrip("/") + "/" + name


def parts_of(pattern: str) -> list[str]:
    """The globs of a comma-separated list."""
    return [part.strip() for part in pattern.split(",") if part.strip()]


def list_files(pattern: str) -> list[tuple[str, int]]:
    """Files of a comma-separated list of globs (`**` reaches into folders) with their sizes.

    A directory means all files in it except hidden ones. The result is sorted by path; a file is listed
    once even if several globs and links lead to it.

    Raises:
      UsageError: one of the globs matches no file, or a link that leads to none.
    """
    found: dict[str, tuple[str, int]] = {}
    for part in parts_of(pattern):
        matches = _list_remote(part) if is_remote(part) else _list_local(part)
        if not matches:
            raise UsageError(f"{part}: expected input files, but nothing matches")
        for path, size in sorted(matches):
            found.setdefault(path if is_remote(path) else os.path.realpath(path), (path, size))
    if not found:
        raise UsageError(f'input="{pattern}": expected a path or glob of text files')
    return sorted(found.values())


def _list_local(pattern: str) -> list[tuple[str, int]]:
    if os.path.isdir(pattern):
        pattern = os.path.join(glob.escape(pattern), "**")
    paths = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
    for path in paths:
        # A link in a circle is too long to follow at some point; by then all of it is listed.
        if os.path.islink(path) and not os.path.exists(os.path.realpath(path)):
            raise UsageError(f"{path}: a link to {os.readlink(path)}, which does not exist: expected "
                             "a file")
    return [(path, os.path.getsize(path)) for path in paths if os.path.isfile(path)]


def _list_remote(pattern: str) -> list[tuple[str, int]]:
    folder = None if glob.has_magic(pattern) else pattern.rstrip("/")
    matches = _remote().match([folder or pattern])[0].metadata_list
    if not matches and folder:
        matches = _remote().match([folder + "/**"])[0].metadata_list
    return [(match.path, match.size_in_bytes) for match in matches]


def without(found: Sequence[tuple[str, int]], others: Sequence[tuple[str, int]]
            ) -> list[tuple[str, int]]:
    """The files of `found` that are not in `others`, however their paths are written."""
    def real(path: str) -> str:
        return path if is_remote(path) else os.path.realpath(path)

    names = {real(path) for path, _ in others}
    return [(path, size) for path, size in found if real(path) not in names]


def state(found: Sequence[tuple[str, int]]) -> str:
    """A hash of the times of change of the local files, to notice later changes."""
    times = [os.stat(path).st_mtime_ns for path, _ in found if not is_remote(path)]
    return hashlib.sha256(repr(times).encode()).hexdigest()


def total_size(paths: Sequence[str]) -> int:
    """Bytes of all files together, whatever characters are in their names."""
    remote = [path for path in paths if is_remote(path)]
    matches = _remote().match(remote) if remote else []
    return (sum(os.path.getsize(path) for path in paths if not is_remote(path))
            + sum(found.size_in_bytes for match in matches for found in match.metadata_list))


def open_read(path: str) -> BinaryIO:
    """Opens a file for reading bytes as they are (no decompression), seekable.

    Raises:
      UsageError: it cannot be opened.
    """
    if not is_remote(path):
        try:
            return open(path, "rb")
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    from apache_beam.io.filesystem import CompressionTypes
    if not exists(path):
        raise UsageError(f"{path}: cannot be read: there is no such object")
    return _remote().open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def read_bytes(path: str) -> bytes:
    with open_read(path) as file:
        return file.read()


@contextmanager
def atomic_write(path: str) -> Iterator[BinaryIO]:
    """Opens `path` for writing; it appears only when the block ends without an exception.

    Through a temporary name beside it that no other writer has, so that two workers with the same
    task do no harm. An object in a bucket appears when it is closed and not before; it has a
    temporary name too, as a broken-off block closes the file.

    Raises:
      UsageError: the file cannot be created, or the disk is full.
    """
    temporary = f"{path}.tmp-{uuid.uuid4().hex}"
    try:
        with _create(temporary) as file:
            yield file
        if is_remote(path):
            remove(path)
            _remote().rename([temporary], [path])
        else:
            os.replace(temporary, path)
    except BaseException as error:
        remove(temporary)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise UsageError(f"{path}: cannot be written ({error.strerror}): the same command goes on "
                             "when there is room") from None
        raise


def is_temporary(name: str) -> bool:
    """Whether `name` is what a killed `atomic_write` leaves."""
    return _TEMPORARY.fullmatch(name) is not None


def _create(path: str) -> Any:
    try:
        if not is_remote(path):
            return open(path, "wb")
        from apache_beam.io.filesystem import CompressionTypes
        return _remote().create(path, compression_type=CompressionTypes.UNCOMPRESSED)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from None


def write_bytes(path: str, data: bytes) -> None:
    with atomic_write(path) as file:
        file.write(data)


def write_array(path: str, array: np.ndarray) -> None:
    with atomic_write(path) as file:
        np.save(file, array)


def read_array(path: str) -> np.ndarray:
    return np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)


def exists(path: str) -> bool:
    return _remote().exists(path) if is_remote(path) else os.path.exists(path)


def names_in(directory: str) -> list[str]:
    """Names of the files and folders in `directory`; empty if there is no such directory."""
    if not is_remote(directory):
        return sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    prefix = directory.rstrip("/") + "/"
    matches = _remote().match([prefix + "**"])[0].metadata_list
    return sorted({match.path[len(prefix):].split("/")[0] for match in matches})


def make_directory(directory: str) -> None:
    """Creates a local directory with its parents; buckets have no directories.

    Raises:
      UsageError: it cannot be created.
    """
    if is_remote(directory):
        return
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: cannot be created ({error.strerror})") from None


def check_can_be_file(path: str) -> None:
    """Raises UsageError if a local file cannot be written at `path`; for before the work."""
    if is_remote(path):
        return
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise UsageError(f"{path}: expected the name of a file in a folder that can be written to")


def check_can_be_directory(path: str) -> None:
    """Raises UsageError if a local directory cannot be created at `path`; leaves its parents only."""
    if not is_remote(path) and not os.path.isdir(path):
        make_directory(path)
        os.rmdir(path)


def remove(path: str) -> None:
    """Removes a file, or a directory with everything in it, if it exists."""
    if is_remote(path):
        under = [m.path for m in _remote().match([path.rstrip("/") + "/**"])[0].metadata_list]
        paths = under + ([path] if exists(path) else [])
        if paths:
            _remote().delete(paths)
    elif os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.remove(path)


def _remote() -> Any:
    try:
        from apache_beam.io.filesystems import FileSystems
        return FileSystems
    except ImportError as error:
        raise UsageError(f"paths with :// need apache-beam and its file systems: {error}") from None
