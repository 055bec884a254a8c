"""The pairs of this project, and files of one's own."""

import collections
import re
import unicodedata

import pytest
from paths import ROOT

from electra_es.errors import UsageError
from electra_es.minimal_pairs.pairs import FOLDER, Span, load_pairs, parse_pair, span_of_word

PAIRS = load_pairs()
BY_PHENOMENON = collections.Counter(pair.phenomenon for pair in PAIRS)


def without_accents(text: str) -> str:
    """Without acute accents and diaereses; ñ stays."""
    return "".join(c for c in unicodedata.normalize("NFD", text) if c not in "\u0301\u0308")


def test_there_are_enough_pairs_of_each_phenomenon():
    assert set(BY_PHENOMENON) == {
        "accents", "agreement", "clitics", "determiners", "enye", "personal_a", "por_para",
        "prepositions", "ser_estar", "subject_verb", "subjunctive", "tense"}
    assert min(BY_PHENOMENON.values()) >= 50 and len(PAIRS) >= 600


def test_documents_say_how_many_there_are():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    low, high = min(BY_PHENOMENON.values()), max(BY_PHENOMENON.values())
    assert f"{len(PAIRS)} pairs" in readme
    assert f"{low} to {high} for each of {len(BY_PHENOMENON)}" in readme
    assert "CC0" in readme


def test_a_pair_differs_in_one_word():
    for pair in PAIRS:
        right, wrong = pair.right.split(" "), pair.wrong.split(" ")
        assert len(right) == len(wrong)
        differing = [i for i, words in enumerate(zip(right, wrong, strict=True)) if words[0] != words[1]]
        assert differing == [pair.place], pair
        assert pair.right_word in right[pair.place] and pair.wrong_word in wrong[pair.place]


def test_every_sentence_is_whole_and_in_normal_form():
    for pair in PAIRS:
        for text in (pair.right, pair.wrong):
            assert text == unicodedata.normalize("NFC", text) == " ".join(text.split())
            assert re.fullmatch(r"[A-ZÁÉÍÓÚÑa-záéíóúüñ0-9 ,.:¿?¡!]+", text), text
            first = re.search(r"\w", text)
            assert first and first[0].isupper() and text[-1] in ".?!", text


def test_no_sentence_occurs_twice():
    counts = collections.Counter(text for pair in PAIRS for text in (pair.right, pair.wrong))
    assert not [text for text, count in counts.items() if count > 1]


def test_frames_are_not_repeated():
    beginnings = collections.Counter(" ".join(pair.right.split()[:3]) for pair in PAIRS)
    assert max(beginnings.values()) <= 3


def test_pairs_of_accents_differ_in_accents_only():
    for pair in PAIRS:
        same = without_accents(pair.right) == without_accents(pair.wrong)
        assert same == (pair.phenomenon == "accents"), pair


def test_pairs_of_enye_differ_in_one_tilde():
    for pair in PAIRS:
        tildes = [unicodedata.normalize("NFD", word).count("\u0303")
                  for word in (pair.right_word, pair.wrong_word)]
        same = pair.right.replace("ñ", "n") == pair.wrong.replace("ñ", "n")
        assert same == (pair.phenomenon == "enye"), pair
        assert abs(tildes[0] - tildes[1]) == (1 if same else 0), pair


@pytest.mark.parametrize("line, right, wrong, place", [
    ("No sé [dónde|donde] está.", "No sé dónde está.", "No sé donde está.", 2),
    ("¿[Cómo|Como] estás?", "¿Cómo estás?", "¿Como estás?", 0),
    ("Vive allí, [solo|sola], mi tía.", "Vive allí, solo, mi tía.", "Vive allí, sola, mi tía.", 2),
    ("Un  an\u0303o [largo|larga]", "Un año largo", "Un año larga", 2)])
def test_a_line_is_a_pair(line, right, wrong, place):
    pair = parse_pair(line, "x")
    assert (pair.right, pair.wrong, pair.place) == (right, wrong, place)


@pytest.mark.parametrize("line", [
    "Sin corchetes.", "[Uno|Una] y [otro|otra].", "[igual|igual]", "[dos palabras|una]", "a[sí|si]",
    "[sí|si]lla", "[a|]", "[a|b|c]", "[.|,]", "[sí,|si]"])
def test_a_line_that_is_no_pair_is_one_message(line, tmp_path):
    path = tmp_path / "propios.txt"
    path.write_text(f"# mío\n\n{line}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(f"{path}:3: ") + r".*expected a sentence with one \["):
        load_pairs(str(path))


def test_own_pairs_from_a_file_and_from_a_folder(tmp_path):
    (tmp_path / "saludos.txt").write_text("[Buenos|Buenas] días.\n", encoding="utf-8")
    (tmp_path / "otros.txt").write_text("[Buenas|Buenos] noches.\n", encoding="utf-8")
    (tmp_path / "README.md").write_text("No pairs here.")
    pair, = load_pairs(str(tmp_path / "saludos.txt"))
    assert (pair.phenomenon, pair.right) == ("saludos", "Buenos días.")
    assert [pair.phenomenon for pair in load_pairs(str(tmp_path))] == ["otros", "saludos"]
    assert load_pairs(str(tmp_path), ["saludos"]) == [pair]


def test_what_is_not_there_is_one_message(tmp_path):
    with pytest.raises(UsageError, match=r'=acents: expected one of .*did you mean "accents"'):
        load_pairs("", ["acents"])
    (tmp_path / "nada.txt").write_text("# nothing\n")
    with pytest.raises(UsageError, match="no pairs: expected a sentence"):
        load_pairs(str(tmp_path / "nada.txt"))
    with pytest.raises(UsageError, match="no hay.txt"):
        load_pairs(str(tmp_path / "no hay.txt"))
    (tmp_path / "latin.txt").write_bytes("[Él|El] duerme.".encode("latin-1"))
    with pytest.raises(UsageError, match=r"latin.txt: byte 1 is not UTF-8"):
        load_pairs(str(tmp_path / "latin.txt"))


def test_a_word_is_found_without_its_punctuation():
    assert span_of_word("¿«Cómo», dijo?", 0) == Span(2, 6)
    assert span_of_word("¿«Cómo», dijo?", 1) == Span(9, 13)


def test_the_page_shows_every_phenomenon_with_a_pair_of_it():
    page = (ROOT / "docs" / "exam.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (.+) \|$", page, re.MULTILINE)
    assert {name: int(count) for name, count, _ in rows} == BY_PHENOMENON
    for name, _, line in rows:
        assert parse_pair(line.replace("\\|", "|"), name) in PAIRS
    assert f"asks it {len(PAIRS)} times" in page
