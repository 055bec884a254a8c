"""The page of `python -m electra_es.detect --serve`, which marks words that look replaced.

The server is for one person on one machine: it has no encryption and no passwords, and listens on
the loopback address by default. There it answers only requests whose Host header names it, so that
other pages cannot reach it through the browser.
"""

import ipaddress
import json
import os
from http import HTTPStatus

from electra_es.detect.scoring import Detector, to_json
from electra_es.detect.transport import BadRequest, Handler, Server
from electra_es.errors import UsageError

MAX_BODY_BYTES = 64 * 1024
MAX_SENTENCES = 64

_STATIC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "static")
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/detect.js": ("detect.js", "text/javascript; charset=utf-8"),
    "/detect.css": ("detect.css", "text/css; charset=utf-8"),
}


def make_server(detector: Detector, host: str, port: int) -> Server:
    """A server that is bound but not yet running; its real port is `server_address[1]`.

    Raises:
      UsageError: the address cannot be used.
    """
    class BoundHandler(_Handler):
        pass

    BoundHandler.detector = staticmethod(detector)
    try:
        server = Server((host, port), BoundHandler)
    except (OSError, OverflowError, UnicodeError) as error:
        raise UsageError(f"--host={host} --port={port}: {error}: expected a free local address") from None
    BoundHandler.allowed_hosts = _allowed_hosts(host, server.server_address[1])
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
    """Accepted values of the Host header; empty: any, as other names are unknown."""
    if not _is_loopback(host):
        return frozenset()
    return frozenset(f"{name}:{port}" for name in ("localhost", "127.0.0.1", host))


class _Handler(Handler):
    detector: Detector
    allowed_hosts: frozenset[str] = frozenset()

    def answer_get(self) -> tuple[bytes, str]:
        self._check_host()
        if self.path not in _FILES:
            raise BadRequest(HTTPStatus.NOT_FOUND, "no such page")
        name, kind = _FILES[self.path]
        with open(os.path.join(_STATIC, name), "rb") as file:
            return file.read(), kind

    def answer_post(self) -> tuple[bytes, str]:
        self._check_host()
        if self.path != "/detect":
            raise BadRequest(HTTPStatus.NOT_FOUND, "no such page")
        # A form of another page cannot send this type without permission (CORS).
        if self.headers.get_content_type() != "application/json":
            raise BadRequest(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
        scored = type(self).detector(_sentences(self.read_body(MAX_BODY_BYTES)))
        return to_json(scored).encode("utf-8", "replace"), "application/json"

    def _check_host(self) -> None:
        if self.allowed_hosts and self.headers.get("Host") not in self.allowed_hosts:
            raise BadRequest(HTTPStatus.FORBIDDEN, "the request names another host")


def _sentences(body: bytes) -> list[str]:
    try:
        sentences = json.loads(body)["sentences"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadRequest(HTTPStatus.BAD_REQUEST, 'expected an object {"sentences": [...]}') from None
    if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "sentences: expected a list of strings")
    if len(sentences) > MAX_SENTENCES:
        raise BadRequest(HTTPStatus.BAD_REQUEST,
                         f"{len(sentences)} sentences: expected at most {MAX_SENTENCES}")
    return sentences
