"""Whether files that a command writes would match its own input when it runs again."""

import fnmatch
import glob
import os
from collections.abc import Iterable, Iterator

from data_prep.corpus import listing
from electra_es import files, remote
from electra_es.errors import UsageError


def check_apart(output: str, written: Iterable[str], **inputs: str) -> None:
    """Refuses an output that its own input would list: a second run, or one that goes on after a
    stop, would read it as text.

    Args:
      output: what the user gave, for the message: "output=corpus/records".
      written: paths of all files that the command writes.
      inputs: name of a setting -> its comma-separated globs, as `listing.list_files` takes them.

    Raises:
      UsageError: one of the globs matches one of the files, or would if they were there.
    """
    tree = None
    written = list(written)
    for name, patterns in inputs.items():
        for pattern in listing.parts_of(patterns):
            if files.is_remote(pattern):
                found = _remote_match(pattern, written)
            else:
                tree = tree or _Tree(path for path in written if not files.is_remote(path))
                found = tree.match(pattern)
            if found and not glob.has_magic(pattern) and not os.path.isfile(pattern):
                raise UsageError(f"{output}: is in the folder {pattern}, which is input: expected "
                                 "another place")
            if found:
                raise UsageError(f"{output}: {name}={pattern} matches {found}, which is written "
                                 "there: expected another place")


def _remote_match(pattern: str, written: Iterable[str]) -> str | None:
    """By fsspec's rules, whose `*` stays in a folder; names in a bucket are text without links."""
    expressions = remote.expressions(pattern)
    return next((path for path in written if any(each.match(path) for each in expressions)), None)


def _real(path: str) -> str:
    """The path without links; a link that cannot be followed is kept."""
    try:
        return os.path.realpath(path)
    except OSError:
        return os.path.abspath(path)


class _Tree:
    """The local file system as it will be after the files in `written` are written.

    Folders are identified by their real path, so that links and ".." are followed as the system does.
    """

    def __init__(self, written: Iterable[str]):
        self.written = {os.path.join(_real(os.path.dirname(path)), os.path.basename(path))
                        for path in written}
        self.names: dict[str, set[str]] = {}  # folder -> names that will be written in it
        for path in self.written:
            while (folder := os.path.dirname(path)) != path:
                self.names.setdefault(folder, set()).add(os.path.basename(path))
                path = folder

    def match(self, pattern: str) -> str | None:
        """One of the written files that `listing.list_files(pattern)` would list; None: none."""
        if self._folder(os.curdir, pattern):
            pattern = os.path.join(glob.escape(pattern), "**")
        elif os.path.isfile(pattern) or self._file(os.curdir, pattern):
            return self._file(os.curdir, pattern)
        parts = [part for part in pattern.split(os.sep) if part]
        if not parts or pattern.endswith(os.sep):  # Folders only.
            return None
        if parts[-1] == "**":
            parts.append("*")
        start = os.sep if os.path.isabs(pattern) else _real(os.curdir)
        return self._find(start, parts, set())

    def _find(self, folder: str, parts: list[str], seen: set[tuple[str, int]]) -> str | None:
        """As `glob`: `**` is any number of folders; wildcards leave out hidden names."""
        if (folder, len(parts)) in seen:  # Links may form a circle.
            return None
        seen.add((folder, len(parts)))
        first, *rest = parts
        if first == "**" and (found := self._find(folder, rest, seen)):
            return found
        for name in self._matching(folder, first):
            if not rest:
                found = self._file(folder, name)
            elif inner := self._folder(folder, name):
                found = self._find(inner, parts if first == "**" else rest, seen)
            else:
                continue
            if found:
                return found
        return None

    def _matching(self, folder: str, part: str) -> Iterator[str]:
        if not glob.has_magic(part):
            yield part
            return
        try:
            names = {*os.listdir(folder), *self.names.get(folder, ())}
        except OSError:
            names = self.names.get(folder, set())
        for name in fnmatch.filter(sorted(names), part):
            if part.startswith(".") or not name.startswith("."):
                yield name

    def _folder(self, folder: str, name: str) -> str | None:
        """Real path of a folder that exists or will be created."""
        path = _real(os.path.join(folder, name))
        return path if path in self.names or os.path.isdir(path) else None

    def _file(self, folder: str, name: str) -> str | None:
        """The written file that a path leads to."""
        path = os.path.join(folder, name)
        at = os.path.join(_real(os.path.dirname(path)), os.path.basename(path))
        return next((each for each in (at, _real(path)) if each in self.written), None)
