"""The command: texts and files in, tables, JSON and CSV out; an evaluation; refusals in one line."""

import csv
import io
import json
import subprocess
import sys

import pytest
import sklearn.metrics
from command_helpers import fresh_flags, main_of
from zero_shot_helpers import model_dir, texts

from electra_es.errors import UsageError
from electra_es.zero_shot import stream
from electra_es.zero_shot.classifier import Classified, load_classifier
from electra_es.zero_shot.evaluation import evaluate, to_json, to_table

TWO = [Classified("Uno,\ndos. " + "y " * 80, ["b", "a"], [0.75, 0.25]),
       Classified('"Tres".', ["a", "b"], [0.5, 0.5])]


@pytest.fixture
def run(monkeypatch, capsys):
    """`run(*arguments)`: what the command prints on stdout and stderr."""
    def run(*arguments: str) -> tuple[str, str]:
        fresh_flags(monkeypatch, "zero-shot", arguments)
        capsys.readouterr()  # what training the model has printed
        main_of("electra_es.zero_shot.__main__")()
        return capsys.readouterr()

    return run


@pytest.fixture
def refused(run):
    """`refused(*arguments)`: the line with which the command ends."""
    def refused(*arguments: str) -> str:
        with pytest.raises(UsageError) as error:
            run(*arguments)
        assert "\n" not in str(error.value)
        return str(error.value)

    return refused


def expected(given, labels, **settings):
    return load_classifier(model_dir())(given, labels, **settings)


def test_texts_of_the_command_line(run):
    out, err = run(f"--model={model_dir()}", '--labels=salud,"paz, guerra"', "--labels=deporte",
                   "--template=Es {}", "--format=json", "Uno.", "Dos.")
    found = expected(["Uno.", "Dos."], ["salud", "paz, guerra", "deporte"], template="Es {}")
    assert [Classified(**row) for row in json.loads(out)] == found and err == ""
    assert set(json.loads(out)[0]) == {"sequence", "labels", "scores"}


def test_a_file_goes_through_in_chunks_in_order_with_progress(run, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "CHUNK_PAIRS", 15)
    path = tmp_path / "textos.txt"
    path.write_text("\r\n".join(texts()[:17]) + "\n", encoding="utf-8")
    out, err = run(f"--model={model_dir()}", "--labels=a,b", "--multi_label", f"--input={path}",
                   "--format=csv", "--batch_size=3")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["text"] for row in rows] == texts()[:17]
    found = expected(texts()[:17], ["a", "b"], multi_label=True)
    assert [row["best"] for row in rows] == [result.labels[0] for result in found]
    for row, result in zip(rows, found, strict=True):
        for label, score in zip(result.labels, result.scores, strict=True):
            assert float(row[label]) == pytest.approx(score, abs=2e-6)
    assert [line.split(" texts  ")[0] for line in err.splitlines()] == [
        "7 of 17", "14 of 17", "17 of 17"]
    assert err.splitlines()[-1].endswith("ETA 0s")


