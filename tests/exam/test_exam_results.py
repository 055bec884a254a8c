"""Points, shares and intervals."""

import pytest
from scipy import stats

from electra_es.minimal_pairs.pairs import parse_pair
from electra_es.minimal_pairs.results import Preference, collect, score, summarise

PAIRS = [parse_pair("[Él|El] duerme.", "accents"), parse_pair("Es [tu|tú] casa.", "accents"),
         parse_pair("Un [año|ano] más.", "enye")]


@pytest.mark.parametrize("right, pairs", [(0, 54), (3, 54), (27, 54), (54, 54), (400, 653), (1, 1)])
def test_the_interval_is_wilsons(right, pairs):
    expected = stats.binomtest(right, pairs).proportion_ci(0.95, method="wilson")
    found = score(right, pairs)
    assert found.accuracy == right / pairs
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_a_tie_counts_one_half():
    assert [Preference(*values).points for values in ((-1, -2), (-2, -1), (-2, -2), (0, 0))] == [
        1, 0, 0.5, 0.5]


def test_results_by_phenomenon_and_over_all():
    result = summarise(collect(
        PAIRS, discriminator=[Preference(-1, -2), Preference(-3, -3), Preference(-5, -4)],
        generator=None, frequency=[Preference(-2, -1), Preference(-2, -1), Preference(-1, -2)]))
    found = result.to_json()
    assert list(found) == ["phenomena", "all"]
    assert [each["name"] for each in found["phenomena"]] == ["accents", "enye"]
    accents = found["phenomena"][0]
    assert list(accents) == ["name", "pairs", "discriminator", "generator", "frequency"]
    assert accents["pairs"] == 2 and accents["generator"] is None
    assert list(accents["discriminator"]) == ["right", "accuracy", "low", "high"]
    assert accents["discriminator"]["right"] == 1.5 and accents["frequency"]["accuracy"] == 0
    assert found["all"]["pairs"] == 3 and found["all"]["discriminator"]["accuracy"] == 0.5
    assert found["all"]["frequency"]["right"] == 1


def test_wrong_answers_begin_with_the_surest():
    result = summarise(collect(PAIRS, discriminator=[
        Preference(-3, -2.5), Preference(0, 0), Preference(-5, -4)]))
    assert [answer.pair for answer in result.wrong("discriminator")] == [PAIRS[2], PAIRS[0], PAIRS[1]]
    assert result.wrong("generator") == []
