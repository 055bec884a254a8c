"""Downloads of tasks: archives and files of the published layout, served on loopback."""

import hashlib
import http.server
import io
import json
import pathlib
import subprocess
import sys
import tarfile
import threading
import zipfile
from typing import ClassVar

import pytest

from data_prep import download_tasks
from data_prep.download_tasks import download_task
from electra_es.errors import UsageError
from electra_es.finetuning.readers import read_split
from electra_es.finetuning.tasks import Task, load_task, task_names

REPOSITORY = pathlib.Path(__file__).parents[2]
LINES = b"a\tb\tyes\n" * 50_000


def zip_of(**members: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return data.getvalue()


def tar_of(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            file.addfile(info)
    return data.getvalue()


FILES = {
    "/a.zip": zip_of(**{"top/dev.tsv": LINES, "top/other.tsv": b"x", "../evil.tsv": b"x"}),
    "/a.tar.gz": tar_of({"top/dev.tsv": LINES, "../evil.tsv": b"x"}, {"top/link": "/etc/hostname"}),
    "/plain.tsv": LINES,
    "/broken.zip": b"PK no archive",
}


class Server(http.server.BaseHTTPRequestHandler):
    """Serves FILES with ranges; after `break_after` bytes of an answer the connection breaks."""

    requests: ClassVar[list[tuple[str, str | None]]] = []
    break_after: ClassVar[int | None] = None
    ranges = True

    def do_GET(self):
        given = self.headers.get("Range")
        self.requests.append((self.path, given))
        if self.path not in FILES:
            self.send_error(404)
            return
        data, start = FILES[self.path], 0
        if given and self.ranges:
            start = int(given.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:][:self.break_after])
        if self.break_after:
            type(self).break_after = None
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download_tasks.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(Server, "break_after", None)
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    Server.requests.clear()
    yield f"http://127.0.0.1:{found.server_address[1]}"
    found.shutdown()
    found.server_close()


def settings(*download, **more) -> dict:
    return {"kind": "classification", "layout": "tsv", "header": False, "files": {"dev": "es/dev.tsv"},
            "columns": {"text": 0, "text_pair": 1, "label": 2}, "labels": ["no", "yes"],
            "metric": "accuracy", "download": list(download), **more}


def task(*download, **more) -> Task:
    return Task("mine", **{**settings(*download, **more), "labels": ("no", "yes"),
                           "download": download})


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_members_of_an_archive_and_nothing_else(server, tmp_path, name):
    output = tmp_path / "out"
    mine = task({"url": f"{server}/{name}", "members": {"top/dev.tsv": "es/dev.tsv"}})
    assert download_task(mine, str(output)) == [f"{output}/es/dev.tsv"]
    assert (output / "es/dev.tsv").read_bytes() == LINES
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["dev.tsv"]
    assert len(read_split(mine, "dev", str(output)).examples) == 50_000
    Server.requests.clear()
    download_task(mine, str(output))
    assert not Server.requests, "what is there is not fetched again"


def test_a_single_file_and_its_checksum(server, tmp_path):
    good = hashlib.sha256(LINES).hexdigest()
    part = {"url": f"{server}/plain.tsv", "to": "es/dev.tsv", "sha256": good}
    download_task(task(part), str(tmp_path / "a"))
    assert (tmp_path / "a/es/dev.tsv").read_bytes() == LINES
    with pytest.raises(UsageError, match=f"sha256 {good[:12]}…: expected 000000000000…; it was removed"):
        download_task(task({**part, "sha256": "0" * 64}), str(tmp_path / "b"))
    assert not [p for p in (tmp_path / "b").rglob("*") if p.is_file()]


def test_a_connection_that_breaks_is_taken_up_where_it_was(server, tmp_path, monkeypatch):
    monkeypatch.setattr(Server, "break_after", 150_000)
    download_task(task({"url": f"{server}/plain.tsv", "to": "es/dev.tsv"}), str(tmp_path))
    assert (tmp_path / "es/dev.tsv").read_bytes() == LINES
    assert [given for _, given in Server.requests] == [None, "bytes=150000-"]


def test_a_server_without_ranges_sends_all_of_it_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(Server, "break_after", 150_000)
    monkeypatch.setattr(Server, "ranges", False)
    download_task(task({"url": f"{server}/plain.tsv", "to": "es/dev.tsv"}), str(tmp_path))
    assert (tmp_path / "es/dev.tsv").read_bytes() == LINES


def test_what_was_whole_when_it_was_killed(server, tmp_path):
    url = f"{server}/plain.tsv"
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    (tmp_path / f".{name}.part").write_bytes(LINES)
    download_task(task({"url": url, "to": "es/dev.tsv"}), str(tmp_path))
    assert (tmp_path / "es/dev.tsv").read_bytes() == LINES


@pytest.mark.parametrize("part, message", [
    ({"url": "{}/none.zip", "members": {"a": "b"}}, "none.zip: 404 Not Found"),
    ({"url": "{}/a.zip", "members": {"top/test.tsv": "b"}}, "a.zip: has no file top/test.tsv"),
    ({"url": "{}/a.tar.gz", "members": {"top/test.tsv": "b"}}, "has no file top/test.tsv"),
    ({"url": "{}/a.tar.gz", "members": {"top/link": "b"}}, "has no file top/link"),
    ({"url": "{}/broken.zip", "members": {"a": "b"}}, "no archive, or a broken one"),
    ({"url": "{}/a.zip", "members": {"top/dev.tsv": "../b"}}, '"../b": expected a path inside'),
    ({"url": "{}/a.zip", "members": {"top/dev.tsv": "x/../../b"}}, "expected a path inside"),
    ({"url": "{}/a.zip", "members": {"top/dev.tsv": "/tmp/b"}}, "expected a path inside"),
    ({"url": "{}/plain.tsv", "to": ".."}, "expected a path inside"),
    ({"url": "file:///etc/hostname", "to": "b"}, 'url="file:///etc/hostname": expected https'),
    ({"url": "{}/a.zip"}, 'expected "to" .* or "members"'),
    ({"url": "{}/a.zip", "too": "b"}, 'unknown setting "too"; did you mean "to"'),
    ({"hub": "a/b"}, 'expected "files", a pattern, beside "hub"'),
])
def test_refusals(server, tmp_path, part, message):
    part = {key: value.format(server) if isinstance(value, str) else value
            for key, value in part.items()}
    with pytest.raises(UsageError, match=message):
        download_task(task(part), str(tmp_path / "out"))
    assert not [p for p in tmp_path.rglob("*") if p.name == "b"]


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.setattr(download_tasks.time, "sleep", lambda seconds: None)
    with pytest.raises(UsageError, match="goes on from here"):
        download_task(task({"url": "http://127.0.0.1:9/a.zip", "to": "b"}), str(tmp_path))


def test_the_hub_is_asked_for_files_of_hub_tasks(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(download_tasks, "download_corpus",
                        lambda *given, **more: asked.append((given, more)) or ["a"])
    assert download_task(load_task("sqac"), str(tmp_path)) == ["a"]
    assert asked == [(("PlanTL-GOB-ES/SQAC", "*.json", str(tmp_path)), {"revision": "main"})]


@pytest.mark.parametrize("name", task_names())
def test_shipped_downloads_are_well_formed(name, tmp_path):
    """And the files that they give are those that the task reads."""
    shipped = load_task(name)
    for part in shipped.download:
        download_tasks._check(shipped, part)
        for target in download_tasks._targets(part) if "url" in part else ():
            path = tmp_path / target
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    if any("url" in part for part in shipped.download):
        for pattern in shipped.files.values():
            assert list(tmp_path.glob(pattern)), pattern


def test_capitel_says_whom_to_ask(tmp_path):
    command = [sys.executable, "-m", "data_prep.download_tasks", "--task=capitel_ner",
               f"--output={tmp_path}/x"]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert found.returncode == 2 and found.stdout == ""
    assert found.stderr.startswith("error: task capitel_ner: cannot be fetched: CAPITEL is closed: sign")
    assert "train.conll, dev.conll and test.conll" in found.stderr


def test_command(server, tmp_path):
    path = tmp_path / "mine.json"
    FILES["/odd.tsv"] = b"a\tb\tyes\nc\td\n"
    path.write_text(json.dumps(settings({"url": f"{server}/odd.tsv", "to": "es/dev.tsv"},
                                        title="My pairs", licence="CC0")))
    command = [sys.executable, "-m", "data_prep.download_tasks", f"--task={path}",
               f"--output={tmp_path}/out"]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert found.stdout == (f"{tmp_path}/out: 1 files of My pairs, 0.0 MB; licence: CC0\n"
                            "dev: 1 examples (left out: too few fields: 1)\n"), found.stderr
