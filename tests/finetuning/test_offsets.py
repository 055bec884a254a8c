"""Where tokens stand in the text as it was given, for all settings of the normalisation."""

import functools
import io
import itertools
import unicodedata

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from electra_es.config import TextConfig
from electra_es.text.offsets import character_map, tokenize_in_place
from electra_es.text.tokenizer import load_tokenizer, make_tokenizer

LETTERS = "abcdefghinopqrstuvwxyzñéíóúü"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# Letters that are dropped, composed, decomposed, lengthened, made of several or made into several.
STRANGE = ["a", "e", "n", "ñ", "N", "É", "q", "İ", "ẞ", "Ω", "Σ", "\u0301", "\u0303", "\u0307", "\u0323",
           "\u0344", "\u1100", "\u1161", "\u11a8", "가", "각", "ﬁ", "ｶ", "ﾞ", "ー", "\u200b", "\u200d",
           "\ufffd", "\x00", " ", "\u00a0", "\t", "\u2003", "\u212b", "①", "½", "🙂", "東", "\ud800",
           "\u0e33", "\u1e69", "-", "'", "\ufb2c", "\u0958"]
CONFIGS = [TextConfig(lower_case=lower, strip_accents=strip, unicode_form=form)
           for lower, strip, form in itertools.product([False, True], [False, True], ["NFC", "NFKC"])]


@functools.cache
def tokenizer_of(config):
    pieces = [*SPECIAL, *LETTERS, *("##" + c for c in LETTERS), "##\u0303", "ni", "##ño", "niño", "-"]
    return make_tokenizer("\n".join(pieces).encode(), config)


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda c: f"{c.lower_case}-{c.strip_accents}-"
                                                              f"{c.unicode_form}")
def tokenizer(request):
    return tokenizer_of(request.param)


def normalized(tokenizer, text: str) -> str:
    data = tokenizer.normalize(tf.constant([text.encode("utf-8", "ignore")])).numpy()[0]
    # The letter that looks at where it stands in the word.
    return data.decode("utf-8").replace("ς", "σ")


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(parts=st.lists(st.sampled_from(STRANGE), max_size=14))
def test_a_span_is_what_the_token_was_made_of(tokenizer, parts):
    text = "".join(parts)
    (placed,) = tokenize_in_place(tokenizer, [text])
    (ids,) = tokenizer.encode_batch([text])
    assert placed.ids.tolist() == ids.tolist()
    whole = normalized(tokenizer, text)
    _, starts, ends = (part.to_list()[0] for part in tokenizer.tokenize_with_offsets(
        tf.constant([text.encode("utf-8", "ignore")])))
    for (first, last), start, end in zip(placed.spans.tolist(), starts, ends, strict=True):
        assert 0 <= first < last <= len(text)
        before, inside, after = (normalized(tokenizer, part) for part in (
            text[:first], text[first:last], text[last:]))
        # The cuts are places at which the text can be cut without changing what becomes of it ...
        assert before + inside + after == whole
        # ... and the token lies between them.
        assert len(before.encode()) <= start and end <= len((before + inside).encode())
        # Nothing that is dropped stands at an end of the span.
        assert all(text[i] in "\t" or (unicodedata.category(text[i])[0] != "C" and text[i] != "\ufffd")
                   for i in (first, last - 1))
    assert (np.diff(placed.spans, axis=0) >= 0).all()


@given(parts=st.lists(st.sampled_from("abñé -東🙂"), max_size=9))
@settings(max_examples=60, deadline=None)
def test_of_text_that_does_not_change_each_byte_has_its_character(parts):
    text = "".join(parts)
    first, last = character_map(tokenizer_of(TextConfig()), text)
    expected = [i for i, c in enumerate(text) for _ in c.encode()]
    assert first.tolist() == expected and last.tolist() == [i + 1 for i in expected]


@pytest.mark.parametrize("text, word, expected", [
    ("el nin\u0303o come", "niño", "nin\u0303o"),        # composed
    ("el ni\u200bño come", "niño", "ni\u200bño"),        # dropped inside
    ("\u200bniño\u200b", "niño", "niño"),                # dropped around it
    ("\ud800 niño", "niño", "niño"),                     # no UTF-8
])
def test_words(text, word, expected):
    tokenizer = tokenizer_of(TextConfig())
    (placed,) = tokenize_in_place(tokenizer, [text])
    (i,) = np.flatnonzero(placed.ids == tokenizer.vocab.index(word))
    start, end = placed.spans[i]
    assert text[start:end] == expected


def test_an_accent_that_is_stripped_belongs_to_its_letter():
    tokenizer = tokenizer_of(TextConfig(lower_case=True, strip_accents=True))
    (placed,) = tokenize_in_place(tokenizer, ["CAFE\u0301 İ"])
    assert placed.spans.tolist() == [[0, 1], [1, 2], [2, 3], [3, 5], [6, 7]]


def test_sentencepiece():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["el niño come una manzana", "la niña come pan", "año nuevo"] * 20),
        model_writer=model, vocab_size=45, model_type="bpe", pad_id=0, unk_id=1, bos_id=-1,
        eos_id=-1, pad_piece="[PAD]", unk_piece="[UNK]", control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        minloglevel=2, normalization_rule_name="identity")
    tokenizer = make_tokenizer(model.getvalue(), TextConfig(tokenizer="sentencepiece"))
    text = "la\u200b nin\u0303a come 東"
    (placed,) = tokenize_in_place(tokenizer, [text])
    assert placed.ids.tolist() == tokenizer.encode_batch([text])[0].tolist()
    found = [(tokenizer.vocab[i], text[start:end])
             for i, (start, end) in zip(placed.ids, placed.spans, strict=True)]
    assert ("▁come", " come") in found
    # Spans are whole and in order: only what is dropped lies between them.
    assert "".join(part for _, part in found).replace("\u200b", "") == text.replace("\u200b", "")


def test_empty():
    assert tokenize_in_place(tokenizer_of(TextConfig()), []) == []
    (placed,) = tokenize_in_place(tokenizer_of(TextConfig()), ["\u200b"])
    assert placed.ids.shape == (0,) and placed.spans.shape == (0, 2)


def test_the_sample_vocabulary_is_read(vocab_dir):
    tokenizer = load_tokenizer(vocab_dir)
    (placed,) = tokenize_in_place(tokenizer, ["casa pan"])
    assert placed.spans.tolist() == [[0, 4], [5, 6], [6, 7], [7, 8]]
