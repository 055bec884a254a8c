"""The scores are those of transformers' pipeline, on the folder that our exporter writes."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import transformers
from zero_shot_helpers import CLASSES, LENGTH, model_dir, published, texts

from electra_es.errors import UsageError
from electra_es.finetuning.saved import load_finetuned
from electra_es.zero_shot.classifier import ZeroShotClassifier, load_classifier, scores
from electra_es.zero_shot.page import MAX_LABELS, answer

LABELS = ["cultura", "sociedad", "economía", "salud, y no poca", "deportes"]


@pytest.fixture(scope="module")
def classifier():
    return load_classifier(model_dir(), batch_size=7)


def pipeline(folder):
    return transformers.pipeline("zero-shot-classification", model=str(folder))


def assert_the_same(ours, theirs):
    """The same texts, labels and scores; labels may change places where scores are that close."""
    assert [result.sequence for result in ours] == [result["sequence"] for result in theirs]
    for one, other in zip(ours, theirs, strict=True):
        by_label = dict(zip(other["labels"], other["scores"], strict=True))
        np.testing.assert_allclose(one.scores, [by_label[label] for label in one.labels], atol=1e-5)
        np.testing.assert_allclose(one.scores, other["scores"], atol=1e-5)
        assert one.scores == sorted(one.scores, reverse=True)


@pytest.mark.parametrize("multi_label", [False, True])
def test_50_texts_and_5_labels_score_as_in_transformers(classifier, multi_label):
    ours = classifier(texts(), LABELS, multi_label=multi_label)
    theirs = pipeline(published())(texts(), candidate_labels=LABELS, multi_label=multi_label,
                                   hypothesis_template="Este ejemplo es {}.")
    assert len(ours) == 50
    assert_the_same(ours, theirs)
    rows = [[score for _, score in sorted(zip(*result[1:], strict=True))] for result in ours]
    assert min(np.std(rows, axis=0)) > 5e-4, "too alike for a comparison to mean much"
    lengths = [len(ids) for ids in load_finetuned(model_dir()).tokenizer.encode_batch(texts())]
    assert max(lengths) > LENGTH > min(lengths)  # some are cut, as only_first does


@pytest.mark.parametrize("classes", [
    ("contradiction", "neutral", "entailment"), ("neutral", "ENTAILMENT", "contradiction"),
    ("no", "Entailed", "entailment"), ("not_entailment", "entails", "other")])
@pytest.mark.parametrize("labels, multi_label", [
    (LABELS[:2], True), (LABELS[:1], False), (LABELS, False)])
def test_classes_in_any_order_are_taken_as_transformers_takes_them(
        tmp_path, classes, labels, multi_label):
    folder = shutil.copytree(published(), tmp_path / "published")
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": dict(enumerate(classes)),
               "label2id": {name: i for i, name in enumerate(classes)}}
    (folder / "config.json").write_text(json.dumps(config))
    finetuned = load_finetuned(model_dir())
    ours = ZeroShotClassifier(
        finetuned._replace(task=dataclasses.replace(finetuned.task, labels=classes)), "model")
    template = "Trata de {}, o no."
    assert_the_same(
        ours(texts()[:6], labels, template=template, multi_label=multi_label),
        pipeline(folder)(texts()[:6], candidate_labels=labels, hypothesis_template=template,
                         multi_label=multi_label))


def test_a_class_that_is_not_compared_is_told(capsys):
    finetuned = load_finetuned(model_dir())
    classes = ("neutral", "entailment", "contradiction")
    ZeroShotClassifier(
        finetuned._replace(task=dataclasses.replace(finetuned.task, labels=classes)), "--model=x")
    message, = capsys.readouterr().err.splitlines()
    assert message.startswith("warning: --model=x: ") and message.endswith(
        'against the class "neutral", as transformers does, and not against "contradiction"')
    ZeroShotClassifier(finetuned, "--model=x")
    assert capsys.readouterr().err == ""


def test_the_model_has_to_be_one_of_inference():
    finetuned = load_finetuned(model_dir())
    task = dataclasses.replace(finetuned.task, labels=("si", "no", "tal vez"))
    with pytest.raises(UsageError, match='^--model=x: classes si, no, tal vez: expected one whose name '
                                         'begins with "entail"$'):
        ZeroShotClassifier(finetuned._replace(task=task), "--model=x")
    with pytest.raises(UsageError, match="^--zero=.*: fine-tuned for tiny_inference: expected a task"):
        load_classifier(model_dir(pair=False), flag="--zero")
    with pytest.raises(UsageError, match=r"expected a fine-tuned model"):
        load_classifier(str(published()))


def test_texts_and_hypotheses_become_tokens_once_each(classifier, monkeypatch):
    encoded = []
    tokenizer = classifier._tokenizer

    class Counting:
        cls_id, sep_id = tokenizer.cls_id, tokenizer.sep_id

        def encode_batch(self, some):
            encoded.extend(some)
            return tokenizer.encode_batch(some)

    monkeypatch.setattr(classifier, "_tokenizer", Counting())
    classifier(texts()[:9], LABELS[:4], template="Es {}")
    assert sorted(encoded) == sorted([*texts()[:9], *(f"Es {label}" for label in LABELS[:4])])


def test_neither_company_nor_batch_size_changes_a_score(classifier):
    together = classifier(texts()[:9], LABELS)
    single = load_classifier(model_dir(), batch_size=1)
    alone = [single([text], LABELS)[0] for text in texts()[:9]]
    for one, other in zip(together, alone, strict=True):
        assert one.labels == other.labels
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)


def test_scores_of_large_logits_are_numbers():
    logits = np.array([[[900.0, 0.0, 100.0], [899.0, 0.0, 899.0]]], np.float32)
    np.testing.assert_allclose(scores(logits, 0, 2, multi_label=False), [[0.731059, 0.268941]], atol=1e-6)
    np.testing.assert_allclose(scores(logits, 0, 2, multi_label=True), [[1.0, 0.5]])


@pytest.mark.parametrize("given, labels, template, message", [
    (["Hola.", " \u200b"], ["a"], "Es {}", "text 2 is empty: expected words"),
    (["Hola."], [], "Es {}", "--labels: expected one or more labels"),
    (["Hola."], ["a", " "], "Es {}", "--labels: label 2 is empty"),
    (["Hola."], ["a", " a"], "Es {}", '--labels: "a" is there twice'),
    (["Hola."], ["a"], "Es {0}", '--template="Es {0}": expected one {}'),
    (["Hola."], ["una " * 60], "Es {}", "tokens: expected at most 33, as the model reads 37")])
def test_what_is_refused(classifier, given, labels, template, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        classifier(given, labels, template=template)


def test_a_hypothesis_may_leave_one_token_for_the_text(classifier):
    tokenizer = classifier._tokenizer
    label = "a" * 100
    while len(tokenizer.encode_batch([label])[0]) > LENGTH - 4:
        label = label[:-1]
    assert len(tokenizer.encode_batch([label])[0]) == LENGTH - 4
    assert_the_same(classifier(texts()[:3], [label, "a"], template="{}"), pipeline(published())(
        texts()[:3], candidate_labels=[label, "a"], hypothesis_template="{}"))


REQUEST = {"text": "Uno.", "labels": 'a, "b, c"', "template": "Es {}", "multi_label": False}


def test_an_answer_for_the_page(classifier):
    found = answer(classifier, REQUEST)
    expected, = classifier(["Uno."], ["a", "b, c"], template="Es {}")
    assert found == {"labels": expected.labels, "scores": expected.scores, "multi_label": False}
    assert json.loads(json.dumps(found)) == found
    several = answer(classifier, {**REQUEST, "multi_label": True})
    assert sum(several["scores"]) != pytest.approx(1) == sum(found["scores"])


@pytest.mark.parametrize("changes, message", [
    ({"text": None}, "text: expected a text"), ({"multi_label": 1}, "multi_label: expected true or"),
    ({"labels": ["a"]}, "labels: expected a text"), ({"labels": ""}, "labels: label 1 is empty"),
    ({"labels": ",".join(map(str, range(MAX_LABELS + 1)))}, "65 labels: expected at most 64"),
    ({"template": "{0}"}, 'template="{0}": expected'), ({"text": " "}, "text 1 is empty")])
def test_a_request_that_is_refused(classifier, changes, message):
    with pytest.raises(UsageError) as error:
        answer(classifier, {**REQUEST, **changes})
    assert str(error.value).startswith(message)


def test_classes_of_the_helper_are_those_of_the_tasks():
    """inferes and xnli_es have them in this order."""
    from electra_es.finetuning.tasks import load_task

    assert {load_task(name).labels for name in ("inferes", "xnli_es")} == {CLASSES}
