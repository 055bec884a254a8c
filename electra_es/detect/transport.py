"""The part of the page's server that handles connections: every request gets our answer or its
connection is closed. After an error the server prints one line and continues.

Starlette would parse requests and limit their sizes itself, but it brings uvicorn, h11, anyio and an
event loop to three files and one function that blocks. What the standard library leaves open is
here: a deadline for a whole request, answers to malformed ones, and a close that does not lose the
answer. `tests/detect/test_serve_any_request.py` sends it anything.
"""

import abc
import contextlib
import http.server
import io
import json
import socket
import sys
import time
from http import HTTPStatus
from typing import Any

# For a whole request to arrive, even in small pieces, and for the client to read the answer.
MAX_SECONDS = 30.0
# The rest of a refused request is read, so that the client gets the answer before the connection ends.
MAX_SECONDS_AFTER, MAX_BYTES_AFTER = 2.0, 4 << 20


class BadRequest(ValueError):
    """A request that cannot be answered, with its status."""

    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(message)
        self.status = status


class Server(http.server.ThreadingHTTPServer):
    """A thread for each connection."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints one line instead of a traceback, and nothing if the client has gone."""
        error = sys.exception()
        if not isinstance(error, OSError):
            _log(f"a connection ended with {type(error).__name__}")


def _log(message: str) -> None:
    """Prints no text that a user typed, and no text of an exception, which may quote it."""
    print(f"error: {message}", file=sys.stderr, flush=True)


class _TimedReader(io.RawIOBase):
    """Reads from a socket until a deadline, even if the bytes arrive slowly."""

    def __init__(self, connection: socket.socket):
        self.connection, self.deadline = connection, 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self.connection.settimeout(left)
        try:
            return self.connection.recv_into(buffer)
        finally:
            self.connection.settimeout(MAX_SECONDS)  # for the answer


class Handler(http.server.BaseHTTPRequestHandler, abc.ABC):
    """Answers `GET` and `POST` with what `answer_get` and `answer_post` return or raise."""

    protocol_version = "HTTP/1.1"
    # Otherwise an invalid request line would be answered in HTTP/0.9, which has no status.
    default_request_version = "HTTP/1.1"
    timeout = MAX_SECONDS
    command = ""

    @abc.abstractmethod
    def answer_get(self) -> tuple[bytes, str]:
        """A body and its type; raises BadRequest."""

    @abc.abstractmethod
    def answer_post(self) -> tuple[bytes, str]:
        """As `answer_get`."""

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._timed = _TimedReader(self.connection)
        self.rfile = io.BufferedReader(self._timed)

    def handle_one_request(self) -> None:
        self._timed.deadline = time.monotonic() + MAX_SECONDS
        self._answered = False
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the client is gone
        except Exception as error:
            self._fail(error)

    def do_GET(self) -> None:
        if self.headers.get("Content-Length", "0") != "0":
            self.close_connection = True  # its body would be read as the next request
        self._respond(self.answer_get)

    def do_POST(self) -> None:
        self._respond(self.answer_post)

    def read_body(self, max_bytes: int) -> bytes:
        """The body of a request.

        Raises:
          BadRequest: no length or a wrong one, more than `max_bytes`, or the body does not arrive.
        """
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            raise BadRequest(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length")
        digits = length.lstrip("0") or "0"
        # Python refuses to read numbers of thousands of digits.
        if len(digits) > len(str(max_bytes)) or int(digits) > max_bytes:
            raise BadRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                             f"{digits[:20]} bytes: expected at most {max_bytes}")
        try:
            data = self.rfile.read(int(digits))
        except TimeoutError:
            raise BadRequest(HTTPStatus.REQUEST_TIMEOUT,
                             f"no whole request in {MAX_SECONDS:g} s") from None
        if len(data) < int(digits):
            raise BadRequest(HTTPStatus.BAD_REQUEST,
                             f"a body of {len(data)} bytes: expected {digits}")
        return data

    def _respond(self, answer: Any) -> None:
        try:
            if "Transfer-Encoding" in self.headers:
                raise BadRequest(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length")
            if len(self.headers.get_all("Content-Length", [])) > 1:
                raise BadRequest(HTTPStatus.BAD_REQUEST, "expected one Content-Length")
            body, kind = answer()
        except BadRequest as error:
            self._refuse(error.status, str(error))
            return
        self._answer(HTTPStatus.OK, body, kind)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refusals of the base class (methods, malformed lines and headers), in our format."""
        self._refuse(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def _fail(self, error: Exception) -> None:
        """An error of this server: the client gets an answer, the terminal a line."""
        method = self.command if self.command in ("GET", "POST") else "a request"
        _log(f"{method} failed with {type(error).__name__}")
        self.close_connection = True
        if not self._answered:
            with contextlib.suppress(OSError):
                self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; see its terminal")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        # Unread bytes of the request would be read as the next request.
        self.close_connection = True
        self._answer(status, json.dumps({"error": message}).encode("utf-8"), "application/json")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self._answered = True
        if self.request_version == "HTTP/0.9":  # some clients name it, and it has no status either
            self.request_version = self.protocol_version
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def finish(self) -> None:
        """Ends the connection; unread bytes would cause a reset, and the client would lose the answer."""
        with contextlib.suppress(OSError):
            super().finish()
            self.connection.shutdown(socket.SHUT_WR)
            deadline, left = time.monotonic() + MAX_SECONDS_AFTER, MAX_BYTES_AFTER
            while left > 0 and (seconds := deadline - time.monotonic()) > 0:
                self.connection.settimeout(seconds)
                if not (data := self.connection.recv(1 << 16)):
                    return
                left -= len(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing: the terminal must not show what people type."""
