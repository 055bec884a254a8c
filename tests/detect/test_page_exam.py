"""The exam as the page gets it: all pairs, with the scores that the points are made of."""

import json

import pytest
from export_helpers import model_dir
from paths import ROOT

from electra_es.exam.page import exam_of
from electra_es.minimal_pairs.pairs import load_pairs


def test_answers_are_those_of_the_shares():
    found = exam_of(str(model_dir("wordpiece")))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    pairs = load_pairs()
    assert found["step"] == 7 and found["all"]["pairs"] == len(pairs) == len(found["answers"])
    for pair, answer in zip(pairs, found["answers"], strict=True):
        assert answer["before"] + answer["right"] + answer["after"] == pair.right
        assert answer["before"] + answer["wrong"] + answer["after"] == pair.wrong
    for part in found["phenomena"]:
        for examinee in ("discriminator", "generator"):
            scores = [answer["scores"][examinee] for answer in found["answers"]
                      if answer["phenomenon"] == part["name"]]
            points = sum((right > wrong) + (right == wrong) / 2 for right, wrong in scores)
            assert points == pytest.approx(part[examinee]["right"]) and len(scores) == part["pairs"]


def test_every_phenomenon_has_a_spanish_name():
    script = (ROOT / "electra_es" / "detect" / "static" / "exam.js").read_text(encoding="utf-8")
    for name in {pair.phenomenon for pair in load_pairs()}:
        assert f"\n    {name}: \"" in script
