"""Windows over a context, labels of answers, and answers out of logits."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_es.finetuning.examples import Question
from electra_es.finetuning.features import NONE
from electra_es.finetuning.questions import (
    answer_pieces,
    find_answers,
    question_features,
    with_threshold,
)
from electra_es.text.tokenizer import load_tokenizer

CONTEXT = "la casa azul y la nacio\u0301n roja"  # decomposed: 31 characters


@pytest.fixture(scope="module")
def tokenizer(vocab_dir):
    return load_tokenizer(vocab_dir)


def ask(context=CONTEXT, answer="nacio\u0301n", id="q", question="que") -> Question:
    answers = () if answer is None else ((answer, context.index(answer)),)
    return Question(id, question, context, answers, answer is None)


def logits_for(features, question) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Those of a model that knows the labels."""
    starts, ends = [], []
    for feature in features:
        for rows, label in zip((starts, ends), feature.labels, strict=True):
            row = np.zeros(len(feature) + 3, np.float32)  # padded
            row[label] = 5 if label else 1
            rows.append(row)
    return starts, ends


def test_one_window(tokenizer):
    (found,) = question_features(tokenizer, [ask()], 40, stride=16, max_question_length=5)
    text = " ".join(tokenizer.vocab[i] for i in found.input_ids)
    assert text == ("[CLS] q ##u ##e [SEP] l ##a casa a ##z ##u ##l y l ##a n ##a ##ción r ##o ##j ##a "
                    "[SEP]")
    assert found.segment_ids.tolist() == [0] * 5 + [1] * 18
    assert found.spans[:5].tolist() == [[NONE, NONE]] * 5 and found.spans[-1].tolist() == [NONE, NONE]
    assert [CONTEXT[a:b] for a, b in found.spans[5:-1]] == [
        "l", "a", "casa", "a", "z", "u", "l", "y", "l", "a", "n", "a", "cio\u0301n", "r", "o", "j", "a"]
    assert found.labels.tolist() == [15, 17]
    assert found.max_context.tolist() == [False] * 5 + [True] * 17 + [False]


def test_windows_with_stride(tokenizer):
    question = ask()
    features = question_features(tokenizer, [question], 16, stride=6, max_question_length=7)
    # 17 pieces of context, 16 - 3 - 3 = 10 in a window.
    assert [len(f) for f in features] == [16, 16, 11]
    assert [f.labels.tolist() for f in features] == [[0, 0], [9, 11], [0, 0]]
    places = [tuple(span) for f in features for span in f.spans[f.max_context]]
    assert len(places) == len(set(places)) == 17
    # Piece 7 is 2 before the end of the first window and 1 after the start of the second.
    assert [int(f.max_context.sum()) for f in features] == [8, 6, 3]