def write_json_lines(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def test_an_evaluation_is_that_of_scikit_learn(run, tmp_path):
    names = ["Sport", "Deporte", "salud", "arte"]
    rows = [{"titulo": text, "topic": names[i % 4]} for i, text in enumerate(texts())]
    rows[5:5] = [{"titulo": "", "topic": "salud"}, {"titulo": "Sí.", "topic": "Otro"}]
    path = write_json_lines(tmp_path / "noticias.jsonl", rows)
    arguments = [f"--model={model_dir()}", "--labels=deporte,salud,arte", f"--input={path}",
                 "--text_column=titulo", "--label_column=topic", "--skip_bad_rows",
                 "--label_alias=Sport=deporte,Deporte=deporte"]
    out, err = run(*arguments, "--format=json", f"--output={tmp_path}/scores.json")
    assert err.splitlines() == [f"warning: {path}: 1 left out: empty text",
                                f"warning: {path}: 1 left out: class that is no label"]
    found = expected(texts(), ["deporte", "salud", "arte"])
    assert [Classified(**row) for row in json.loads((tmp_path / "scores.json").read_text())] == found
    truth = [["deporte", "deporte", "salud", "arte"][i % 4] for i in range(50)]
    guess = [result.labels[0] for result in found]
    scored = json.loads(out)
    assert scored["texts"] == 50 and scored["most_frequent"] == "deporte"
    assert scored["accuracy"] == sklearn.metrics.accuracy_score(truth, guess)
    assert scored["macro_f1"] == sklearn.metrics.f1_score(truth, guess, average="macro", zero_division=0)
    assert scored["constant_accuracy"] == 0.52
    assert scored["by_label"]["salud"]["predicted"] == guess.count("salud")
    assert run(*arguments)[0].splitlines()[0] == (
        f"50 texts: accuracy {scored['accuracy']:.4f}, macro F1 {scored['macro_f1']:.4f}")


def test_scores_by_label():
    found = evaluate(["a", "a", "b", "a"], ["a", "b", "b", "a"], ["a", "b", "c"])
    assert found.by_label["a"] == {"texts": 3, "predicted": 2, "precision": 1.0,
                                   "recall": pytest.approx(2 / 3), "f1": pytest.approx(0.8)}
    assert found.by_label["c"]["f1"] == 0.0
    assert (found.accuracy, found.macro_f1) == (0.75, pytest.approx((0.8 + 2 / 3) / 2))
    assert (found.constant_accuracy, found.constant_macro_f1) == (0.75, pytest.approx(6 / 7 / 2))
    assert to_table(found).splitlines() == [
        "4 texts: accuracy 0.7500, macro F1 0.7333", 'always "a": accuracy 0.7500, macro F1 0.4286', "",
        "label   texts  predicted  precision  recall      F1",
        "a           3          2     1.0000  0.6667  0.8000",
        "b           1          2     0.5000  1.0000  0.6667",
        "c           0          0     0.0000  0.0000  0.0000"]
    assert json.loads(to_json(found))["accuracy"] == 0.75


def test_forms():
    table = list(stream.table_lines(TWO, ["a", "b"]))
    assert len(table[0]) == 100 and table[0].startswith("Uno, dos. y y") and table[0].endswith("…")
    assert table[1:] == ["  0.7500  b", "  0.2500  a", "", '"Tres".', "  0.5000  a", "  0.5000  b", ""]
    assert json.loads("\n".join(stream.json_lines(TWO, ["a", "b"]))) == [
        result._asdict() for result in TWO]
    rows = list(csv.reader(io.StringIO("\n".join(stream.csv_lines(TWO, ["a", "b"])), newline="")))
    assert rows == [["text", "best", "a", "b"], [TWO[0].sequence, "b", "0.250000", "0.750000"],
                    ['"Tres".', "a", "0.500000", "0.500000"]]


def test_a_lone_surrogate_is_no_traceback(run, tmp_path):
    path = write_json_lines(tmp_path / "a.jsonl", [{"text": "Sí \ud800 y no."}])
    assert json.loads(run(f"--model={model_dir()}", "--labels=a", f"--input={path}",
                          "--format=json")[0])[0]["sequence"] == "Sí ? y no."


def test_nothing_is_left_of_a_file_that_breaks_off(tmp_path):
    def lines():
        yield "uno"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream.write_lines(lines(), str(tmp_path / "scores.csv"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name, content, line, message", [
    ("a.txt", b"uno\n\ndos\n", 2, "empty text"), ("a.txt", "uno\n\u200b\n".encode(), 2, "empty text"),
    ("a.txt", b"uno\na\xf1o\n", 2, "byte 1 of the line is not utf-8: expected utf-8"),
    ("a.jsonl", b'{"text": "a"}\n{', 2, "not JSON"), ("a.jsonl", b"[1]", 1, "not a JSON object (list)"),
    ("a.jsonl", b'{"texto": "a"}', 1, 'no value ("text": expected one of texto; did you mean "texto"?)'),
    ("a.jsonl", b'{"text": ["a"]}', 1, "text is no text"), ("a.jsonl", b"[" * 9_999, 1, "not JSON"),
    ("a.jsonl", b'{"text": " "}', 1, "empty text")])
def test_lines_that_cannot_be_used_are_named(refused, tmp_path, name, content, line, message):
    path = tmp_path / name
    path.write_bytes(content)
    assert refused(f"--model={model_dir()}", "--labels=a", f"--input={path}").startswith(
        f"{path}:{line}: {message}")


def test_a_class_that_is_no_label_is_named(refused, tmp_path):
    path = write_json_lines(tmp_path / "a.jsonl", [{"text": "a", "topic": "Sport"}])
    assert refused(f"--model={model_dir()}", "--labels=deporte,arte", f"--input={path}",
                   "--label_column=topic").startswith(
        f'{path}:1: class that is no label ("Sport": expected one of deporte, arte; did you mean ')


@pytest.mark.parametrize("arguments, message", [
    (["--labels=a"], "expected texts, or --input=FILE"),
    (["--labels=a", "--input=a.txt", "Uno."], "expected texts, or --input=FILE"),
    (["Uno."], "--labels: expected one or more labels"),
    (["--labels=a", ""], "text 1 is empty"), (["--labels=a", "Uno.", "\u2028"], "text 2 is empty"),
    (["--labels=a", "--template=Es {0}.", "Uno."], '--template="Es {0}.": expected one {}'),
    (["--labels=a", "--input=a.pdf"], "--input=a.pdf: expected a name that ends in .txt or .jsonl"),
    (["--labels=a", "--input=none.txt"], "none.txt: cannot be read"),
    (["--labels=a", "--skip_bad_rows", "Uno."], "--skip_bad_rows has no effect with no --input"),
    (["--labels=a", "--text_column=b", "--input=a.txt"], "--text_column has no effect with an input"),
    (["--labels=a", "--label_alias=b=a", "--input=a.jsonl"], "--label_alias has no effect with no -"),
    (["--labels=a", "--label_column=b", "--format=csv", "--input=a.jsonl"], "--format=csv with --label"),
    (["--labels=a", "--output=none/a", "Uno."], "none/a: expected the name of a file in a folder"),
    (["--labels=a", "--format=xml", "Uno."], "--format='xml': expected one of"),
    (["--lables=a", "Uno."], "Unknown")])
def test_wrong_use_is_one_line(refused, arguments, message):
    assert message in refused("--model=/none", *arguments)


def test_what_is_wrong_is_told_before_tensorflow_is_imported():
    """Labels and template are checked by a module that does not import it."""
    done = subprocess.run(
        [sys.executable, "-c",
         "import sys, electra_es.zero_shot.labels; print('tensorflow' in sys.modules)"],
        capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
