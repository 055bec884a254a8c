"""Scores equal those of seqeval, scikit-learn, scipy and SQuAD's script, on random predictions too."""

import itertools
import re
import string
import warnings
from collections import Counter

import numpy as np
import pytest
import scipy.stats
import seqeval.metrics
import seqeval.scheme
import sklearn.metrics
from official.nlp.tools import squad_evaluate_v2_0

from electra_es.finetuning.examples import Question
from electra_es.finetuning.scoring import (
    best_null_threshold,
    correlation,
    entity_f1,
    is_constant,
    metric,
    score,
    squad_scores,
)
from electra_es.finetuning.tasks import METRICS, Task, load_task

IOB2 = ["O", *(f"{p}-{t}" for t in ("PER", "LOC") for p in "BI")]
IOBES = ["O", *(f"{p}-{t}" for t in ("PER", "LOC") for p in "BIES")]


def task(kind: str, **settings) -> Task:
    columns = {"tagging": {"word": 0, "label": 1}, "classification": {"text": 0, "label": 1},
               "regression": {"text": 0, "score": 1}, "question_answering": {}}[kind]
    labels = () if kind in ("regression", "question_answering") else ("a", "b", "c")
    return Task(**{"name": "t", "kind": kind, "columns": columns, "metric": METRICS[kind][0],
                   "layout": {"tagging": "conll", "question_answering": "squad"}.get(kind, "tsv"),
                   "labels": labels, **settings})


def random_tags(seed: int, tags: list[str]) -> tuple[list[list[str]], list[list[str]]]:
    draws = np.random.default_rng(seed)
    sizes = draws.integers(1, 12, 30)
    true, found = ([draws.choice(tags, n).tolist() for n in sizes] for _ in range(2))
    # Not all wrong.
    return true, [[t if draws.random() < 0.6 else f for t, f in zip(*rows, strict=True)]
                  for rows in zip(true, found, strict=True)]


# Entities, by hand

@pytest.mark.parametrize("true, found, lenient, strict", [
    (["B-PER", "I-PER", "O"], ["B-PER", "I-PER", "O"], 1.0, 1.0),
    (["B-PER", "I-PER", "O"], ["I-PER", "I-PER", "O"], 1.0, 0.0),
    (["B-PER", "I-PER", "O"], ["B-PER", "O", "O"], 0.0, 0.0),
    (["B-PER", "O", "B-LOC"], ["B-PER", "O", "B-PER"], 0.5, 0.5),
    (["B-PER", "O", "B-LOC"], ["O", "O", "O"], 0.0, 0.0),
    (["B-PER", "B-LOC", "O"], ["B-PER", "I-LOC", "O"], 1.0, 2 / 3),
])
def test_entities(true, found, lenient, strict):
    assert entity_f1([true], [found]) == pytest.approx(lenient)
    assert entity_f1([true], [found], scheme="IOB2") == pytest.approx(strict)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scheme, tags", [("IOB2", IOB2), ("IOBES", IOBES)])
def test_random_entities(seed, scheme, tags):
    true, found = random_tags(seed, tags)
    settings = task("tagging", labels=tuple(tags), scheme=scheme)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lenient = seqeval.metrics.f1_score(true, found)
        strict = seqeval.metrics.f1_score(true, found, mode="strict",
                                          scheme=getattr(seqeval.scheme, scheme))
    assert metric("entity_f1", settings, true, found) == lenient != strict
    assert metric("entity_f1_strict", settings, true, found) == strict
    assert lenient == pytest.approx(_entity_f1(true, found)), "against our own reading of the rules"


def _entity_f1(true, found) -> float:
    """Lenient entities as sets: neighbours of one type, cut before B- and S- and after E- and S-."""
    def entities(rows):
        for number, row in enumerate(rows):
            begin = kind = None
            for i, tag in enumerate([*row, "O"]):
                head, _, name = tag.partition("-")
                ended = begin is not None and (
                    head in "BSO" or name != kind or row[i - 1][0] in "ES")
                if ended:
                    yield number, begin, i, kind
                    begin = None
                if begin is None and head != "O":
                    begin, kind = i, name

    ours, theirs = set(entities(found)), set(entities(true))
    return 2 * len(ours & theirs) / (len(ours) + len(theirs))


def test_untyped_f1_is_not_accuracy():
    """ "NOUN NOUN" is one entity for seqeval: half right is all wrong."""
    true, found = [["NOUN", "NOUN", "VERB", "ADJ"]], [["NOUN", "ADJ", "VERB", "ADJ"]]
    settings = task("tagging", labels=("NOUN", "VERB", "ADJ"))
    assert metric("accuracy", settings, true, found) == 0.75
    assert metric("seqeval_f1_untyped", settings, true, found) == pytest.approx(4 / 7)


