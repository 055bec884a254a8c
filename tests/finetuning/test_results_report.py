"""The report: published figures in the columns of what they are, ours beside them, marks, pictures."""

import copy
import dataclasses
import json
import pathlib

import numpy as np
import pytest
from finetuning_helpers import QUICK, examples_of, task_of

from electra_es.errors import UsageError
from electra_es.finetuning import analysis
from electra_es.finetuning.predictions import ensemble, json_lines, output_of
from electra_es.finetuning.questions import Answer
from electra_es.finetuning.report import write_report
from electra_es.finetuning.results import summarise_trials, write_json, write_text
from electra_es.finetuning.scores import score_outputs
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.tables import LABELS, OurRow, published_facts, results_table
from electra_es.finetuning.tasks import METRICS, load_task, task_from_json, task_names


def make_run(directory, task, *, trials=3, name="mine", seed=0, **changes):
    """Writes a run whose model guesses: predictions and results, with the functions of a real one."""
    directory.mkdir(parents=True)
    numbers = np.random.default_rng(seed)
    examples = examples_of(task, 12)
    rows = []
    for number in range(1, trials + 1):
        if task.kind == "tagging":
            outputs = [numbers.dirichlet(np.ones(len(task.labels)), len(e.words)) for e in examples]
        elif task.kind == "classification":
            outputs = list(numbers.dirichlet(np.ones(len(task.labels)), len(examples)))
        else:
            outputs = numbers.uniform(1, 5, len(examples)).tolist()
        found = score_outputs(task, "test", examples, outputs)
        path = f"trial-{number}-test.jsonl"
        write_text(str(directory / path),
                   json_lines(task, examples, outputs, found.predictions))
        rows.append({"trial": number, "seconds": 61.0, "steps": 9, "metrics": found.metrics,
                     "one_class": [], "threshold": None,
                     "epochs": [{"epoch": 1, "step": 9, f"dev/{task.metric}": 0.5}],
                     "predictions": {"test": path}})
    metrics = summarise_trials(rows)
    results = {
        "task": task.name, "kind": task.kind, "title": task.title, "name": name,
        "model": "m, step 3",
        "parameters": 884_353, "protocol": "standard", "split": "test", "metric": task.metric,
        **metrics[f"test/{task.metric}"], "metrics": metrics, "trials": rows,
        "splits": {"test": {}}, "settings": dataclasses.asdict(FinetuningConfig(**QUICK)),
        "task_settings": dataclasses.asdict(task), "grid": {}, **changes}
    write_json(str(directory / "results.json"), results)
    return json.loads((directory / "results.json").read_text())


