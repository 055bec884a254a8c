"""Task files: those that are shipped, and what is said of wrong ones."""

import dataclasses
import json
import pathlib
import re

import pytest

from electra_es.errors import UsageError
from electra_es.finetuning import tasks
from electra_es.finetuning.tasks import LAYOUTS, METRICS, Task, load_task, task_names

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "tasks.md"

SHIPPED = ["ancora_pos", "capitel_ner", "capitel_pos", "conll2002_ner", "conll2002_pos", "inferes",
           "massive_es", "mldoc_es", "pawsx_es", "sample_pos", "sqac", "sts_es", "xnli_es"]
TAGGING = {"kind": "tagging", "layout": "conll", "files": {"train": "a"}, "metric": "accuracy",
           "columns": {"word": 0, "label": 1}, "labels": ["A", "B"]}
PAIRS = {"kind": "classification", "files": {"train": "a.tsv"}, "metric": "accuracy",
         "columns": {"text": "a", "label": "l"}, "labels": ["yes", "no"]}


def write(tmp_path, **settings) -> str:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return str(path)


def test_all_are_there():
    assert task_names() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped(name):
    task = load_task(name)
    assert task.name == name and task.splits == ("train", "dev", "test")
    assert task.title and task.source and task.licence
    assert task.download or task.how_to_get or task.bundled


def test_labels_keep_the_order_of_the_file():
    assert load_task("xnli_es").label_ids == {"entailment": 0, "neutral": 1, "contradiction": 2}
    assert len(load_task("massive_es").labels) == 60
    assert len(load_task("capitel_ner").labels) == 17  # O, and B, I, E, S of four kinds


def test_a_task_of_ones_own(tmp_path):
    task = load_task(write(tmp_path, **TAGGING, _comment="why"))
    assert task.name == "mine" and task.labels == ("A", "B") and task.splits == ("train",)
    assert task.all_metrics == ("accuracy",)