@given(words=st.lists(st.text("abcd", min_size=1, max_size=7), min_size=1, max_size=40),
       first=st.integers(0, 39), size=st.integers(1, 4), room=st.integers(5, 30), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_answer_is_found_again(tokenizer, words, first, size, room, data):
    """A model that is right gives back the answer that the file has, character for character."""
    first %= len(words)
    joined = [data.draw(st.sampled_from([" ", "  ", "\u00a0", " \u200b"])) + w for w in words]
    context = "".join(joined)
    start = len("".join(joined[:first])) + len(joined[first]) - len(words[first])
    end = len("".join(joined[:first + size]))
    question = Question("q", "que", context, ((context[start:end], start),))
    features = question_features(tokenizer, [question], room + 9, stride=max(1, room // 2),
                                 max_question_length=6)
    answers = find_answers([question], features, *logits_for(features, question),
                           max_answer_length=40)
    if any(f.labels[0] for f in features if f.max_context[f.labels[0]]):
        assert answers["q"].text == context[start:end] and answers["q"].start == start
        assert answers["q"].null_difference < 0
    places = [tuple(span) for f in features for span in f.spans[f.max_context]]
    assert len(places) == len(set(places)) == len({
        tuple(span) for f in features for span in f.spans[f.spans[:, 0] != NONE]})


def test_answers_inside_of_a_piece():
    spans = np.array([[0, 2], [2, 6], [7, 9]])
    assert answer_pieces(spans, Question("q", "", "", (("x", 3),))) == (1, 1)
    assert answer_pieces(spans, Question("q", "", "", (("xxx", 5),))) == (1, 2)
    assert answer_pieces(spans, Question("q", "", "", (("x", 6),))) is None
    assert answer_pieces(spans, Question("q", "", "", (), True)) is None


def test_an_answer_is_neither_backwards_nor_too_long_nor_in_the_question(tokenizer):
    question = ask("abcdefgh", "b")
    (feature,) = question_features(tokenizer, [question], 30, stride=5, max_question_length=5)
    offset = 5
    start, end = np.zeros(len(feature)), np.zeros(len(feature))
    start[[0, 1, offset + 5]] = 9, 50, 8       # [CLS], the question, "f"
    end[[1, offset + 1, offset + 7, len(feature) - 1]] = 50, 9, 3, 70  # question, "b", "h", [SEP]
    found = find_answers([question], [feature], [start], [end], max_answer_length=3)["q"]
    assert (found.text, found.start, found.score) == ("fgh", 5, 11.0)
    assert found.null_difference == 9 + 0 - 11
    short = find_answers([question], [feature], [start], [end], max_answer_length=2)["q"]
    assert (short.text, short.score) == ("b", 9.0) or short.score == 9.0


def test_no_answer(tokenizer):
    question = ask(answer=None)
    features = question_features(tokenizer, [question], 16, stride=6, max_question_length=7)
    assert all(f.labels.tolist() == [0, 0] for f in features)
    starts = [np.zeros(len(f)) for f in features]
    for i, row in enumerate(starts):
        row[0] = 3 - i
    found = find_answers([question], features, starts, starts)
    # The least score of [CLS] over the windows, 1 + 1, against 0.
    assert found["q"].null_difference == 2.0
    assert with_threshold(found, 1.9) == {"q": ""}
    assert with_threshold(found, 2.0) == {"q": found["q"].text} != {"q": ""}


def test_a_context_of_which_nothing_is_left(tokenizer):
    question = Question("q", "que", "\u200b", (("\u200b", 0),))
    (feature,) = question_features(tokenizer, [question], 20, stride=4, max_question_length=5)
    assert len(feature) == 6 and feature.labels.tolist() == [0, 0]
    found = find_answers([question], [feature], [np.zeros(6)], [np.zeros(6)])
    assert found["q"].text == "" and with_threshold(found, 0.0) == {"q": ""}


def test_stride_that_would_lose_pieces(tokenizer):
    with pytest.raises(ValueError, match="stride=128: expected 1 to .* 61"):
        question_features(tokenizer, [ask()], 128)


def test_features_are_those_of_transformers(tokenizer, vocab_dir):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertTokenizer(vocab=f"{vocab_dir}/vocab.txt", do_lower_case=False,
                                        strip_accents=False)
    context = "la casa de ana en la costa del sur y la nación"
    question = ask(context, "la costa")
    ours = question_features(tokenizer, [question], 24, stride=8, max_question_length=6)
    # Their stride is what two windows share.
    expected = theirs(question.question, context, truncation="only_second", max_length=24,
                      stride=24 - 3 - 3 - 8, return_overflowing_tokens=True, return_offsets_mapping=True)
    assert [f.input_ids.tolist() for f in ours] == expected["input_ids"]
    for feature, offsets, kinds in zip(ours, expected["offset_mapping"], expected["token_type_ids"],
                                       strict=True):
        assert feature.spans[feature.spans[:, 0] != NONE].tolist() == [
            list(span) for span, kind in zip(offsets, kinds, strict=True) if kind][:-1]


def test_answers_can_be_written_as_json(tokenizer):
    question = ask()
    features = question_features(tokenizer, [question], 40, stride=16, max_question_length=5)
    found = find_answers([question], features, *logits_for(features, question))
    assert json.loads(json.dumps(found["q"]._asdict()))["text"] == "nacio\u0301n"
