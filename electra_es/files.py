"""Local and remote files: read, write under a temporary name, list, rename, lock, JSON.

Local paths go through the standard library, everything with "://" through fsspec
(`electra_es.remote`). What TensorFlow itself reads and writes (tensors of checkpoints, examples
while training, summaries, SavedModels) stays with TensorFlow.
"""

import base64
import contextlib
import errno
import fcntl
import glob
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from electra_es import remote
from electra_es.errors import UsageError, reason

LOCK_FILE = "LOCK"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEMPORARY = re.compile(r".*\.tmp-[0-9a-f]{32}")


def is_remote(path: str) -> bool:
    return "://" in path


def join(directory: str, name: str) -> str:
    return directory.rstrip("/") + "/" + name


# ---- Reading.

def open_read(path: str) -> BinaryIO:
    """Opens a file for reading bytes as they are (no decompression), seekable.

    Raises:
      UsageError: it cannot be opened.
    """
    try:
        return remote.open_file(path, "rb") if is_remote(path) else open(path, "rb")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({_reason(error)})") from None


def read_bytes(path: str) -> bytes:
    """The whole of a file; UsageError where it cannot be read."""
    try:
        return remote.read_bytes(path) if is_remote(path) else pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({_reason(error)})") from None


def read_array(path: str) -> np.ndarray:
    """An array that `write_array` wrote.

    Raises:
      UsageError: it cannot be read, or is no array.
    """
    try:
        return np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path}: not an array of numbers ({reason(error)})") from None