@pytest.mark.parametrize("settings, message", [
    ({**TAGGING, "lables": []}, 'unknown setting "lables" of Task; did you mean "labels"'),
    ({**TAGGING, "kind": "taging"}, 'kind: "taging": expected one of .* did you mean "tagging"'),
    ({**TAGGING, "layout": "squad"}, 'layout: "squad": expected one of conll'),
    ({**TAGGING, "metric": "entity_f2"}, 'metric: "entity_f2".*did you mean "entity_f1"'),
    ({**TAGGING, "metric": "mcc"}, 'metric: "mcc": expected one of accuracy'),
    ({**TAGGING, "labels": ["A"]}, r"labels=\['A'\]: expected two or more"),
    ({**TAGGING, "labels": ["A", "A"]}, "two or more different names"),
    ({**TAGGING, "labels": "AB"}, "labels='AB': expected a list"),
    ({**TAGGING, "labels": ["A", 1]}, "labels: 1: expected a text"),
    ({**TAGGING, "label_aliases": {"a": "AA"}}, '"a" stands for "AA", which is no label'),
    ({**TAGGING, "scheme": "IOB2"}, "scheme=IOB2: expected a label O"),
    ({**TAGGING, "scheme": "IOB2", "labels": ["O", "S-A"]}, 'label "S-A": expected O or B-…, I-…'),
    ({**TAGGING, "scheme": "IOB2", "labels": ["O", "BA"]}, 'label "BA": expected O or B-…, I-…'),
    ({**TAGGING, "metric": "entity_f1"}, "expected a scheme of entities, IOB2 or IOBES"),
    ({**TAGGING, "scheme": "BIO"}, 'scheme: "BIO": expected one of none, IOB2, IOBES'),
    ({**TAGGING, "columns": {"word": 0}}, 'expected one for "label"'),
    ({**TAGGING, "columns": {"word": 0, "lable": 1}}, 'columns: "lable".*did you mean "label"'),
    ({**TAGGING, "files": {"validation": "x"}}, 'files and overrides: "validation"'),
    ({**TAGGING, "files": {"train": 7}}, 'files: "train": 7: expected a text'),
    ({**TAGGING, "overrides": {"dev": {"colums": {}}}}, 'overrides: "colums".*did you mean "columns"'),
    ({**TAGGING, "overrides": {"dev": 3}}, 'overrides: "dev": 3: expected an object'),
    ({**TAGGING, "overrides": {"dev": {"columns": {"word": 0}}}}, 'expected one for "label"'),
    ({**TAGGING, "overrides": {"dev": {"header": 1}}}, "header=1: expected true or false"),
    ({**TAGGING, "columns": {"word": 0, "label": 1.5}}, '"label": 1.5: expected a name or a number'),
    ({**TAGGING, "encoding": "latin1"}, 'encoding: "latin1".*did you mean "latin-1"'),
    ({**TAGGING, "name": "x"}, 'unknown setting "name": a task has the name of its file'),
    ({**PAIRS, "symmetric": True}, "symmetric=true: expected two texts"),
    ({**PAIRS, "header": "yes"}, "header='yes': expected true or false"),
    ({**PAIRS, "labels": ["a", "b", "c"], "metric": "binary_f1"}, "expected two labels"),
    ({**PAIRS, "kind": "regression", "metric": "pearson", "score_range": [5, 0],
      "columns": {"text": 0, "score": 1}}, r"score_range=\[5, 0\]: expected \[lowest, highest\]"),
    ({"metric": "accuracy", "files": {"dev": "x"}}, 'kind: "": expected one of tagging, classification'),
    ({key: value for key, value in TAGGING.items() if key != "metric"}, 'metric: "": expected one of'),
    ({key: value for key, value in TAGGING.items() if key != "files"}, "files={}: expected a name"),
])
def test_wrong_settings_are_named(tmp_path, settings, message):
    path = write(tmp_path, **settings)
    with pytest.raises(UsageError, match=message) as error:
        load_task(path)
    assert str(error.value).startswith(path)


def test_no_such_task(tmp_path):
    with pytest.raises(UsageError, match='task=xnli_en: .* did you mean "xnli_es"'):
        load_task("xnli_en")
    with pytest.raises(UsageError, match="cannot be read"):
        load_task(str(tmp_path / "none.json"))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UsageError, match="bad.json: not JSON"):
        load_task(str(tmp_path / "bad.json"))


def test_a_split_may_be_written_otherwise():
    task = load_task("xnli_es")
    assert task.of_split("dev").columns["label"] == "gold_label"
    train = task.of_split("train")
    assert train.columns == {"text": "premise", "text_pair": "hypo", "label": "label"}
    assert train.filter == {} and task.filter == {"language": "es"}


def test_installed_tasks_come_first(tmp_path, monkeypatch):
    """In a wheel the recipes are electra_es/hparams."""
    inside = tmp_path / "electra_es" / "hparams" / "tasks"
    inside.mkdir(parents=True)
    monkeypatch.setattr(tasks.electra_es, "__file__", str(tmp_path / "electra_es" / "__init__.py"))
    assert tasks.tasks_dir() == str(inside)


def test_the_document_knows_every_task_setting_layout_and_metric():
    text = DOCUMENT.read_text(encoding="utf-8")
    first_cells = " ".join(line.split("|")[1] for line in text.split("\n") if line.startswith("|"))
    names = set(re.findall(r"`(\w+)`", first_cells))
    known = {item.name for item in dataclasses.fields(Task)} - {"name", "bundled"}
    known |= {name for table in (METRICS, LAYOUTS) for row in table.values() for name in row}
    assert names == known | set(SHIPPED)


def test_the_example_of_the_document_is_a_task(tmp_path):
    (example,) = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert load_task(write(tmp_path, **json.loads(example))).labels == ("bad", "good")