@pytest.fixture(scope="module")
def pawsx(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report") / "pawsx"
    return directory, make_run(directory, load_task("pawsx_es"))


def test_a_published_figure_stands_under_what_its_source_computes(pawsx):
    table = results_table([OurRow(pawsx[1])])
    rows = {(row.model, row.source): row for row in table.rows}
    assert rows["mBERT", "EvalES"].cells == {"binary_f1": "0.9000"}  # printed as F1
    assert rows["mBERT (178M)", "SELECTRA"].cells == {"accuracy": "0.8895"}
    assert rows["SELECTRA small (22M)", "SELECTRA"].cells == {"accuracy": "0.8960 ± 0.0020"}
    assert rows["ALBETO tiny (5M)", "ALBETO"].cells == {"accuracy": "0.8020"}
    assert any(note.startswith("EvalES") and 'F1 of class 1; prints "F1"' in note
               for note in table.notes)
    ours = table.rows[-1]
    mean, std = (pawsx[1]["metrics"]["test/accuracy"][key] for key in ("mean", "std"))
    assert ours.is_ours and ours.cells["accuracy"] == f"{mean:.4f} ± {std:.4f}"
    assert set(ours.cells) <= set(table.metrics) and ours.split == "test"


def test_every_published_metric_is_one_that_the_scorers_have():
    facts = published_facts()
    known = {metric for metrics in METRICS.values() for metric in metrics}
    assert known == set(LABELS)
    for task, entries in facts["results"].items():
        for entry in entries:
            assert entry["metric"] in known and entry["source"] in facts["sources"], task
            assert entry["split"] == "test" and entry["rows"]
            for values in entry["rows"].values():
                assert 0.5 < values[0] < 1 and len(values) <= 2


def test_every_shipped_task_is_the_same_in_json():
    for name in task_names():
        task = load_task(name)
        assert task_from_json(json.loads(json.dumps(dataclasses.asdict(task)))) == task


def test_results_that_need_a_word_are_marked(pawsx):
    plain = copy.deepcopy(pawsx[1])
    assert "†" not in results_table([OurRow(plain)]).rows[-1].model
    one_class = copy.deepcopy(plain)
    one_class["trials"][1]["one_class"] = ["test"]
    as_selectra = {**plain, "protocol": "selectra"}
    selected = {**plain, "settings": {**plain["settings"], "keep": "best"}}
    table = results_table([OurRow(one_class), OurRow(as_selectra), OurRow(selected)])
    assert [row.model[-1] for row in table.rows[-3:]] == ["†", "‡", "§"]
    assert "† A trial predicts one class only." in table.notes
    assert any(note.startswith("‡ The test set in the place of dev") for note in table.notes)
    # On dev alone it is no matter of the test figures.
    one_class["trials"][1]["one_class"] = ["dev"]
    assert "†" not in results_table([OurRow(one_class)]).rows[-1].model


def test_an_ensemble_is_the_mean_of_the_probabilities(tmp_path):
    task = task_of("classification")
    results = make_run(tmp_path / "run", task)
    found = analysis.read_predictions(str(tmp_path / "run"), results, "test")
    mean = np.mean(found.outputs, axis=0)
    guesses = [task.labels[i] for i in mean.argmax(axis=1)]
    expected = np.mean([a == e.label for a, e in zip(guesses, found.examples, strict=True)])
    assert analysis.ensemble_metrics(str(tmp_path / "run"), results) == {"test/accuracy": expected}


def test_an_ensemble_of_answers_takes_the_most_probable():
    answers = [[Answer("a", 1, 3.0, -1.0)], [Answer("b", 5, 4.0, -0.5)], [Answer("b", 5, 2.0, 0.5)]]
    chosen, = ensemble(task_of("question_answering"), answers)
    assert (chosen.text, chosen.start) == ("b", 5)
    assert chosen.null_difference == pytest.approx(-1 / 3)


def test_lines_of_predictions_give_the_outputs_back():
    for kind in ("tagging", "regression", "question_answering"):
        task = task_of(kind)
        examples = examples_of(task, 4)
        outputs = {"tagging": [np.full((len(getattr(e, "words", "x")), 3), 1 / 3) for e in examples],
                   "regression": [1.5, 2.25, 3.0, 5.0],
                   "question_answering": [Answer("x", 2, 1.5, float("inf"))] * 4}[kind]
        predictions = score_outputs(task, "dev", examples, outputs).predictions
        lines = list(json_lines(task, examples, outputs, predictions))
        assert "Infinity" not in "".join(lines)
        for line, output in zip(lines, outputs, strict=True):
            back = output_of(task, json.loads(line))
            if kind == "question_answering":
                assert (back.text, back.start) == ("x", 2)
            else:
                np.testing.assert_allclose(back, output, atol=1e-6)


def test_classes_and_confusions_are_those_of_all_trials(tmp_path):
    task = task_of("tagging")
    results = make_run(tmp_path / "run", task)
    found = analysis.read_predictions(str(tmp_path / "run"), results, "test")
    scores = analysis.class_scores(found)
    assert [row.name for row in scores] == ["PER"]
    entities = sum(label == "B-PER" for e in found.examples for label in e.labels)
    assert scores[0].support == entities
    matrix = analysis.confusion(found)
    assert matrix.classes == ["O", "PER"]
    assert matrix.counts.sum() == 3 * sum(len(e.words) for e in found.examples)


@pytest.mark.parametrize("ending", ["md", "html", "png"])
def test_reports(tmp_path, pawsx, ending):
    scores = make_run(tmp_path / "sts", load_task("sts_es"), name="<b>mine</b> | x")
    names = write_report([str(pawsx[0]), str(tmp_path / "sts" / "results.json")],
                         str(tmp_path / f"results.{ending}"), with_ensemble=True)
    assert scores["kind"] == "regression"
    if ending == "png":
        assert len(names) == 2
        for name in names:
            assert pathlib.Path(name).read_bytes()[:4] == b"\x89PNG"
        return
    text = pathlib.Path(names[0]).read_text()
    for expected in ("0.8960 ± 0.0020", "mine (1M), ensemble of 3", "trial 2", "EvalES", "Spearman"):
        assert expected in text
    if ending == "html":
        assert len(names) == 1 and "<b>mine" not in text and "&lt;b&gt;mine" in text
        assert text.count("data:image/svg+xml;base64,") == 2
    else:
        assert "\\| x" in text and all(name.split("/")[-1] in text for name in names[1:])


def test_the_same_results_give_the_same_picture(tmp_path, pawsx):
    pictures = [write_report([str(pawsx[0])], str(tmp_path / f"{i}.html"))[0] for i in range(2)]
    assert pathlib.Path(pictures[0]).read_bytes() == pathlib.Path(pictures[1]).read_bytes()


def test_wrong_use_is_told(tmp_path, pawsx):
    for paths, output, complaint in (
            ([str(pawsx[0])], "results.pdf", "expected a name in .md, .html, .png"),
            ([str(tmp_path / "none.json")], "results.md", "cannot be read"),
            ([str(tmp_path)], "results.md", "results.json: cannot be read")):
        with pytest.raises(UsageError, match=complaint):
            write_report(paths, str(tmp_path / output))
    (tmp_path / "other.json").write_text('{"task": "x"}')
    with pytest.raises(UsageError, match="no name: expected a results.json"):
        write_report([str(tmp_path / "other.json")], str(tmp_path / "results.md"))
