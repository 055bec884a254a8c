r"""Downloads the files of a fine-tuning task.

    python -m data_prep.download_tasks --task=xnli_es --output=tasks/xnli
    python -m data_prep.download_tasks --task=my_task.json --output=tasks/mine

What is fetched stands in the task's JSON file, under `download`: files of a data set repository on
the hub, single files, or members of published archives. A connection that breaks is taken up again
where it was; files that are there are not fetched twice. Where a data set cannot be fetched, the
command says whom to ask and where to put the files (exit code 2).
"""

import hashlib
import http.client
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from typing import IO, Any

from absl import flags

from data_prep.command_line import prepare_tool
from data_prep.download_corpus import download_corpus
from electra_es.errors import UsageError, nearest_hint, run_main
from electra_es.finetuning.readers import has_split, read_split
from electra_es.finetuning.tasks import Task, load_task, task_names
from electra_es.flags import define, parse_flags_only
from electra_es.settings import PATH

_KEYS = {"hub": {"hub", "files", "revision"}, "url": {"url", "sha256", "members", "to"}}
_TRIES = 5
_TIMEOUT_S = 60
_CHUNK = 1 << 20


def download_task(task: Task, output: str) -> list[str]:
    """Fetches what the task's `download` says into `output`.

    Returns:
      The paths, in the order of the task file.

    Raises:
      UsageError: nothing of the task can be fetched (the message says how to get it), a wrong
        `download`, a file that is not there or not the one that was expected, or a broken connection.
    """
    if task.bundled:
        raise UsageError(f"task {task.name}: is part of the package: there is nothing to fetch")
    if not task.download:
        raise UsageError(f"task {task.name}: cannot be fetched: "
                         f"{task.how_to_get or 'its file has no download'}")
    for part in task.download:
        _check(task, part)
    paths: list[str] = []
    for part in task.download:
        if "hub" in part:
            paths += download_corpus(part["hub"], part["files"], output,
                                     revision=part.get("revision", "main"))
        else:
            paths += _from_url(part, output)
    return paths


def _check(task: Task, part: Mapping[str, Any]) -> None:
    where = f"task {task.name}: download"
    kind = "hub" if "hub" in part else "url"
    for key in part:
        if key not in _KEYS[kind]:
            raise UsageError(f'{where}: unknown setting "{key}"{nearest_hint(key, _KEYS[kind])}')
    if kind == "hub":
        if "files" not in part:
            raise UsageError(f'{where}: expected "files", a pattern, beside "hub"')
        return
    if not str(part.get("url", "")).startswith(("https://", "http://")):
        raise UsageError(f'{where}: url="{part.get("url")}": expected https://…')
    if ("to" in part) == ("members" in part):
        raise UsageError(f'{where}: {part["url"]}: expected "to" (a file) or "members" (of an archive)')
    for target in _targets(part):
        path = os.path.normpath(target)
        if os.path.isabs(path) or path.startswith("..") or path == ".":
            raise UsageError(f'{where}: "{target}": expected a path inside the output directory')


def _targets(part: Mapping[str, Any]) -> list[str]:
    return [part["to"]] if "to" in part else list(part["members"].values())


def _from_url(part: Mapping[str, Any], output: str) -> list[str]:
    paths = [os.path.join(output, os.path.normpath(target)) for target in _targets(part)]
    if all(os.path.isfile(path) for path in paths):
        return paths
    try:
        os.makedirs(output, exist_ok=True)
        # By the address, so that two archives of one name do not go on with each other's bytes.
        name = hashlib.sha256(part["url"].encode()).hexdigest()[:16]
        temporary = os.path.join(output, f".{name}.part")
        _fetch(part["url"], temporary)
        _verify(part, temporary)
        if "to" in part:
            os.makedirs(os.path.dirname(paths[0]), exist_ok=True)
            os.replace(temporary, paths[0])
        else:
            _extract(part, temporary, paths)
            os.remove(temporary)
    except OSError as error:
        raise UsageError(f"{output}: cannot be written ({error.strerror or error})") from None
    return paths


