"""Downloads from a repository of the hub's layout, served on loopback."""

import contextlib
import hashlib
import http.server
import json
import logging
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pytest
from paths import ROOT

pytest.importorskip("huggingface_hub")

from data_prep import progress
from data_prep.download_corpus import CORPORA, download_corpus
from electra_es.errors import UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"README.md": b"# corpus", "es/part-1.jsonl": b'{"text": "uno"}\n' * 40_000,
         "es/part-2.jsonl": b'{"text": "dos"}\n' * 7, "ca/part-1.jsonl": b'{"text": "u"}\n',
         "large/part.jsonl": b'{"text": "tres"}\n' * 1_500_000}


class Hub(http.server.BaseHTTPRequestHandler):
    """The three paths of the hub that a download requests; `owner/gated` needs the token "secret"."""

    requests: ClassVar[list[tuple[str, str, str | None]]] = []
    # After so many bytes of an answer the connection breaks, once, or hangs.
    break_after: ClassVar[int | None] = None
    stall_after: ClassVar[int | None] = None

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.requests.append((self.command, path, self.headers.get("Range")))
        if "/owner/gated" in path and self.headers.get("Authorization") != "Bearer secret":
            self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        elif "/owner/closed" in path:
            self.answer(403, b"")
        elif "/owner/" not in path or "/owner/absent" in path:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif "/tree/" in path or "/revision/" in path:
            if "/main" not in path and COMMIT not in path:
                self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
                return
            listing = [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                       for name, data in FILES.items()]
            repository = {"id": "owner/name", "sha": COMMIT,
                          "siblings": [{"rfilename": name} for name in FILES]}
            self.answer(200, json.dumps(listing if "/tree/" in path else repository).encode())
        else:
            data = FILES[path.split("/resolve/")[1].split("/", 1)[1]]
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT,
                       "Accept-Ranges": "bytes"}
            byte_range = self.headers.get("Range")
            if byte_range and byte_range.startswith("bytes=") and byte_range != "bytes=0-0":
                start = int(byte_range.removeprefix("bytes=").split("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                self.answer(206, data[start:], headers)
            else:
                self.answer(200, data, headers)

    do_HEAD = do_GET

    def answer(self, status, body, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self.break_after or self.stall_after
        self.wfile.write(body[:limit])
        if limit and len(body) > limit:
            if self.break_after is None:
                with contextlib.suppress(ConnectionError):
                    self.connection.recv(1)  # Until the other side is gone.
            type(self).break_after = None
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    Hub.requests.clear()
    yield Hub.requests
    server.shutdown()
    server.server_close()


def fetched(requests):
    return [path.rsplit("/", 1)[1] for method, path, _ in requests
            if method == "GET" and "/resolve/" in path]


def test_download_by_pattern_and_again(hub, tmp_path):
    output = tmp_path / "corpus"
    paths = download_corpus("owner/name", "es/*.jsonl", str(output))
    assert [path.removeprefix(f"{output}/") for path in paths] == ["es/part-1.jsonl",
                                                                  "es/part-2.jsonl"]
    assert (output / "es/part-1.jsonl").read_bytes() == FILES["es/part-1.jsonl"]
    assert not (output / "ca").exists() and not (output / "README.md").exists()
    assert fetched(hub) == ["part-1.jsonl", "part-2.jsonl"]
    (output / "es/part-2.jsonl").unlink()
    hub.clear()
    download_corpus("owner/name", "es/*.jsonl", str(output))
    assert fetched(hub) == ["part-2.jsonl"]


def ranges(requests):
    return [byte_range for method, path, byte_range in requests
            if method == "GET" and "/resolve/" in path]


def test_a_connection_that_breaks_is_taken_up_where_it_was(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(Hub, "break_after", 15_000_000)
    (path,) = download_corpus("owner/name", "large/*", str(tmp_path / "corpus"))
    assert pathlib.Path(path).read_bytes() == FILES["large/part.jsonl"]
    first, second = ranges(hub)
    assert first is None and 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= 15_000_000


def test_progress_tells_rate_and_time_left(hub, tmp_path, monkeypatch, caplog):
    """Of all files together; those that are there already do not count."""
    output = tmp_path / "corpus"
    download_corpus("owner/name", "es/part-1*", str(output))
    monkeypatch.setattr(Hub, "break_after", 11_000_000)  # bytes that come twice count once
    monkeypatch.setattr(progress, "PROGRESS_SECONDS", 0)
    with caplog.at_level(logging.INFO):
        download_corpus("owner/name", "*/part*", str(output))
    total = sum(map(len, FILES.values())) - len(FILES["README.md"])
    lines = [line for line in caplog.messages if "MB" in line]
    assert lines[0] == f"4 files, {total / 1e6:.1f} MB"
    shown = [re.fullmatch(r"files: (\d) of [34], (.*) of 0.03 GB, (.*) MB/s, ETA (.*)", line)
             for line in lines[1:]]
    done = [float(line[2]) for line in shown if line]
    assert len(done) == len(lines) - 1 >= 4 and done == sorted(done)
    assert shown[-1].groups()[:2] == ("3", "0.03") and shown[-1][4] == "0s"


def test_a_retry_is_told_once(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(Hub, "break_after", 15_000_000)
    result = subprocess.run(
        [sys.executable, "-m", "data_prep.download_corpus", "--repo=owner/name", "--files=large/*",
         f"--output={tmp_path / 'corpus'}"], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env=dict(os.environ))
    lines = result.stderr.splitlines()
    assert result.returncode == 0 and len(ranges(hub)) == 2
    assert any("peer closed connection" in line or "resume" in line for line in lines), lines
    assert len(lines) == len(set(lines)) and not any("HTTP Request" in line for line in lines)


def test_a_download_that_was_killed_keeps_whole_files_only(hub, tmp_path, monkeypatch):
    output = tmp_path / "corpus"
    command = [sys.executable, "-m", "data_prep.download_corpus", "--repo=owner/name",
               "--files=*/part*", f"--output={output}"]
    monkeypatch.setattr(Hub, "stall_after", 15_000_000)
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 1e7 for path in output.rglob("*.incomplete")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    monkeypatch.setattr(Hub, "stall_after", None)
    assert not (output / "large/part.jsonl").exists()
    (left_over,) = output.rglob("*.incomplete")
    os.utime(left_over, (0, 0))
    hub.clear()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert again.stdout == f"{output}: 4 files of owner/name, 26.1 MB\n"
    assert (output / "large/part.jsonl").read_bytes() == FILES["large/part.jsonl"]
    assert fetched(hub) == ["part.jsonl"] and ranges(hub) == [None]
    assert not list(output.rglob("*.incomplete"))


def test_first_files_only(hub, tmp_path):
    assert len(download_corpus("owner/name", "*", str(tmp_path / "corpus"), max_files=2)) == 2
    assert fetched(hub) == ["README.md", "part-1.jsonl"]


@pytest.mark.parametrize("repo, settings, message", [
    ("owner/absent", {}, "owner/absent: no such data set"),
    ("owner/gated", {}, "owner/gated at revision main: gated: accept its terms"),
    ("owner/name", {"revision": "v9"}, "owner/name: has no revision v9"),
    ("owner/name", {"pattern": "pt/*"}, "no file matches --files=pt/*"),
])
def test_what_cannot_be_downloaded_is_one_line(hub, tmp_path, repo, settings, message):
    with pytest.raises(UsageError) as error:
        download_corpus(repo, **{"pattern": "es/*", "output": str(tmp_path / "corpus"), **settings})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_closed_corpus_names_the_open_ones(hub, tmp_path):
    for repo in ("owner/gated", "owner/absent", "owner/closed"):
        with pytest.raises(UsageError, match="; open to all: --corpus=fineweb-2, --corpus=hplt-2$"):
            download_corpus(repo, "es/*", str(tmp_path / "corpus"))


def test_gated_repository_with_token(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    assert len(download_corpus("owner/gated", "es/*", str(tmp_path / "corpus"))) == 2


def test_broken_connection_is_one_line(hub, monkeypatch, tmp_path):
    def broken(*args, **kwargs):
        raise ConnectionResetError("connection reset\nby peer")

    monkeypatch.setattr("huggingface_hub.HfApi.hf_hub_download", broken)
    with pytest.raises(UsageError, match="the same command goes on from here") as error:
        download_corpus("owner/name", "*", str(tmp_path / "corpus"))
    assert "\n" not in str(error.value)


def test_known_corpora_are_owner_name_and_pattern():
    for repo, pattern in CORPORA.values():
        assert repo.count("/") == 1 and "*" in pattern
