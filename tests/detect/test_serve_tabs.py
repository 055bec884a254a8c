"""The page's other tabs, zero-shot classification and the exam, in a headless Chromium."""

import contextlib
import http.client
import json
import shutil
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from electra_es.detect.scoring import ScoredSentence
from electra_es.detect.server import make_server
from electra_es.errors import UsageError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

MARKUP = "<img src=x onerror=alert(1)>"


def whole_text(sentences):
    return [ScoredSentence(sentence, [], False) for sentence in sentences]


def shares(values):
    """Gives the labels 0.7, 0.2, 0.1, and refuses one template as the classifier does."""
    if values["template"] == "{0}":
        raise UsageError('template="{0}": expected one {}')
    labels = [label.strip() for label in values["labels"].split(",")]
    assert set(values) == {"text", "labels", "template", "multi_label"}
    return {"labels": labels, "scores": [0.7, 0.2, 0.1][:len(labels)],
            "multi_label": values["multi_label"]}


def score_of(right, pairs, low, high):
    return {"right": right, "accuracy": right / pairs, "low": low, "high": high}


def exam_of():
    """A discriminator that is right about one of two pairs, and a generator about both."""
    both = {"discriminator": score_of(1, 2, 0.1, 0.9), "generator": score_of(2, 2, 0.35, 1.0),
            "frequency": None}
    return {
        "step": 1234567, "phenomena": [{"name": "enye", "pairs": 2, **both}],
        "all": {"name": "all", "pairs": 2, **both},
        "answers": [
            {"phenomenon": "enye", "before": "Cumple un ", "right": "año", "wrong": "ano",
             "after": f" {MARKUP}.", "scores": {"discriminator": [-0.5, -1.25], "generator": [-2, -9]}},
            {"phenomenon": "enye", "before": "Una ", "right": "caña", "wrong": "cana", "after": ".",
             "scores": {"discriminator": [-3.0, -1.0], "generator": [-4.0, -5.0]}}]}


class Exam:
    """Counts how often it was taken; fails as long as `error` is set."""

    def __init__(self) -> None:
        self.times, self.error = 0, ""

    def __call__(self):
        if self.error:
            raise UsageError(self.error)
        self.times += 1
        return exam_of()


@contextlib.contextmanager
def serving(**parts) -> Iterator[int]:
    with make_server(whole_text, "127.0.0.1", 0, **parts) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def opened(port: int, width: int = 1200) -> Iterator[Page]:
    if not CHROMIUM:
        pytest.skip("no chromium on the PATH")
    with sync_playwright() as playwright:
        # The tests may run as root, for whom Chromium has no sandbox.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        page = browser.new_page(viewport={"width": width, "height": 800})
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.locator("#result p").first).to_be_visible()
        yield page
        assert not faults
        browser.close()


@pytest.fixture
def exam():
    return Exam()


@pytest.fixture
def port(exam):
    with serving(zero_shot=shares, exam=exam) as port:
        yield port


def post(port, path, values, status=200):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", path, json.dumps(values), {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    assert response.status == status
    return answer


def tab(page, name):
    return page.get_by_role("tab", name=name)


def test_answers_of_the_server(port, exam):
    values = {"text": "a", "labels": "x, y", "template": "{}", "multi_label": True}
    assert post(port, "/zero_shot", values) == {
        "labels": ["x", "y"], "scores": [0.7, 0.2], "multi_label": True}
    assert post(port, "/zero_shot", {**values, "template": "{0}"}, 400) == {
        "error": 'template="{0}": expected one {}'}
    exam.error = "no room"
    assert post(port, "/exam", {}, 400) == {"error": "no room"}
    exam.error = ""
    assert post(port, "/exam", {}) == post(port, "/exam", {}) == exam_of()
    assert exam.times == 1
    assert post(port, "/exam", [], 400)["error"]


def test_parts_that_were_not_given_are_not_there():
    with serving() as port:
        for path in ("/zero_shot", "/exam"):
            assert post(port, path, {}, 404)["error"] == "no such page"
        with opened(port) as page:
            expect(page.locator("#no-zero-shot")).to_contain_text("--zero_shot_model=DIR")
            for name in ("Etiquetas", "Examen"):
                expect(tab(page, name)).to_be_disabled()
                tab(page, name).click(force=True)
            expect(page.locator("#panel-detect")).to_be_visible()
            tab(page, "Palabras").focus()
            page.keyboard.press("ArrowRight")
            expect(tab(page, "Palabras")).to_be_focused()