@pytest.mark.parametrize("seed", range(3))
def test_random_untyped(seed):
    tags = ["NOUN", "VERB", "INTJ", "SCONJ", "ADJ", "X"]
    true, found = random_tags(seed, tags)
    settings = task("tagging", labels=tuple(tags))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = seqeval.metrics.f1_score(true, found)
    assert metric("seqeval_f1_untyped", settings, true, found) == expected


def test_no_warnings_of_seqeval(recwarn):
    entity_f1([["NOUN"]], [["VERB"]])
    assert not recwarn.list


# Classes

@pytest.mark.parametrize("seed", range(4))
def test_random_classes(seed):
    draws = np.random.default_rng(seed)
    true, found = (draws.choice(["a", "b", "c"], 50, p=p).tolist()
                   for p in ([0.5, 0.4, 0.1], [0.3, 0.6, 0.1]))
    settings = task("classification")
    assert metric("accuracy", settings, true, found) == np.mean(np.array(true) == found)
    assert metric("macro_f1", settings, true, found) == sklearn.metrics.f1_score(
        true, found, average="macro")
    assert metric("mcc", settings, true, found) == sklearn.metrics.matthews_corrcoef(true, found)
    f1 = {c: sum(t == f == c for t, f in zip(true, found, strict=True))
          / (true.count(c) + found.count(c)) * 2 for c in "abc"}
    assert metric("macro_f1", settings, true, found) == pytest.approx(np.mean(list(f1.values())))


def test_binary_f1_is_that_of_the_second_class():
    settings = load_task("pawsx_es")
    true = ["paraphrase", "different", "paraphrase", "different", "paraphrase"]
    found = ["paraphrase", "paraphrase", "different", "different", "paraphrase"]
    assert metric("binary_f1", settings, true, found) == pytest.approx(2 / 3)
    assert metric("binary_f1", settings, true, ["different"] * 5) == 0.0


def test_tagging_counts_words():
    settings = task("tagging", metrics=("macro_f1",))
    true, found = [["a", "b"], ["c"]], [["a", "a"], ["c"]]
    assert score(settings, "dev", true, found) == {
        "dev/accuracy": 2 / 3, "dev/macro_f1": pytest.approx((2 / 3 + 0 + 1) / 3)}


# Scores

@pytest.mark.parametrize("seed", range(3))
def test_random_correlations(seed):
    draws = np.random.default_rng(seed)
    true = draws.uniform(0, 5, 40)
    found = (true + draws.normal(0, 1, 40)).tolist()
    pearson = np.corrcoef(true, found)[0, 1]
    assert correlation("pearson", true, found) == pytest.approx(pearson)
    assert correlation("pearson", true, found) == scipy.stats.pearsonr(true, found).statistic
    spearman = scipy.stats.spearmanr(true, found).statistic
    assert correlation("spearman", true, found) == spearman
    assert correlation("combined", true, found) == pytest.approx((pearson + spearman) / 2)


def test_constant_scores_correlate_with_nothing(recwarn):
    for name in METRICS["regression"]:
        assert correlation(name, [1.0, 2.0, 4.0], [3.0, 3.0, 3.0]) == 0.0
    assert not recwarn.list


# Answers

def question(id: str, *answers: str) -> Question:
    return Question(id, "¿?", "", tuple((text, 0) for text in answers), not answers)


@pytest.mark.parametrize("answer, found, exact, f1", [
    ("el niño", "el niño", 1, 1),
    ("el niño", "El Niño.", 1, 1),
    ("el niño", "niño", 0, 2 / 3),                   # "el" is no article for the script
    ("a Lima", "Lima", 1, 1),                        # but "a" is
    ("Lima", "¿Lima", 0, 0),                         # and "¿" is no punctuation
    ("the Beatles", "Beatles", 1, 1),
    ("dos mil euros", "mil dólares", 0, 0.4),
    ("uno", "", 0, 0),
])
def test_answers(answer, found, exact, f1):
    for unanswerable in (False, True):
        result = squad_scores([question("1", answer)], {"1": found}, unanswerable=unanswerable)
        assert result == {"exact_match": exact, "f1": pytest.approx(f1)}


def test_the_best_of_several_answers_counts():
    assert squad_scores([question("1", "uno", "el uno")], {"1": "el uno"},
                        unanswerable=False) == {"exact_match": 1.0, "f1": 1.0}


def test_answers_to_unanswerable_questions():
    asked = [question("1"), question("2"), question("3", "pan")]
    result = squad_scores(asked, {"1": "", "2": "pan", "3": "pan"}, unanswerable=True)
    assert result == {"exact_match": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3)}


