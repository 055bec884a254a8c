"""The audit against hand-made vocabularies, brute force and the published vocabulary."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_prep import audit_vocabulary
from data_prep.words import counting
from electra_es.config import SPECIAL_TOKENS, TextConfig
from electra_es.data import records
from electra_es.errors import CheckFailed, UsageError
from electra_es.text import tokenizer as text
from electra_es.text import vocabulary
from electra_es.text.audit import audit, examples_by_class

TILDE = "\u0303"


def tokenizer_of(*pieces, **config):
    return text.WordPieceTokenizer(TextConfig(**config), [*SPECIAL_TOKENS, *pieces])


def found(report):
    return {name: list(pieces) for name, pieces in report.unreachable.items() if pieces}


def test_each_class_of_unreachable_entry():
    pieces = ["a", "n", "##a", "é", "##" + TILDE, "日", ".", "[unused7]",
              "n" + TILDE, "##n" + TILDE, "\u00ada",            # composed or dropped
              "a.b", "##.", "日本", "a b", "##", "##日",          # split
              "x" * 200, "y" * 201, "##" + "z" * 200]           # a word has 200 bytes
    assert found(audit(tokenizer_of(*pieces))) == {
        "changed_by_normalisation": ["n" + TILDE, "##n" + TILDE, "\u00ada"],
        "split_by_pretokenizer": ["a.b", "##.", "日本", "a b", "##", "##日"],
        "too_long": ["y" * 201, "##" + "z" * 200]}


def test_lower_casing_and_stripping_lose_what_they_change():
    pieces = ["a", "A", "é", "##ción", "##cion", "ñ", "ß", "다"]
    assert found(audit(tokenizer_of(*pieces))) == {}
    assert found(audit(tokenizer_of(*pieces, lower_case=True))) == {
        "changed_by_normalisation": ["A"]}
    report = audit(tokenizer_of(*pieces, strip_accents=True))
    assert found(report) == {"changed_by_normalisation": ["é", "##ción", "ñ"]}
    assert report.recomposed == ("다",)  # two letters after NFD
    assert report.summary() == (
        "vocabulary of 13: 3 entries unreachable (changed_by_normalisation 3; 3 with accents), "
        "4 in tools that strip accents without recomposing")


def test_a_continuation_without_any_beginning_is_never_the_longest_match():
    assert found(audit(tokenizer_of(".", "##a"))) == {"never_longest_match": ["##a"]}


ALPHABET = "abnñ." + TILDE
PIECES = ["".join(letters) for length in (1, 2, 3)
          for letters in itertools.product(ALPHABET, repeat=length)]


@settings(max_examples=150, deadline=None)
@example(initial={"a"}, continuing={"b", TILDE + "aa"}, strip_accents=False)
@example(initial={"a", "b", "ba"}, continuing={TILDE + "aa"}, strip_accents=False)
@given(initial=st.sets(st.sampled_from(PIECES[:40]), min_size=1, max_size=6),
       continuing=st.sets(st.sampled_from(PIECES), max_size=8), strip_accents=st.booleans())
def test_unreachable_is_what_brute_force_does_not_find(initial, continuing, strip_accents):
    """All texts of up to four pieces; any text that a piece needs before it is among them."""
    pieces = [*sorted(initial | {"n"}), *("##" + piece for piece in sorted(continuing))]
    tokenizer = tokenizer_of(*pieces, strip_accents=strip_accents)
    texts = ["".join(parts) for number in range(4) for parts in
             itertools.product(sorted(initial | {"n"}), *[sorted(continuing)] * number)]
    seen = set(np.concatenate(tokenizer.encode_batch(texts)).tolist())
    never = {piece for i, piece in enumerate(tokenizer.vocab[5:], start=5) if i not in seen}
    assert {p for pieces in audit(tokenizer).unreachable.values() for p in pieces} == never


def test_counts_tell_the_unseen_from_the_unreachable():
    tokenizer = tokenizer_of("a", "b", "c", "B", "##a", "[unused0]", lower_case=True)
    counts = np.array([0, 0, 9, 9, 0, 4, 0, 2, 0, 0, 0])
    report = audit(tokenizer, counts, min_count=3)
    assert found(report) == {"changed_by_normalisation": ["B"]}
    assert report.unseen == ("b", "c", "##a")
    assert (report.never_seen, report.reserved) == (2, 6)
    assert report.summary() == (
        "vocabulary of 11: 1 entries unreachable (changed_by_normalisation 1; 0 with accents), "
        "2 never seen, 3 seen fewer than 3 times")
    values = json.loads(report.to_json())
    assert values["unseen"] == ["b", "c", "##a"]
    assert values["unreachable"]["changed_by_normalisation"] == ["B"]
    assert values["num_unreachable_without_recomposing"] == 1
    assert examples_by_class(report, 2)[-1] == "seen fewer than 3 times: 3  b  c"
    with pytest.raises(ValueError, match="11 entries"):
        audit(tokenizer, counts[:-1])


def test_the_published_vocabulary_loses_7286_entries_without_accents(shared_dir):
    data = (shared_dir / "data/selectra_vocab.txt").read_bytes()
    vocab = vocabulary.parse_vocab(data, "wordpiece", "v")
    stripped = text.WordPieceTokenizer(TextConfig(strip_accents=True), vocab)
    report = audit(stripped)
    # Seven are not in NFC and lost anyway; four Hangul entries come back because ours recomposes.
    assert found(report).keys() == {"changed_by_normalisation"}
    assert (report.num_unreachable, report.num_accented) == (7282, 7281)
    assert sorted(report.recomposed) == ["##다", "##이", "다", "이"]
    assert json.loads(report.to_json())["num_unreachable_without_recomposing"] == 7286
    cased = audit(text.WordPieceTokenizer(TextConfig(), vocab))
    assert cased.num_unreachable == 7

    documents = (shared_dir / "data/text/wikipedia_parrafos_qa.txt").read_text(encoding="utf-8")
    seen = np.unique(np.concatenate(stripped.encode_batch(documents[:2_000_000].split("\n"))))
    lost = set(report.unreachable["changed_by_normalisation"])
    assert len(seen) > 10_000 and not lost.intersection(vocab[i] for i in seen)


@pytest.fixture
def vocab_dir(tmp_path):
    data = "\n".join([*SPECIAL_TOKENS, "a", "##n", "É"]).encode()
    vocabulary.save_vocabulary(tmp_path / "vocab", data, TextConfig(strip_accents=True))
    return tmp_path / "vocab"


def write_records(directory, config, counts):
    directory.mkdir()
    info = records.RecordsInfo(max_seq_length=8, examples={"train": []}, text=config)
    (directory / "info.json").write_text(info.to_json())
    np.save(directory / "id_counts.npy", counts)
    (directory / "COMPLETED").touch()


def test_counts_of_records_must_be_of_this_vocabulary(vocab_dir, tmp_path):
    tokenizer = text.load_tokenizer(vocab_dir)
    write_records(tmp_path / "good", tokenizer.config, np.arange(8))
    counts = audit_vocabulary.load_id_counts(str(tmp_path / "good"), tokenizer, str(vocab_dir))
    np.testing.assert_array_equal(counts, np.arange(8))
    write_records(tmp_path / "other", TextConfig(vocab_size=8, vocab_sha256="0"), np.arange(8))
    with pytest.raises(UsageError, match="other: was built with another vocabulary"):
        audit_vocabulary.load_id_counts(str(tmp_path / "other"), tokenizer, str(vocab_dir))
    write_records(tmp_path / "short", tokenizer.config, np.arange(7))
    with pytest.raises(UsageError, match=r"id_counts.npy: counts of shape \(7,\)"):
        audit_vocabulary.load_id_counts(str(tmp_path / "short"), tokenizer, str(vocab_dir))
    (tmp_path / "short/id_counts.npy").unlink()
    with pytest.raises(UsageError, match="id_counts.npy: expected the counts"):
        audit_vocabulary.load_id_counts(str(tmp_path / "short"), tokenizer, str(vocab_dir))


def test_thresholds():
    report = audit(tokenizer_of("a", "b", "A", lower_case=True), np.array([0] * 5 + [1, 0, 0]))
    audit_vocabulary.check_thresholds(report, 1, 1)
    audit_vocabulary.check_thresholds(report, 1, None)
    with pytest.raises(CheckFailed, match="1 entries are unreachable, --max_unreachable=0"):
        audit_vocabulary.check_thresholds(report, 0, 1)
    with pytest.raises(CheckFailed, match="1 entries are seen fewer than 1 times, --max_unseen=0"):
        audit_vocabulary.check_thresholds(report, 1, 0)


def test_the_command_ends_1_and_writes_its_report(vocab_dir, tmp_path):
    output = tmp_path / "audit.json"
    run = subprocess.run(
        [sys.executable, "-m", "data_prep.audit_vocabulary", f"--vocab_dir={vocab_dir}",
         f"--output={output}"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "changed_by_normalisation: 1  É" in run.stdout
    assert run.stderr.splitlines()[-1] == (
        "check failed: 1 entries are unreachable, --max_unreachable=0")
    assert json.loads(output.read_text())["unreachable"]["changed_by_normalisation"] == ["É"]


def test_words_that_were_counted_are_what_the_audit_calls_words():
    """If a vocabulary consists of the words of a text, the text uses every entry."""
    words = counting.count_words(["¿Qué ñandú? C3PO, a/b 日本 №5 «así»"], TextConfig())
    tokenizer = tokenizer_of(*sorted(words))
    assert found(audit(tokenizer)) == {}
    ids = tokenizer.encode_batch([" ".join(sorted(words))])[0]
    assert [tokenizer.vocab[i] for i in ids] == sorted(words)
