"""Labels, aliases and templates as a user writes them."""

import pytest

from electra_es.errors import UsageError
from electra_es.zero_shot.labels import hypotheses, parse_aliases, parse_labels


@pytest.mark.parametrize("given, expected", [
    (["a,b"], ["a", "b"]), (["a", "b , c"], ["a", "b", "c"]),
    (['"paz, guerra", salud'], ["paz, guerra", "salud"]), (['"dice ""sí"""'], ['dice "sí"']),
    ([' muy  grande ,"x"'], ["muy  grande", "x"]), (["{}", "[SEP]"], ["{}", "[SEP]"])])
def test_labels(given, expected):
    assert parse_labels(given) == expected


@pytest.mark.parametrize("given, message", [
    ([], "expected one or more labels"), ([""], "label 1 is empty"), (["a,,b"], "label 2 is empty"),
    (["a,"], "label 2 is empty"), (["a", " \u200b"], "label 2 is empty"), (["a,b", "a"], '"a" is there'),
    (['"a'], "expected texts between commas"), (['"a"b'], "expected texts between commas"),
    (["a\nb"], "expected texts between commas")])
def test_labels_that_are_refused_in_one_line(given, message):
    with pytest.raises(UsageError, match=message) as error:
        parse_labels(given)
    assert "\n" not in str(error.value) and str(error.value).startswith("--labels")


def test_hypotheses():
    assert hypotheses(["salud", "{0}", "a}"], "Es {}.") == ["Es salud.", "Es {0}.", "Es a}."]


@pytest.mark.parametrize("template", [
    "", "Sin hueco.", "{{}}", "Es {{}}.", "{0}", "{:}", "{!r}", "{} y {}", "{}{", "{a}", "{} {{a}}",
    "{", "}", "{{}} {}", "{ }"])
def test_templates_that_are_refused_in_one_line(template):
    with pytest.raises(UsageError) as error:
        hypotheses(["a"], template)
    assert str(error.value) == (f'--template="{template}": expected one {{}}, where the label goes, and '
                                "no other braces")


def test_aliases():
    assert parse_aliases([], ["a"]) == {}
    assert parse_aliases(["Sport=deporte,Deporte=deporte", '"x, y=z=salud"'], ["salud", "deporte"]) == {
        "Sport": "deporte", "Deporte": "deporte", "x, y=z": "salud"}


@pytest.mark.parametrize("given, message", [
    ("Sport", "expected name=label"), ("=salud", "expected name=label"),
    ("Sport=deportes", '"deportes" is none of --labels; did you mean "deporte"'),
    ("a=salud,a=deporte", '"a" stands for two labels')])
def test_aliases_that_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        parse_aliases([given], ["salud", "deporte"])
