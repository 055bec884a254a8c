"""`detect`: every form of a model gives the same scores, in three output formats."""

import json
import os
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from export_helpers import MAX_LENGTH, exports_dir, loaded, model_dir, sentences, write_model_dir
from paths import ROOT

from electra_es.detect.scoring import (
    ScoredSentence,
    ScoredToken,
    detect,
    load_detector,
    read_sentences,
    to_json,
    to_table,
    to_terminal,
)
from electra_es.errors import UsageError

ROSA = ScoredSentence("El pan rosa.", [
    ScoredToken("El", 0, 0, 2, -3.1, 0.0431), ScoredToken("pan", 1, 3, 6, -0.5, 0.3775),
    ScoredToken("ro", 2, 7, 9, 0.19, 0.5474), ScoredToken("##sa", 2, 9, 11, -12.345, 0.0),
    ScoredToken(".", 3, 11, 12, -4.4, 0.0121)], truncated=False)


@pytest.fixture(scope="module")
def exports():
    """The WordPiece model as a model directory, a SavedModel and a Hugging Face folder."""
    return [str(model_dir("wordpiece")), *(str(exports_dir() / name) for name in (
        "saved_model", "published", "published/discriminator"))]


def test_every_form_of_the_model_gives_the_same_scores(exports):
    batch = [*sentences()[:40], ""]  # more than one batch of the detector
    expected = detect(exports[0], batch)
    model, tokenizer, _ = loaded("wordpiece")
    inner = tokenizer.encode_batch(batch[:1])[0][:MAX_LENGTH - 2]
    ids = np.array([[tokenizer.cls_id, *inner, tokenizer.sep_id]])
    logits = model.discriminator_logits(ids, np.ones_like(ids), np.zeros_like(ids)).numpy()[0, 1:-1]
    np.testing.assert_allclose([t.logit for t in expected[0].tokens], logits, atol=1e-4)
    assert expected[40] == ScoredSentence("", [], False)
    for form in exports[1:]:
        found = detect(form, batch)
        assert [s.text for s in found] == [s.text for s in expected]
        for one, other in zip(found, expected, strict=True):
            assert [t[:4] for t in one.tokens] == [t[:4] for t in other.tokens]
            np.testing.assert_allclose([t.logit for t in one.tokens],
                                       [t.logit for t in other.tokens], atol=1e-4)


def test_offsets_count_characters_and_long_sentences_say_that_they_were_cut(exports):
    scored = detect(exports[0], ["«Ñandú»: sí\ud800.", "ñ " * 100])
    assert [scored[0].text[t.start:t.end] for t in scored[0].tokens if t.token != "[UNK]"] == [
        t.token.removeprefix("##") for t in scored[0].tokens if t.token != "[UNK]"]
    assert "".join(scored[0].text[t.start:t.end] for t in scored[0].tokens) == "«Ñandú»:sí."
    assert [len(s.tokens) for s in scored][1] == MAX_LENGTH - 2
    assert [s.truncated for s in scored] == [False, True]


def test_offsets_are_those_of_the_line_as_it_was_given(exports):
    """Whatever its normal form, and whatever the normalisation drops or adds."""
    composed = "Mañana volverá  el\u00a0pingüino."
    given = unicodedata.normalize("NFD", composed).replace("volver", "vol\u200bver") + "\t¡Sí!"
    for form in exports:
        (found,) = detect(form, [given])
        assert found.text == given
        covered = [unicodedata.normalize("NFC", given[t.start:t.end]).replace("\u200b", "")
                   for t in found.tokens]
        known = [(t.token.removeprefix("##"), text) for t, text in zip(found.tokens, covered, strict=True)
                 if t.token != "[UNK]"]
        assert [token for token, _ in known] == [text for _, text in known] and len(known) > 4
        assert "".join(covered) == "Mañanavolveráelpingüino.¡Sí!"
    assert json.loads(to_json(detect(exports[0], ["sí\ud800."])))[0]["text"] == "sí\ufffd."


def test_table_has_a_line_a_token():
    assert to_table([ROSA, ROSA]).splitlines()[:4] == [
        "sentence\tword\ttoken\tstart\tend\tlogit\tprobability",
        "1\t0\tEl\t0\t2\t-3.1000\t0.0431", "1\t1\tpan\t3\t6\t-0.5000\t0.3775",
        "1\t2\tro\t7\t9\t0.1900\t0.5474"]
    assert to_table([ROSA, ROSA]).splitlines()[-1].startswith("2\t3\t.\t")


def test_json_can_be_read_back():
    values = json.loads(to_json([ROSA]))
    assert values[0]["text"] == "El pan rosa." and values[0]["truncated"] is False
    assert [ScoredToken(**token) for token in values[0]["tokens"]] == ROSA.tokens


def test_terminal_aligns_scores_below_tokens_and_keeps_words_whole():
    assert to_terminal([ROSA], 80, colour=False).splitlines() == [
        "El     pan    ro   ##sa    .",
        "-3.10  -0.50  0.19 -12.35  -4.40"]
    assert to_terminal([ROSA], 24, colour=False).splitlines() == [
        "El     pan", "-3.10  -0.50", "", "ro   ##sa    .", "0.19 -12.35  -4.40"]
    cut = to_terminal([ROSA._replace(truncated=True)], 80, colour=False)
    assert cut.splitlines()[-1].startswith("(the end of this sentence was left out")


def test_terminal_paints_by_probability():
    painted = to_terminal([ROSA], 80, colour=True).splitlines()
    assert painted[0] == ("El     \033[33mpan\033[0m    \033[1;31mro\033[0m   ##sa    .")
    assert painted[1] == "-3.10  -0.50  0.19 -12.35  -4.40"


def test_sentences_of_a_file(tmp_path):
    path = tmp_path / "frases.txt"
    path.write_text("Uno.\r\n\n  Dos ñ.\u2028Sigue.\n", encoding="utf-8")
    assert read_sentences(str(path)) == ["Uno.", "Dos ñ.\u2028Sigue."]
    path.write_bytes(b"Uno.\nA\xf1o.\n")
    with pytest.raises(UsageError, match=r"frases.txt:2: byte 1 of the line is not UTF-8"):
        read_sentences(str(path))
    with pytest.raises(UsageError, match="cannot be read"):
        read_sentences(str(tmp_path / "none.txt"))


def test_what_is_no_detector_is_one_clear_line(tmp_path):
    with pytest.raises(UsageError, match="--model=.*: expected a model directory, a SavedModel, a "):
        load_detector(str(tmp_path))
    write_model_dir(tmp_path / "mlm", "wordpiece", objective="mlm")
    with pytest.raises(UsageError, match="objective=mlm has no discriminator"):
        load_detector(str(tmp_path / "mlm"))


def run_detect(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "electra_es.detect", *arguments], cwd=ROOT,
                          capture_output=True, text=True,
                          env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})


def test_command_prints_a_table_when_piped(exports):
    result = run_detect(f"--model={exports[0]}", "El pan rosa.", "Sí.")
    assert result.returncode == 0, result.stderr
    assert result.stdout == to_table(detect(exports[0], ["El pan rosa.", "Sí."])) + "\n"


def test_wrong_use_ends_with_2_and_one_line():
    result = run_detect("--modle=x", "Sí.")
    assert result.returncode == 2 and result.stdout == ""
    assert "modle" in result.stderr and "Did you mean" in result.stderr
    assert len(result.stderr.splitlines()) == 1