def read_json(path: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      UsageError: it cannot be read, or holds something else.
    """
    data = read_bytes(path)
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected a JSON object, not {type(values).__name__}")
    return values


# ---- Writing.

@contextlib.contextmanager
def atomic_write(path: str) -> Iterator[BinaryIO]:
    """Opens `path` for writing; it appears only when the block ends without an exception.

    Through a temporary name beside it that no other writer has, so that two workers with the same
    task do no harm. An object in a bucket appears when it is closed and not before; it has a
    temporary name too, as a broken-off block closes the file.

    Raises:
      UsageError: the file cannot be created, or the disk is full; for a bucket, what its file system
        raises, and any OSError of the block: both look alike.
    """
    temporary = f"{path}.tmp-{uuid.uuid4().hex}"
    try:
        with _create(temporary, path) as file:
            yield file
        if is_remote(path):
            remote.move_file(temporary, path)
        else:
            os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(UsageError):  # of a bucket; what went wrong first is what counts
            remove(temporary)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise UsageError(f"{path}: cannot be written ({error.strerror}): the same command goes on "
                             "when there is room") from None
        if is_remote(path) and remote.is_of_a_file_system(error):
            why = "no such bucket" if isinstance(error, FileNotFoundError) else reason(error)
            raise UsageError(f"{path}: cannot be written ({why})") from None
        raise


def _create(temporary: str, path: str) -> Any:
    try:
        return remote.open_file(temporary, "wb") if is_remote(path) else open(temporary, "wb")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({_reason(error)})") from None


def write_bytes(path: str, data: bytes) -> None:
    with atomic_write(path) as file:
        file.write(data)


def copy(path: str, new: str) -> None:
    """Copies a file whose content fits into memory."""
    write_bytes(new, read_bytes(path))


def write_array(path: str, array: np.ndarray) -> None:
    with atomic_write(path) as file:
        np.save(file, array)


def json_bytes(values: Mapping[Any, Any]) -> bytes:
    """Indented UTF-8 JSON, the same bytes for the same values."""
    # Names of files may hold what is no Unicode text; as "\udcff" it is JSON all the same.
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def write_json(path: str, values: Mapping[Any, Any]) -> None:
    write_bytes(path, json_bytes(values))


def append_line(path: str, line: str) -> None:
    """Adds a line to a file, and ends a half one before it, which a killed process left."""
    if is_remote(path):  # Objects do not grow.
        before = read_bytes(path) if exists(path) else b""
        separator = b"" if not before or before.endswith(b"\n") else b"\n"
        write_bytes(path, before + separator + line.encode() + b"\n")
        return
    with open(path, "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        separator = b"" if file.read(1) in (b"", b"\n") else b"\n"
        file.write(separator + line.encode() + b"\n")


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


# ---- Names. Of local ones an OSError goes by, as in the standard library.

def exists(path: str) -> bool:
    return remote.exists(path) if is_remote(path) else os.path.exists(path)


def is_directory(path: str) -> bool:
    """Whether there is a directory, or anything in a bucket under this name."""
    return bool(remote.names_in(path)) if is_remote(path) else os.path.isdir(path)


def names_in(directory: str) -> list[str]:
    """Names of the files and folders in `directory`; empty if there is no such directory."""
    if is_remote(directory):
        return remote.names_in(directory)
    return sorted(os.listdir(directory)) if os.path.isdir(directory) else []


def find(pattern: str) -> list[tuple[str, int]]:
    """(path, size) of each file that a glob matches (`**` reaches into folders); a directory stands
    for all files in it, locally but hidden ones."""
    if is_remote(pattern):
        return remote.find(pattern)
    if os.path.isdir(pattern):
        pattern = os.path.join(glob.escape(pattern), "**")
    paths = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
    for path in paths:
        # A link in a circle is too long to follow at some point; by then all of it is listed.
        if os.path.islink(path) and not os.path.exists(os.path.realpath(path)):
            raise UsageError(f"{path}: a link to {os.readlink(path)}, which does not exist: expected "
                             "a file")
    return [(path, os.path.getsize(path)) for path in paths if os.path.isfile(path)]


def checksum(path: str) -> str:
    """What identifies the content of a file: "md5:..." in base 64, as Google's buckets keep it."""
    if is_remote(path):
        return remote.checksum(path)
    digest = hashlib.md5(usedforsecurity=False)
    with open_read(path) as file:
        while block := file.read(2**20):
            digest.update(block)
    return "md5:" + base64.b64encode(digest.digest()).decode()


def total_size(paths: Sequence[str]) -> int:
    """Bytes of all files together, whatever characters are in their names."""
    return sum(remote.size(path) if is_remote(path) else os.path.getsize(path) for path in paths)


def rename(path: str, new: str) -> None:
    """Gives a file, or a directory with everything in it, another name; a file there is replaced."""
    if is_remote(path):
        remote.move(path, new)
    else:
        os.replace(path, new)


def remove(path: str) -> None:
    """Removes a file, or a directory with everything in it, if it exists."""
    if is_remote(path):
        remote.remove(path)
    elif os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.remove(path)


def remove_temporary(directory: str) -> None:
    """Removes what a killed `atomic_write` left in `directory`; for who writes there alone."""
    for name in names_in(directory):
        if _TEMPORARY.fullmatch(name):
            remove(join(directory, name))


@contextlib.contextmanager
def no_pattern(path: str) -> Iterator[str]:
    """Another path of a folder, or of a prefix of files in one, that TensorFlow can open.

    TensorFlow looks for checkpoints with a glob: for it, "run[1]" is the folder "run1".
    """
    if is_remote(path) or not glob.has_magic(path):
        yield path
        return
    path = os.path.abspath(path)
    folder, name = (path, "") if os.path.isdir(path) else os.path.split(path)
    with tempfile.TemporaryDirectory() as links:
        os.symlink(folder, os.path.join(links, "folder"))
        yield os.path.join(links, "folder", name)


# ---- One writer at a time.

@contextlib.contextmanager
def only_run_in(model_dir: str, is_chief: bool = True) -> Iterator[None]:
    """Keeps a second process out of a local directory; the kernel frees it after a crash.

    Object stores have no such lock; there, the user must avoid two runs in one directory. Only the
    chief of a run's workers takes the lock.
    """
    if is_remote(model_dir) or not is_chief:
        yield
        return
    try:
        os.makedirs(model_dir, exist_ok=True)
        file = open(os.path.join(model_dir, LOCK_FILE), "w")  # noqa: SIM115 closed below
    except OSError as error:
        raise UsageError(f"{model_dir}: cannot be written ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"{model_dir}: another run is writing there: expected none") from None
        yield


def _reason(error: OSError) -> str:
    if error.strerror:
        return error.strerror
    return "No such file" if isinstance(error, FileNotFoundError) else reason(error)
