"""Words and texts to pieces: labels at first pieces, windows, truncation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_es.config import TextConfig
from electra_es.finetuning.alignment import (
    collect_words,
    tagging_features,
    text_features,
    truncated,
    word_windows,
)
from electra_es.finetuning.examples import TaggingExample, TextExample
from electra_es.finetuning.features import NONE
from electra_es.finetuning.readers import read_split
from electra_es.finetuning.tasks import load_task
from electra_es.text.tokenizer import load_tokenizer, make_tokenizer

LABELS = {"A": 0, "B": 1, "C": 2}


@pytest.fixture(scope="module")
def tokenizer(vocab_dir):
    """Letters, "casa" and "##ción"."""
    return load_tokenizer(vocab_dir)


def pieces(tokenizer, ids) -> str:
    return " ".join(tokenizer.vocab[i] for i in ids)


def test_label_at_the_first_piece(tokenizer):
    example = TaggingExample(("casa", "en", "nación"), ("A", "B", "C"))
    (found,) = tagging_features(tokenizer, [example], LABELS, 20)
    assert pieces(tokenizer, found.input_ids) == "[CLS] casa e ##n n ##a ##ción [SEP]"
    assert found.labels.tolist() == [NONE, 0, 1, NONE, 2, NONE, NONE, NONE]
    assert found.words.tolist() == [NONE, 0, 1, NONE, 2, NONE, NONE, NONE]
    assert found.segment_ids.tolist() == [0] * 8 and len(found) == 8
    assert {a.dtype for a in (found.input_ids, found.segment_ids, found.labels, found.words)} == {
        np.dtype(np.int32)}


@pytest.mark.parametrize("word", ["\u200b", "\ufffd", "\u00a0", "\ud800", "\x00"])
def test_a_word_that_normalisation_empties_keeps_its_label(tokenizer, word):
    example = TaggingExample(("casa", word, "casa"), ("A", "B", "C"))
    (found,) = tagging_features(tokenizer, [example], LABELS, 20)
    assert pieces(tokenizer, found.input_ids) == "[CLS] casa [UNK] casa [SEP]"
    assert found.labels.tolist() == [NONE, 0, 1, 2, NONE]
    (words,) = collect_words([example], [found], [found.labels])
    assert words.tolist() == [0, 1, 2]


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=60), budget=st.integers(9, 23))
@settings(deadline=None)
def test_windows_own_each_word_once(lengths, budget):
    windows = word_windows(lengths, budget)
    owned = [word for _, _, first, end in windows for word in range(first, end)]
    assert owned == list(range(len(lengths)))
    for first, end, own_first, own_end in windows:
        assert first <= own_first < own_end <= end
        assert sum(lengths[first:end]) <= budget
    if sum(lengths) <= budget:
        assert len(windows) == 1


def test_windows_overlap_and_words_are_taken_from_the_middle():
    windows = word_windows([1] * 20, 8)
    assert windows == [(0, 8, 0, 7), (6, 14, 7, 13), (12, 20, 13, 20)]


def test_a_long_sentence(tokenizer):
    draws = np.random.default_rng(3)
    words = tuple("".join(draws.choice(list("abc"), draws.integers(1, 6))) for _ in range(300))
    labels = tuple(draws.choice(list("ABC"), 300).tolist())
    examples = [TaggingExample(("casa",), ("B",)), TaggingExample(words, labels)]
    features = tagging_features(tokenizer, examples, LABELS, 33)
    assert len(features) > 20 and max(map(len, features)) <= 33
    assert [f.example for f in features] == [0] + [1] * (len(features) - 1)
    order = draws.permutation(len(features))
    found = collect_words(examples, [features[i] for i in order], [features[i].labels for i in order])
    assert [len(row) for row in found] == [1, 300]
    assert ["ABC"[i] for i in found[1]] == list(labels)
    assert sum(int((f.labels != NONE).sum()) for f in features) == 301


def test_predictions_may_be_padded_and_have_more_dimensions(tokenizer):
    example = TaggingExample(("casa", "en"), ("A", "B"))
    (feature,) = tagging_features(tokenizer, [example], LABELS, 20)
    logits = np.arange(11 * 3, dtype=np.float32).reshape(11, 3)
    (found,) = collect_words([example], [feature], [logits])
    assert found.tolist() == logits[[1, 2]].tolist()


def test_a_word_without_prediction_is_no_accident(tokenizer):
    example = TaggingExample(("casa", "en"), ("A", "B"))
    (feature,) = tagging_features(tokenizer, [example], LABELS, 20)
    with pytest.raises(ValueError, match="example 0: word 0 has 0 predictions"):
        collect_words([example], [], [])
    with pytest.raises(ValueError, match="example 0: word 0 has 2 predictions"):
        collect_words([example], [feature] * 2, [feature.labels] * 2)


def test_a_word_longer_than_a_window(tokenizer):
    example = TaggingExample(("casa", "a" * 50, "en"), ("A", "B", "C"))
    features = tagging_features(tokenizer, [example], LABELS, 12)
    assert max(map(len, features)) == 12
    (found,) = collect_words([example], features, [f.labels for f in features])
    assert found.tolist() == [0, 1, 2]


def test_the_sentence_of_1238_words_has_1238_predictions(shared_dir):
    vocab = (shared_dir / "data/selectra_vocab.txt").read_bytes()
    tokenizer = make_tokenizer(vocab, TextConfig())
    task = load_task("conll2002_ner")
    split = read_split(task, "train", str(shared_dir / "data/tasks/conll2002/pos_ner"))
    (example,) = [e for e in split.examples if len(e.words) == 1238]
    features = tagging_features(tokenizer, [example], task.label_ids, 128)
    assert len(features) > 10 and max(map(len, features)) <= 128
    (found,) = collect_words([example], features, [f.labels for f in features])
    assert [task.labels[i] for i in found] == list(example.labels) and len(found) == 1238


# Texts

def test_one_text_and_two(tokenizer):
    one, two = (text_features(tokenizer, [TextExample(texts, "B")], LABELS, 12)[0]
                for texts in (("casa en",), ("casa en", "nación")))
    assert pieces(tokenizer, one.input_ids) == "[CLS] casa e ##n [SEP]"
    assert one.segment_ids.tolist() == [0] * 5
    assert pieces(tokenizer, two.input_ids) == "[CLS] casa e ##n [SEP] n ##a ##ción [SEP]"
    assert two.segment_ids.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert two.labels.shape == () and two.labels.dtype == np.int32 and two.labels == 1


def test_scores(tokenizer):
    (found,) = text_features(tokenizer, [TextExample(("casa", "en"), 3.4)], None, 12)
    assert found.labels.dtype == np.float32 and found.labels == np.float32(3.4)


def test_the_longer_text_loses_its_end(tokenizer):
    (found,) = text_features(tokenizer, [TextExample(("abcdefgh", "xyz"), "A")], LABELS, 10)
    assert pieces(tokenizer, found.input_ids) == "[CLS] a ##b ##c ##d [SEP] x ##y ##z [SEP]"
    assert len(text_features(tokenizer, [TextExample(("a" * 90,), "A")], LABELS, 11)[0]) == 11


@given(lengths=st.lists(st.integers(0, 40), min_size=2, max_size=2), budget=st.integers(2, 50))
def test_truncation_is_that_of_bert(lengths, budget):
    a, b = lengths
    while a + b > budget:
        if a > b:
            a -= 1
        else:
            b -= 1
    assert truncated(lengths, budget) == [a, b]


def test_truncation_is_that_of_transformers(tokenizer, vocab_dir):
    """Where an even number of pieces fits; of an odd one, it may give the last to the second text."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertTokenizer(vocab=f"{vocab_dir}/vocab.txt", do_lower_case=False,
                                        strip_accents=False)
    draws = np.random.default_rng(5)
    for _ in range(20):
        texts = tuple(" ".join("".join(draws.choice(list("abcño"), 3))
                               for _ in range(draws.integers(1, 9))) for _ in range(2))
        ours = text_features(tokenizer, [TextExample(texts, "A")], LABELS, 25)[0]
        expected = theirs(*texts, truncation="longest_first", max_length=25)
        assert ours.input_ids.tolist() == expected["input_ids"]
        assert ours.segment_ids.tolist() == expected["token_type_ids"]


def test_a_text_of_which_nothing_is_left(tokenizer):
    (found,) = text_features(tokenizer, [TextExample(("\u200b", "casa"), "A")], LABELS, 10)
    assert pieces(tokenizer, found.input_ids) == "[CLS] [UNK] [SEP] casa [SEP]"


def test_many_texts_keep_their_order(tokenizer, monkeypatch):
    monkeypatch.setattr("electra_es.finetuning.alignment._TEXTS_A_CALL", 3)
    monkeypatch.setattr("electra_es.finetuning.alignment._WORDS_A_CALL", 2)
    letters = "abcdefgh"
    found = text_features(tokenizer, [TextExample((c,), "A") for c in letters], LABELS, 10)
    assert [f.example for f in found] == list(range(8))
    assert [tokenizer.vocab[f.input_ids[1]] for f in found] == list(letters)
    sentence = TaggingExample(tuple(letters), ("A",) * 8)
    (row,) = tagging_features(tokenizer, [sentence], LABELS, 10)
    assert pieces(tokenizer, row.input_ids[1:-1]) == " ".join(letters)