def _f1(found: str, answer: str) -> float:
    def words(text):
        text = "".join(c for c in text.lower() if c not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", text).split()
    a, b = Counter(words(found)), Counter(words(answer))
    both = sum((a & b).values())
    return 2 * both / (sum(a.values()) + sum(b.values())) if both else 0.0


@pytest.mark.parametrize("seed", range(3))
def test_random_answers(seed):
    draws = np.random.default_rng(seed)
    vocabulary = ["el", "a", "the", "pan", "Lima", "rojo,", "sí", "¿qué"]
    text = lambda: " ".join(draws.choice(vocabulary, draws.integers(1, 5)))  # noqa: E731
    asked = [question(str(i), *(text() for _ in range(draws.integers(1, 4)))) for i in range(40)]
    found = {q.id: text() for q in asked}
    expected = np.mean([max(_f1(found[q.id], answer) for answer, _ in q.answers) for q in asked])
    assert squad_scores(asked, found, unanswerable=False)["f1"] == pytest.approx(expected)


@pytest.mark.parametrize("seed, digits", [(0, 2), (1, 2), (2, 9), (3, 9), (4, 9)])
def test_the_threshold_is_that_of_the_official_script(seed, digits):
    draws = np.random.default_rng(seed)
    asked = [question(str(i), *(["pan blanco"] if draws.random() < 0.5 else [])) for i in range(30)]
    found = {q.id: str(draws.choice(["pan", "pan blanco", "agua"])) for q in asked}
    # With two digits some are equal; all are above 0, which the script begins with.
    nulls = {q.id: round(float(draws.uniform(0.01, 0.99) if q.answers else
                               draws.uniform(0.3, 1.3)), digits) for q in asked}
    data = [{"paragraphs": [{"qas": [{"id": q.id, "answers": [{"text": t} for t, _ in q.answers]}
                                     for q in asked]}]}]
    official = squad_evaluate_v2_0.evaluate(data, found, nulls)
    threshold, f1 = best_null_threshold(asked, found, nulls)
    if digits == 9:
        assert (100 * f1, threshold) == (pytest.approx(official["final_f1"]),
                                         official["final_f1_thresh"])
    else:  # The script would tell equal ones apart.
        assert 100 * f1 <= official["final_f1"] + 1e-6
    kept = {id: "" if nulls[id] > threshold else text for id, text in found.items()}
    assert squad_scores(asked, kept, unanswerable=True)["f1"] == pytest.approx(f1)
    # The best of all thresholds that can be told apart.
    assert f1 == pytest.approx(max(squad_scores(
        asked, {id: "" if nulls[id] > t else text for id, text in found.items()},
        unanswerable=True)["f1"] for t in [-1.0, *nulls.values()]))


def test_never_answering_may_be_best():
    asked = [question("1"), question("2"), question("3", "pan")]
    found = {"1": "x", "2": "y", "3": "z"}
    nulls = {"1": -5.0, "2": 0.0, "3": 1.0}
    assert best_null_threshold(asked, found, nulls) == (-np.inf, pytest.approx(2 / 3))


# Names and marks

def test_the_split_is_part_of_every_name():
    settings = load_task("xnli_es")
    true = ["neutral", "entailment"]
    for split, found in itertools.product(("dev", "test"), (true, true[::-1])):
        result = score(settings, split, true, found)
        assert list(result) == [f"{split}/accuracy", f"{split}/macro_f1"]
        assert set(result.values()) == ({1.0} if found == true else {0.0})


def test_every_metric_of_every_kind_can_be_computed():
    data = {"tagging": [["B-A", "I-A"], ["O"]], "classification": ["a", "b"],
            "regression": [1.0, 2.0]}
    for kind, values in data.items():
        labels = ("O", "B-A", "I-A") if kind == "tagging" else ("a", "b")
        settings = task(kind, labels=() if kind == "regression" else labels, metrics=METRICS[kind],
                        scheme="IOB2" if kind == "tagging" else "none")
        assert set(score(settings, "test", values, values)) == {f"test/{m}" for m in METRICS[kind]}
    asked = [question("1", "pan")]
    assert score(task("question_answering", metrics=("f1",)), "test", asked, {"1": "pan"}) == {
        "test/exact_match": 1.0, "test/f1": 1.0}


def test_predictions_are_missing():
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        score(task("classification"), "dev", ["a", "b"], ["a"])
    with pytest.raises(ValueError, match=r"no prediction for question 2 \(1 in all\)"):
        squad_scores([question("1", "x"), question("2", "x")], {"1": "x"}, unanswerable=False)


@pytest.mark.parametrize("predictions, expected", [
    (["a", "a"], True), (["a", "b"], False), ([["O", "O"], ["O"]], True), ([["O"], ["B-X"]], False),
    ([2.5, 2.5], True), ([2.5, 2.6], False), ({"1": "", "2": ""}, True), ({"1": "", "2": "x"}, False),
    (np.array([1, 1]), True), ([np.array([0, 0]), np.array([0, 1])], False),
])
def test_one_class_only_is_noticed(predictions, expected):
    assert is_constant(predictions) is expected