def test_tabs_obey_the_keyboard(port):
    with opened(port) as page:
        expect(tab(page, "Examen")).to_be_enabled()
        expect(page.locator("#no-zero-shot")).to_be_hidden()
        tab(page, "Palabras").focus()
        for key, name, panel in [
                ("ArrowRight", "Etiquetas", "zero-shot"), ("ArrowRight", "Examen", "exam"),
                ("ArrowRight", "Palabras", "detect"), ("ArrowLeft", "Examen", "exam"),
                ("Home", "Palabras", "detect"), ("End", "Examen", "exam")]:
            page.keyboard.press(key)
            expect(tab(page, name)).to_be_focused()
            expect(page.get_by_role("tab", selected=True)).to_have_text([name])
            expect(page.get_by_role("tabpanel")).to_have_count(1)  # of those that are shown
            expect(page.get_by_role("tabpanel", name=name)).to_have_id(f"panel-{panel}")
        expect(page.locator("[role=tab][tabindex='0']")).to_have_text(["Examen"])
        page.keyboard.press("Tab")
        expect(page.locator("#exam-start")).to_be_focused()


def test_a_person_classifies_a_text(port):
    with opened(port) as page:
        tab(page, "Etiquetas").click()
        page.get_by_label("Etiquetas, separadas").fill(f"salud, {MARKUP}, deporte")
        page.get_by_role("textbox", name="Texto").fill(f"{MARKUP} & «él»")
        page.get_by_role("button", name="Clasificar").click()
        rows = page.locator("#zero-shot-result tbody tr")
        expect(rows).to_have_text(["salud70 %", f"{MARKUP}20 %", "deporte10 %"])
        expect(page.locator("#zero-shot-result img")).to_have_count(0)
        bars = [fill.bounding_box()["width"] for fill in page.locator(".fill").all()]
        assert bars[0] / bars[1] == pytest.approx(3.5, abs=0.1)
        expect(page.locator("caption")).to_contain_text("suman 100")
        page.get_by_role("switch").check()
        page.get_by_label("Plantilla").press("Enter")
        expect(page.locator("caption")).to_contain_text("por separado")
        page.get_by_label("Plantilla").fill("{0}")
        page.get_by_label("Plantilla").press("Enter")
        expect(page.locator("#zero-shot-status")).to_have_text(
            'No se pudo clasificar: template="{0}": expected one {}')
        expect(rows).to_have_count(0)


def test_a_person_examines_the_model(port, exam):
    with opened(port) as page:
        tab(page, "Examen").click()
        exam.error = "no room"
        page.locator("#exam-start").click()
        expect(page.locator("#exam-status")).to_have_text("No se pudo hacer el examen: no room")
        exam.error = ""
        page.locator("#exam-start").press("Enter")
        summary = page.locator("summary")
        expect(summary).to_have_count(1)
        expect(summary).to_contain_text("Ñ y n · 2 pares")
        expect(page.locator("#exam-result .all")).to_contain_text("paso 1.234.567 · 2 pares")
        expect(summary.locator(".number")).to_have_text(["50 % (10 % a 90 %)", "100 % (35 % a 100 %)"])
        track, low = (summary.locator(name).first.bounding_box() for name in (".track", ".range"))
        assert (low["x"] - track["x"]) / track["width"] == pytest.approx(0.1, abs=0.02)
        assert low["width"] / track["width"] == pytest.approx(0.8, abs=0.02)
        summary.press("Enter")
        rows = page.locator(".pairs tbody tr")
        expect(rows.locator("th")).to_have_text([f"Cumple un año ano {MARKUP}.", "Una caña cana."])
        expect(rows.first.locator("td")).to_have_text(["✓ -0,50 / -1,25", "✓ -2,00 / -9,00"])
        expect(rows.last.locator("td")).to_have_text(["✗ -3,00 / -1,00", "✓ -4,00 / -5,00"])
        expect(rows.last.get_by_role("img", name="falla")).to_have_count(1)
        expect(page.locator("#exam-result img")).to_have_count(0)


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_is_wider_than_the_page(port, width):
    long = "electroencefalografista" * 9
    with opened(port, width) as page:
        def fits():
            return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

        page.get_by_role("textbox", name="Texto").fill(long)
        expect(page.locator("#result p")).to_have_text([long])
        assert fits()
        tab(page, "Etiquetas").click()
        page.get_by_label("Etiquetas, separadas").fill(f"{long}, b")
        page.get_by_role("button", name="Clasificar").click()
        expect(page.locator(".fill")).to_have_count(2)
        assert fits()
        page.get_by_label("Plantilla").fill("{0}")
        page.get_by_role("button", name="Clasificar").click()
        expect(page.locator(".fill")).to_have_count(0)
        assert fits()
        tab(page, "Examen").click()
        page.locator("#exam-start").click()
        page.locator("summary").click()
        expect(page.locator(".pairs")).to_be_visible()
        assert fits()
