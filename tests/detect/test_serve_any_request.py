"""The page's server receives arbitrary requests: it answers or closes cleanly, and continues."""

import contextlib
import json
import socket
import threading
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from electra_es.detect import transport
from electra_es.detect.scoring import ScoredSentence
from electra_es.detect.server import MAX_BODY_BYTES, make_server


def whole_text(sentences):
    """A detector that fails on one sentence, with a text that must not be printed."""
    if "fault" in sentences:
        raise RuntimeError(f"secret: {sentences}")
    return [ScoredSentence(sentence, [], False) for sentence in sentences]


@pytest.fixture
def server():
    with make_server(whole_text, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def send(server, data: bytes, *, half_close: bool = True, timeout: float = 10) -> bytes:
    """Everything that comes back until the server closes the connection."""
    with socket.create_connection(server.server_address, timeout=timeout) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
        return answer


def post(server, body: bytes, *headers: str, length: str | None = None) -> bytes:
    port = server.server_address[1]
    lines = ["POST /detect HTTP/1.1", f"Host: localhost:{port}", "Content-Type: application/json",
             f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def status(answer: bytes) -> int:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *_ = head.split(b"\r\n")
    version, number, _ = first.split(b" ", 2)
    assert version == b"HTTP/1.1" and b"Connection: close" in head, answer[:300]
    assert json.loads(body)["error"]
    return int(number)


def still_answers(server) -> bool:
    answer = send(server, post(server, b'{"sentences": ["s\\u00ed"]}'))
    return answer.startswith(b"HTTP/1.1 200 OK\r\n") and '"text": "sí"'.encode() in answer


@pytest.mark.parametrize("body, length, expected", [
    (b"[" * 60_000, None, 400),
    (b'{"sentences": ' + b"[" * 60_000, None, 400),
    (b"1" * 60_000, None, 400),
    (b'{"sentences": "' + b"\xff" * 9, None, 400),
    (b"{}", "9" * 5_000, 413),
    (b"{}", "0" * 5_000 + "2", 400),
    (b"{}", "-2", 411),
    (b"{}", "+2", 411),
    (b"{}", "2, 2", 411),
    (b"{}", "\u00b2", 411),
    (b"{}", "", 411),
    (b"{}", "1e3", 411),
    (b"{}", "3", 400),
    (b" " * (5 * MAX_BODY_BYTES), None, 413),
])
def test_bodies_and_lengths_get_an_answer(server, capfd, body, length, expected):
    assert status(send(server, post(server, body, length=length))) == expected
    assert still_answers(server)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("request_text, expected", [
    ("PUT / HTTP/1.1\r\n\r\n", 501),
    ("__init__ / HTTP/1.1\r\n\r\n", 501),
    ("GET\r\n\r\n", 400),
    ("\x00\x01\x02\r\n\r\n", 400),
    ("GET /\r\n\r\n", 403),
    ("GET / HTTP/9.9\r\n\r\n", 505),
    ("GET / HTTP/x\r\n\r\n", 400),
    ("GET / HTTP/1.1 more words\r\n\r\n", 400),
    (f"GET /{'a' * 70_000} HTTP/1.1\r\n\r\n", 414),
    (f"GET / HTTP/1.1\r\nA: {'a' * 70_000}\r\n\r\n", 431),
    ("GET / HTTP/1.1\r\n" + "A: b\r\n" * 200 + "\r\n", 431),
    ("POST /detect HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 411),
    ("POST /detect HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
])
def test_malformed_requests_get_an_answer(server, capfd, request_text, expected):
    assert status(send(server, request_text.encode("latin-1"))) == expected
    assert still_answers(server)
    assert capfd.readouterr().err == ""


def test_a_body_of_a_get_is_not_the_next_request(server):
    port = server.server_address[1]
    hidden = f"GET /hidden HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"
    answer = send(server, f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\n"
                          f"Content-Length: {len(hidden)}\r\n\r\n{hidden}".encode())
    assert answer.count(b"HTTP/1.1 ") == 1 and answer.startswith(b"HTTP/1.1 200 OK")


def test_a_fault_of_ours_is_an_answer_and_one_line_without_the_text(server, capfd):
    assert status(send(server, post(server, b'{"sentences": ["fault"]}'))) == 500
    assert still_answers(server)
    assert capfd.readouterr().err == "error: POST failed with RuntimeError\n"


def test_a_request_that_trickles_in_ends_at_the_deadline(server, capfd, monkeypatch):
    monkeypatch.setattr(transport, "MAX_SECONDS", 0.3)

    def trickle(start: bytes) -> bytes:
        """Sends a byte every 0.05 s; a limit on single pauses would never stop it."""
        with socket.create_connection(server.server_address, timeout=10) as connection:
            connection.sendall(start)
            connection.settimeout(0.05)
            answer, end = b"", time.monotonic() + 20
            while time.monotonic() < end:
                try:
                    if not (part := connection.recv(1 << 16)):
                        return answer
                    answer += part
                except TimeoutError:
                    with contextlib.suppress(ConnectionError):
                        connection.sendall(b" ")
                except ConnectionError:
                    return answer
            raise AssertionError("never ended")

    assert status(trickle(post(server, b"", length="60000"))) == 408
    assert trickle(b"GET / HTTP/1.1\r\nA: ") == b""
    assert trickle(b"GE") == b""
    monkeypatch.undo()
    assert still_answers(server)
    assert capfd.readouterr().err == ""


def test_clients_that_leave_print_nothing(server, capfd):
    for data in (b"", b"GET / HT", post(server, b"{", length="60000"),
                 post(server, b'{"sentences": []}')):
        connection = socket.create_connection(server.server_address)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.sendall(data)
        connection.close()  # at once, with a reset
    assert still_answers(server)
    assert capfd.readouterr().err == ""


TOKENS = st.one_of(
    st.sampled_from(["GET", "POST", "HEAD", "PUT", "/", "/detect", "HTTP/1.1", "HTTP/1.0", "HTTP/0.9",
                     "Host:", "localhost", "Content-Length:", "Content-Type:", "application/json",
                     "Transfer-Encoding:", "chunked", "Expect: 100-continue", "Connection: keep-alive",
                     "Connection: close", "0", "-1", "65536", '{"sentences": ["a"]}', "[[", "\0"]),
    st.text(st.characters(max_codepoint=255), max_size=9), st.sampled_from(["a" * 66_000, "9" * 5_000]))
REQUESTS = st.lists(st.tuples(TOKENS, st.sampled_from([" ", "\r\n", "\r\n\r\n", "\n", ":", ""])),
                    max_size=14).map(lambda pairs: "".join(map("".join, pairs)).encode("latin-1"))


@settings(max_examples=300, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large])
@given(REQUESTS | st.binary(max_size=300))
@example(b"GET / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n")
@example(b"\r\n" * 3)
@example(b"HEAD / HTTP/1.1\r\n\r\n")
@example(b"GET / HTTP/0.9\r\n\r\n")
def test_any_bytes_get_an_answer_or_an_end(server, capfd, data):
    answer = send(server, data)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 "), answer[:300]
    assert still_answers(server)
    assert capfd.readouterr().err == ""
