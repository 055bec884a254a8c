"""The page: the server's manners, and a person's way through it in a headless Chromium."""

import base64
import http.client
import json
import os
import shutil
import subprocess
import threading
import time

import pytest
import tensorflow as tf

from electra_es.detect.scoring import ScoredSentence, ScoredToken
from electra_es.detect.server import MAX_BODY_BYTES, MAX_SENTENCES, make_server
from electra_es.errors import UsageError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def rosa_detector(sentences):
    """Takes every "rosa" for a replaced word. The emoji is two UTF-16 units, one character."""
    scored = []
    for text in sentences:
        tokens, place = [], 0
        for number, word in enumerate(text.split()):
            place = text.index(word, place)
            probability = 0.9 if word == "rosa" else 0.04
            tokens.append(ScoredToken(word, number, place, place + len(word),
                                      2.2 if word == "rosa" else -3.2, probability))
            place += len(word)
        scored.append(ScoredSentence(text, tokens, truncated=len(tokens) > 9))
    return scored


@pytest.fixture
def port():
    with make_server(rosa_detector, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def request(port, method, path, body=b"", headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, response.headers, data


JSON = {"Content-Type": "application/json"}


def test_scores_come_as_json(port):
    body = json.dumps({"sentences": ["pan rosa", "sí"]}).encode()
    status, _, data = request(port, "POST", "/detect", body, JSON)
    values = json.loads(data)
    assert status == 200 and [s["text"] for s in values] == ["pan rosa", "sí"]
    assert [t["probability"] for t in values[0]["tokens"]] == [0.04, 0.9]


def test_page_brings_everything_with_it(port):
    status, headers, data = request(port, "GET", "/")
    assert status == 200 and b'<html lang="es">' in data and b"http" not in data
    assert headers["Content-Security-Policy"].startswith("default-src 'self'")
    for path in ("/detect.js", "/detect.css"):
        assert request(port, "GET", path)[0] == 200


@pytest.mark.parametrize("method, path, body, headers, status", [
    ("GET", "/../detect.py", b"", {}, 404),
    ("GET", "/static/index.html", b"", {}, 404),
    ("POST", "/other", b"{}", JSON, 404),
    ("GET", "/", b"", {"Host": "evil.example"}, 403),
    ("POST", "/detect", b'{"sentences": []}', {**JSON, "Host": "evil.example:80"}, 403),
    ("POST", "/detect", b'{"sentences": []}', {"Content-Type": "text/plain"}, 415),
    ("POST", "/detect", b"{", JSON, 400),
    ("POST", "/detect", b"[1]", JSON, 400),
    ("POST", "/detect", b'{"sentences": [1]}', JSON, 400),
    ("POST", "/detect", json.dumps({"sentences": ["a"] * (MAX_SENTENCES + 1)}).encode(), JSON, 400),
    ("POST", "/detect", b" " * (MAX_BODY_BYTES + 1), JSON, 413),
])
def test_other_requests_are_refused(port, method, path, body, headers, status):
    found, _, data = request(port, method, path, body, headers)
    assert found == status and json.loads(data)["error"]


def test_a_port_in_use_is_one_clear_line(port):
    with pytest.raises(UsageError, match=f"--port={port}: .*expected a free local address"):
        make_server(rosa_detector, "127.0.0.1", port)


class Browser:
    """A headless Chromium, spoken to over its debugging pipe (messages end with a zero byte)."""

    def __init__(self, profile):
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()
        command = (f'exec "$0" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage '
                   f'--remote-debugging-pipe --user-data-dir="$1" '
                   f"3<&{to_browser} 4>&{from_browser}")
        self.process = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM, str(profile)], pass_fds=[to_browser, from_browser],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.rest, self.number, self.session = b"", 0, None

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                data = os.read(self.read, 1 << 16)
                assert data, "Chromium has ended"
                self.rest += data
            line, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url):
        target = self.call("Target.createTarget", url=url)["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def value(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def wait_for(self, expression, seconds=30):
        end = time.monotonic() + seconds
        while not (value := self.value(expression)):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.05)
        return value

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.write)
        os.close(self.read)


REPLACED = "[...document.querySelectorAll('.replaced')].map(span => span.textContent).join('|')"


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH")
def test_a_person_types_and_sees_the_word_light_up(port, tmp_path):
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(f"http://127.0.0.1:{port}/")
        # The example that the page opens with is scored without being touched.
        assert browser.wait_for(REPLACED) == "rosa"
        browser.wait_for("document.activeElement && document.activeElement.id === 'text'")
        browser.call("Runtime.evaluate", expression="document.getElementById('text').select()")
        for key in "el 🌹 rosa no":
            browser.call("Input.insertText", text=key)
        browser.wait_for("document.querySelector('#result').textContent === 'el 🌹 rosa no'")
        assert browser.value(REPLACED) == "rosa"
        assert browser.value("document.querySelectorAll('.token').length") == 4
        assert browser.value("document.querySelector('.replaced').title") == "rosa: 0.90 (logit 2.20)"
        assert browser.value("getComputedStyle(document.querySelector('.replaced')).backgroundColor") == (
            "rgba(220, 38, 38, 0.9)")
        # What is typed is shown as text, also where it looks like markup.
        browser.call("Input.insertText", text="\n<b>x</b> rosa")
        browser.wait_for(f"{REPLACED} === 'rosa|rosa'")
        assert browser.value("document.querySelectorAll('#result b').length") == 0
        box = browser.value("(r => [r.x, r.y, r.width, r.height])"
                            "(document.querySelector('.replaced').getBoundingClientRect())")
        picture = base64.b64decode(browser.call("Page.captureScreenshot", format="png")["data"])
    finally:
        browser.close()
    (tmp_path / "page.png").write_bytes(picture)
    pixels = tf.io.decode_png(picture, channels=3).numpy().astype(int)
    x, y, width, height = (int(number) for number in box)
    word = pixels[y + 1:y + height - 1, x + 1:x + width - 1].reshape(-1, 3)
    red = (word[:, 0] > 200) & (word[:, 1] < 90) & (word[:, 2] < 90)
    assert red.mean() > 0.5


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH")
def test_a_refusal_is_said_on_the_page(port, tmp_path):
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait_for(REPLACED)
        browser.call("Input.insertText", text="\na" * (MAX_SENTENCES + 1))
        browser.wait_for("document.getElementById('status').textContent === "
                         "'No se pudo analizar: 65 sentences: expected at most 64'")
    finally:
        browser.close()
