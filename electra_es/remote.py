"""The remote half of `electra_es.files`: paths with "://", through fsspec, imported only then.

requirements-gcs.txt has gcsfs, fsspec's part for gs://. Unlike TensorFlow's file systems it obeys
STORAGE_EMULATOR_HOST, so that tests cover it, and it does not take seconds to import; unlike Beam's
it is small enough for training alone.

The functions raise FileNotFoundError, and UsageError for whatever else goes wrong. Those of fsspec
that take globs are not used for single files: a name with brackets in it would be one.
"""

import contextlib
import functools
import glob
import logging
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from electra_es.errors import UsageError, import_optional, reason

for _name in ("gcsfs", "google.auth"):  # they raise what they log, the latter after five tries
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_REQUIREMENTS = "requirements-gcs.txt"


def open_file(path: str, mode: str) -> BinaryIO:
    with reachable(path):
        return _file_system(path).open(path, mode)


def read_bytes(path: str) -> bytes:
    with reachable(path):
        return _file_system(path).cat_file(path)


def exists(path: str) -> bool:
    # Not fsspec's own, for some of whose file systems whatever cannot be reached does not exist.
    try:
        with reachable(path):
            _info(_file_system(path), path)
        return True
    except FileNotFoundError:
        return False


def checksum(path: str) -> str:
    """The checksum that the bucket keeps of a file, with its name; "unknown" if it keeps none."""
    with reachable(path):
        facts = _file_system(path).info(path)
    return next((f"{name}:{facts[key]}" for key, name in (("md5Hash", "md5"), ("crc32c", "crc32c"))
                 if facts.get(key)), "unknown")


def size(path: str) -> int:
    with reachable(path):
        return _file_system(path).size(path)


def names_in(directory: str) -> list[str]:
    """Names of the files and folders in `directory`; empty if nothing is there."""
    under = directory.partition("://")[2].strip("/")
    try:
        with reachable(directory):
            found = _file_system(directory).ls(directory, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    paths = {path.strip("/") for path in found}
    return sorted(path.rpartition("/")[2] for path in paths if path != under)


def find(pattern: str) -> list[tuple[str, int]]:
    """(path, size) of each file that a glob matches, or that is a name or in the folder of it."""
    with reachable(pattern):
        file_system = _file_system(pattern)
        look = file_system.glob if glob.has_magic(pattern) else file_system.find
        try:
            # Some of them find nothing in what cannot be reached; that there is nothing is raised.
            found = look(pattern, detail=True) or _nothing(file_system, pattern)
        except FileNotFoundError:  # Not even the bucket exists.
            return []
        return [(file_system.unstrip_protocol(path), facts["size"])
                for path, facts in found.items() if facts["type"] == "file"]


def _nothing(file_system: Any, pattern: str) -> dict[str, Any]:
    """No files; raises whatever keeps the folder of a pattern from being looked at."""
    while glob.has_magic(pattern):
        pattern = pattern.rpartition("/")[0]
    _info(file_system, pattern)
    return {}


def _info(file_system: Any, path: str) -> dict[str, Any]:
    """Facts about a file or folder. For http, a host that does not answer is a file that is not found."""
    try:
        return file_system.info(path)
    except FileNotFoundError as error:
        if error.__cause__ is None or isinstance(error.__cause__, FileNotFoundError):
            raise
        raise error.__cause__ from None


def expressions(pattern: str) -> list[re.Pattern]:
    """What the paths match that `find` gives."""
    folder = pattern.rstrip("/")
    patterns = [pattern] if glob.has_magic(pattern) else [folder, folder + "/**"]
    translate = import_optional("fsspec.utils", _REQUIREMENTS).glob_translate
    with reachable(pattern):
        return [re.compile(translate(each)) for each in patterns]


def move_file(path: str, new: str) -> None:
    with reachable(path):
        file_system = _file_system(path)
        file_system.cp_file(path, new)
        file_system.rm_file(path)


def move(path: str, new: str) -> None:
    """Moves a file, or all files of a folder."""
    for found in _all_under(path):
        move_file(found, new.rstrip("/") + found[len(path.rstrip("/")):])


def remove(path: str) -> None:
    """Removes a file and all files of a folder, if they exist."""
    with reachable(path):
        for found in _all_under(path):
            with contextlib.suppress(FileNotFoundError):
                _file_system(path).rm_file(found)


def _all_under(path: str) -> list[str]:
    with reachable(path):
        file_system = _file_system(path)
        try:
            return [file_system.unstrip_protocol(found) for found in file_system.find(path)]
        except FileNotFoundError:  # Not even the bucket exists.
            return []


def _file_system(path: str) -> Any:
    """The file system of a path; its functions take the path whole."""
    fsspec = import_optional("fsspec", _REQUIREMENTS)
    protocol, _, rest = path.partition("://")
    try:
        # Without its cache of listings: another machine may have written since.
        file_system = fsspec.filesystem(protocol, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{path}: {reason(error)}: expected the packages of {_REQUIREMENTS}: "
                         f"pip install -r {_REQUIREMENTS}") from None
    if protocol in ("gs", "gcs"):
        _first_contact(file_system, rest.partition("/")[0])
    return file_system


_SECONDS_TO_ANSWER = 10


@functools.lru_cache(maxsize=100)
def _first_contact(file_system: Any, bucket: str) -> None:
    """Raises TimeoutError if no bucket answers. gcsfs asks six times in half a minute, of a wrong login
    or host too, for every file; what else is wrong, the call after this one tells."""
    asyn = import_optional("fsspec.asyn", _REQUIREMENTS)
    failures = _Failures()
    logger = logging.getLogger("gcsfs")
    before = logger.level, logger.propagate
    logger.addHandler(failures)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        asyn.sync(file_system.loop, file_system._info, bucket, timeout=_SECONDS_TO_ANSWER)
    except TimeoutError:
        raise TimeoutError(failures.last or f"no answer in {_SECONDS_TO_ANSWER} s") from None
    except Exception:  # No right to list buckets, say.
        pass
    finally:
        logger.removeHandler(failures)
        logger.setLevel(before[0])  # not `level`: loggers remember which levels are on
        logger.propagate = before[1]


class _Failures(logging.Handler):
    """Keeps what gcsfs says of the request that it is about to repeat."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        _, found, why = record.getMessage().partition("retrying after exception: ")
        if found:
            self.last = why


def is_of_a_file_system(error: BaseException) -> bool:
    """Whether a file system may have raised it: an OSError, or a class of gcsfs or its transport."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in ("gcsfs", "aiohttp")


@contextlib.contextmanager
def reachable(path: str) -> Iterator[None]:
    """Makes one line of what a file system raises for want of a login, a right or a network."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, UsageError):
        raise
    except Exception as error:  # each file system has classes of its own
        raise UsageError(f"{path}: cannot be reached ({reason(error)})") from None
