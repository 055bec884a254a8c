"""Downloads from a repository of the hub's layout, served on loopback."""

import hashlib
import http.server
import json
import threading
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("huggingface_hub")

from data_prep.download_corpus import CORPORA, download_corpus
from electra_es.errors import UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"README.md": b"# corpus", "es/part-1.jsonl": b'{"text": "uno"}\n' * 40_000,
         "es/part-2.jsonl": b'{"text": "dos"}\n' * 7, "ca/part-1.jsonl": b'{"text": "u"}\n'}


class Hub(http.server.BaseHTTPRequestHandler):
    """The three paths of the hub that a download asks for; `owner/gated` needs the token "secret"."""

    requests: ClassVar[list[tuple[str, str, str | None]]] = []

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.requests.append((self.command, path, self.headers.get("Range")))
        if "/owner/gated" in path and self.headers.get("Authorization") != "Bearer secret":
            self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
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
            given = self.headers.get("Range")
            if given and given.startswith("bytes=") and given != "bytes=0-0":
                start = int(given.removeprefix("bytes=").split("-")[0])
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
        if self.command == "GET":
            self.wfile.write(body)

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
