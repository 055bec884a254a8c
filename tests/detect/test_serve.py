"""The page: the behaviour of the server, and a user's session in a headless Chromium."""

import http.client
import json
import shutil
import threading
from collections.abc import Iterator

import pytest
import tensorflow as tf
from playwright.sync_api import Page, expect, sync_playwright

from electra_es.detect.scoring import ScoredSentence, ScoredToken
from electra_es.detect.server import MAX_BODY_BYTES, MAX_SENTENCES, make_server
from electra_es.errors import UsageError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def rosa_detector(sentences):
    """Classifies every "rosa" as replaced. The emoji is two UTF-16 units, but one character."""
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


@pytest.fixture
def page(port) -> Iterator[Page]:
    """The page in the Chromium of the system, opened and with its example scored."""
    if not CHROMIUM:
        pytest.skip("no chromium on the PATH")
    with sync_playwright() as playwright:
        # The tests may run as root, for whom Chromium has no sandbox.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.locator(".replaced")).to_have_text(["rosa"])
        yield page
        browser.close()


def test_a_person_types_and_sees_the_word_light_up(page):
    text, result, replaced = page.locator("#text"), page.locator("#result"), page.locator(".replaced")
    expect(text).to_be_focused()
    text.select_text()
    for key in "el 🌹 rosa no":
        page.keyboard.insert_text(key)
    expect(result).to_have_js_property("textContent", "el 🌹 rosa no")
    expect(replaced).to_have_text(["rosa"])
    expect(page.locator(".token")).to_have_count(4)
    expect(replaced).to_have_attribute("title", "rosa: 0.90 (logit 2.20)")
    expect(replaced).to_have_css("background-color", "rgba(220, 38, 38, 0.9)")
    # What is typed is shown as text, also where it looks like markup.
    page.keyboard.insert_text("\n<b>x</b> rosa")
    expect(replaced).to_have_text(["rosa", "rosa"])
    expect(result.locator("b")).to_have_count(0)
    pixels = tf.io.decode_png(replaced.first.screenshot(), channels=3).numpy().astype(int)
    word = pixels[1:-1, 1:-1].reshape(-1, 3)
    red = (word[:, 0] > 200) & (word[:, 1] < 90) & (word[:, 2] < 90)
    assert red.mean() > 0.5


def test_a_refusal_is_said_on_the_page(page):
    page.keyboard.insert_text("\na" * (MAX_SENTENCES + 1))
    expect(page.locator("#status")).to_have_text("No se pudo analizar: 65 sentences: expected at most 64")