def _fetch(url: str, path: str) -> None:
    """Downloads into `path`, from where an earlier attempt left off."""
    for attempt in range(1, _TRIES + 1):
        have = os.path.getsize(path) if os.path.exists(path) else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                # 206: the rest; 200: a server that knows no ranges sends all of it again.
                with open(path, "ab" if answer.status == 206 else "wb") as file:
                    _copy(answer, file)
                if answer.length:  # Bytes that were announced and did not come.
                    raise http.client.IncompleteRead(b"", answer.length)
                return
        except urllib.error.HTTPError as error:
            if error.code == 416:  # All of it was there already.
                return
            raise UsageError(f"{url}: {error.code} {error.reason}") from None
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError,
                TimeoutError) as error:
            if attempt == _TRIES:
                reason = getattr(error, "reason", error)
                raise UsageError(f"{url}: {reason}; the same command goes on from here") from None
            time.sleep(min(2.0 ** attempt / 4, 5.0))


def _copy(source: Any, target: IO[bytes]) -> None:
    # Not shutil.copyfileobj: what came before a break has to be in the file.
    while block := source.read(_CHUNK):
        target.write(block)


def _verify(part: Mapping[str, Any], path: str) -> None:
    if "sha256" not in part:
        return
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != part["sha256"]:
        os.remove(path)
        raise UsageError(f"{part['url']}: sha256 {found[:12]}…: expected {part['sha256'][:12]}…; "
                         "it was removed")


def _extract(part: Mapping[str, Any], archive: str, paths: list[str]) -> None:
    """Writes the members that the task names, and nothing else of the archive."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                _write_members(part, paths, zipped.open)
        else:
            with tarfile.open(archive) as tarred:
                _write_members(part, paths, lambda name: _regular_file(tarred, name))
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        os.remove(archive)
        raise UsageError(f"{part['url']}: no archive, or a broken one ({error}); it was removed"
                         ) from None


def _regular_file(tarred: tarfile.TarFile, name: str) -> IO[bytes]:
    member = tarred.getmember(name)
    file = tarred.extractfile(member) if member.isfile() else None  # A link leads anywhere.
    if file is None:
        raise KeyError(name)
    return file


def _write_members(part: Mapping[str, Any], paths: list[str],
                   open_member: Callable[[str], IO[bytes]]) -> None:
    for name, path in zip(part["members"], paths, strict=True):
        try:
            source = open_member(name)
        except KeyError:
            raise UsageError(f"{part['url']}: has no file {name}") from None
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with source, open(f"{path}.tmp", "wb") as target:
            shutil.copyfileobj(source, target, _CHUNK)
        os.replace(f"{path}.tmp", path)


def main() -> None:
    define("task", str, "", f"One of {', '.join(task_names())}, or a task's JSON file.", PATH)
    define("output", str, "", "Directory for the files: the data directory of fine-tuning.", PATH)
    prepare_tool()
    parse_flags_only()
    values = flags.FLAGS
    if not values.task or not values.output:
        raise UsageError(f"expected --task and --output; tasks: {', '.join(task_names())}")
    task = load_task(values.task)
    paths = download_task(task, values.output)
    size = sum(os.path.getsize(path) for path in paths)
    print(f"{values.output}: {len(paths)} files of {task.title or task.name}, {size / 1e6:.1f} MB; "
          f"licence: {task.licence or 'not stated'}")
    for split in task.splits:
        if has_split(task, split, values.output):
            found = read_split(task, split, values.output, skip_bad_rows=True)
            left_out = ", ".join(f"{reason}: {n}" for reason, n in found.dropped.items())
            print(f"{split}: {len(found.examples)} examples" + (f" (left out: {left_out})"
                                                                if left_out else ""))


if __name__ == "__main__":
    run_main(main)
