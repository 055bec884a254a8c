"""The page of `python -m electra_es.detect --serve`: it marks words that look replaced, classifies texts
by labels, and examines the model.

The server is for one person on one machine: it has no encryption and no passwords, and listens on
the loopback address by default. There it answers only requests whose Host header names it, so that
other pages cannot reach it through the browser.
"""

import functools
import ipaddress
import json
import os
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from electra_es.detect.scoring import Detector, to_json
from electra_es.detect.transport import BadRequest, Handler, Server
from electra_es.errors import UsageError

MAX_BODY_BYTES = 64 * 1024
MAX_SENTENCES = 64

_STATIC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "static")
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/detect.css": ("detect.css", "text/css; charset=utf-8"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
       for name in ("request", "detect", "zero_shot", "exam", "tabs")},
}

# What the other tabs ask for: JSON values in, JSON values out. A UsageError is the user's.
ZeroShot = Callable[[dict[str, Any]], dict[str, Any]]
Exam = Callable[[], dict[str, Any]]


def make_server(detector: Detector, host: str, port: int, *, zero_shot: ZeroShot | None = None,
                exam: Exam | None = None) -> Server:
    """A server that is bound but not yet running; its real port is `server_address[1]`.

    Args:
      detector: for the first tab.
      host, port: where to listen; port 0: any free one.
      zero_shot: from the values of a request to scores; without it the tab is not active.
      exam: the results of the model; called once, at the first request. Without it, as above.

    Raises:
      UsageError: the address cannot be used.
    """
    class BoundHandler(_Handler):
        pass

    BoundHandler.answers = {"/detect": lambda values: to_json(detector(_sentences(values)))}
    if zero_shot:
        BoundHandler.answers["/zero_shot"] = lambda values: _json(zero_shot(values))
    if exam:
        examined = _once(exam)
        BoundHandler.answers["/exam"] = lambda values: _json(examined())
    try:
        server = Server((host, port), BoundHandler)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UsageError(f"--host={host} --port={port}: {error}: expected a free local address") from None
    BoundHandler.allowed_hosts = _allowed_hosts(host, server.server_address[1])
    return server


def serve_forever(detector: Detector, host: str, port: int, *, zero_shot: ZeroShot | None = None,
                  exam: Exam | None = None) -> None:
    """Serves until Ctrl-C; arguments as for `make_server`."""
    with make_server(detector, host, port, zero_shot=zero_shot, exam=exam) as server:
        if not _is_loopback(host):
            print(f"warning: --host={host} is open to the network, without a password", flush=True)
        print(f"http://{host}:{server.server_address[1]}  (Ctrl-C ends)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _allowed_hosts(host: str, port: int) -> frozenset[str]:
    """Accepted values of the Host header; empty: any, as other names are unknown."""
    if not _is_loopback(host):
        return frozenset()
    return frozenset(f"{name}:{port}" for name in ("localhost", "127.0.0.1", host))


def _once(function: Exam) -> Exam:
    """`function`, which is called only once, and never by two threads at the same time."""
    lock, cached = threading.Lock(), functools.cache(function)

    def locked() -> dict[str, Any]:
        with lock:
            return cached()

    return locked


class _Handler(Handler):
    answers: dict[str, Callable[[dict[str, Any]], str]]  # path -> the JSON of a request's values
    allowed_hosts: frozenset[str] = frozenset()

    def answer_get(self) -> tuple[bytes, str]:
        self._check_host()
        if self.path == "/parts.json":
            parts = {"zero-shot": "/zero_shot" in self.answers, "exam": "/exam" in self.answers}
            return _json(parts).encode(), "application/json"
        if self.path not in _FILES:
            raise BadRequest(HTTPStatus.NOT_FOUND, "no such page")
        name, kind = _FILES[self.path]
        with open(os.path.join(_STATIC, name), "rb") as file:
            return file.read(), kind

    def answer_post(self) -> tuple[bytes, str]:
        self._check_host()
        if self.path not in self.answers:
            raise BadRequest(HTTPStatus.NOT_FOUND, "no such page")
        # A form of another page cannot send this type without permission (CORS).
        if self.headers.get_content_type() != "application/json":
            raise BadRequest(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
        values = _object(self.read_body(MAX_BODY_BYTES))
        try:
            answer = self.answers[self.path](values)
        except UsageError as error:
            raise BadRequest(HTTPStatus.BAD_REQUEST, str(error)) from None
        return answer.encode("utf-8", "replace"), "application/json"

    def _check_host(self) -> None:
        if self.allowed_hosts and self.headers.get("Host") not in self.allowed_hosts:
            raise BadRequest(HTTPStatus.FORBIDDEN, "the request names another host")


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False)


def _object(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "expected a JSON object")
    return values


def _sentences(values: dict[str, Any]) -> list[str]:
    sentences = values.get("sentences")
    if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "sentences: expected a list of strings")
    if len(sentences) > MAX_SENTENCES:
        raise BadRequest(HTTPStatus.BAD_REQUEST,
                         f"{len(sentences)} sentences: expected at most {MAX_SENTENCES}")
    return sentences
