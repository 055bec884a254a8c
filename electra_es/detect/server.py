"""The page of `python -m electra_es.detect --serve`: type Spanish, see replaced words light up.

The server is for one person on one machine: without encryption or passwords, on the loopback
address by default. There it answers only requests that were meant for it (their Host names it), so
that a page elsewhere cannot reach it through the browser.
"""

import http.server
import ipaddress
import json
import os
from http import HTTPStatus

from electra_es.detect.scoring import Detector, to_json
from electra_es.errors import UsageError

MAX_BODY_BYTES = 64 * 1024
MAX_SENTENCES = 64

_STATIC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "static")
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/detect.js": ("detect.js", "text/javascript; charset=utf-8"),
    "/detect.css": ("detect.css", "text/css; charset=utf-8"),
}


class BadRequest(ValueError):
    """A request that cannot be answered, with its status."""

    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(message)
        self.status = status


def make_server(detector: Detector, host: str, port: int) -> http.server.ThreadingHTTPServer:
    """A server that is bound but not yet running; its real port is `server_address[1]`.

    Raises:
      UsageError: the address cannot be used.
    """
    class Handler(_Handler):
        pass

    Handler.detector = staticmethod(detector)
    try:
        server = http.server.ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise UsageError(f"--host={host} --port={port}: {error}: expected a free local address") from None
    Handler.allowed_hosts = _allowed_hosts(host, server.server_address[1])
    return server


def serve_forever(detector: Detector, host: str, port: int) -> None:
    """Serves until Ctrl-C."""
    with make_server(detector, host, port) as server:
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
    """Values of the Host header to answer; empty: any, as an open address has names unknown here."""
    if not _is_loopback(host):
        return frozenset()
    return frozenset(f"{name}:{port}" for name in ("localhost", "127.0.0.1", host))


class _Handler(http.server.BaseHTTPRequestHandler):
    detector: Detector
    allowed_hosts: frozenset[str] = frozenset()
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        try:
            self._check_host()
            if self.path not in _FILES:
                raise BadRequest(HTTPStatus.NOT_FOUND, "no such page")
            name, kind = _FILES[self.path]
            with open(os.path.join(_STATIC, name), "rb") as file:
                self._answer(HTTPStatus.OK, file.read(), kind)
        except BadRequest as error:
            self._refuse(error)

    def do_POST(self) -> None:
        try:
            self._check_host()
            if self.path != "/detect":
                raise BadRequest(HTTPStatus.NOT_FOUND, "no such page")
            scored = type(self).detector(self._read_sentences())
            self._answer(HTTPStatus.OK, to_json(scored).encode("utf-8"), "application/json")
        except BadRequest as error:
            self._refuse(error)

    def _check_host(self) -> None:
        if self.allowed_hosts and self.headers.get("Host") not in self.allowed_hosts:
            raise BadRequest(HTTPStatus.FORBIDDEN, "the request names another host")

    def _read_sentences(self) -> list[str]:
        # A type that a form of another page cannot send without asking first.
        if self.headers.get_content_type() != "application/json":
            raise BadRequest(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise BadRequest(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length")
        if int(length) > MAX_BODY_BYTES:
            raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                             f"{length} bytes: expected at most {MAX_BODY_BYTES}")
        try:
            sentences = json.loads(self.rfile.read(int(length)))["sentences"]
        except (ValueError, KeyError, TypeError):
            raise BadRequest(HTTPStatus.BAD_REQUEST,
                             'expected an object {"sentences": [...]}') from None
        if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
            raise BadRequest(HTTPStatus.BAD_REQUEST, "sentences: expected a list of strings")
        if len(sentences) > MAX_SENTENCES:
            raise BadRequest(HTTPStatus.BAD_REQUEST,
                             f"{len(sentences)} sentences: expected at most {MAX_SENTENCES}")
        return sentences

    def _refuse(self, error: BadRequest) -> None:
        # What may be left unread of the request would be taken for the next one.
        self.close_connection = True
        self._answer(error.status, json.dumps({"error": str(error)}).encode("utf-8"),
                     "application/json")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args) -> None:
        """Keeps what people type out of the terminal; errors reach the page."""
