"""Normalisation and tokenisers, against the original's ids and Hugging Face's WordPiece."""

import hashlib
import json
import os
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import GOLDEN

from electra_es.config import SPECIAL_TOKENS, TextConfig
from electra_es.errors import UsageError
from electra_es.text import tokenizer as text
from electra_es.text import vocabulary

TOKENIZATION = json.loads((GOLDEN / "tokenization.json").read_text(encoding="utf-8"))
CASES = {case["description"]: case for case in TOKENIZATION["cases"]}

# The original never applies a normal form without stripping accents; ours always ends in NFC,
# so that a decomposed text gets the ids of the composed one.
NORMAL_FORM = {"accents NFD": "accents NFC", "enye upper NFD": "enye upper NFC"}
MODES = {name: mode for name, mode in TOKENIZATION["modes"].items()
         if name != "lower_false__strip_true"}  # the original does not strip cased text

# Characters whose category has been the same since Unicode 3.2: what differs between Python's,
# ICU's, RE2's and Rust's tables is left out, nothing else.
OLD = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000
       and unicodedata.ucd_3_2_0.category(chr(c)) == unicodedata.category(chr(c)) != "Cn"]
SPANISH = "aeiounñÑáéíóúüÁÉÍÓÚÜçIiİıßΣς \t\n\r\u00a0\u2028\u0300\u0301\u0303\u0308\u00ad\u200b,.¿¡«»—"


def make_tokenizer(directory, vocab, **config):
    (directory / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    vocabulary.save_text_config(directory, TextConfig(**config))
    return text.load_tokenizer(directory)


def golden_vocab():
    """The published vocabulary, with a stand-in for each piece that no golden case uses.

    The greedy longest match among the remaining pieces is the same wherever the file has ids.
    """
    vocab = [f"[unused{i}]" for i in range(TOKENIZATION["vocab"]["size_dict"])]
    for case in TOKENIZATION["cases"]:
        for mode in TOKENIZATION["modes"]:
            for piece, i in zip(case[mode]["tokens"], case[mode]["ids"], strict=True):
                vocab[i] = piece
    for piece, i in TOKENIZATION["vocab"]["special"].items():
        vocab[i] = piece
    return vocab


def reference(vocab, lower_case=False, strip_accents=False):
    """Hugging Face's normaliser and WordPiece, followed by NFC, which it lacks."""
    model = tokenizers.models.WordPiece(
        {piece: i for i, piece in enumerate(vocab)}, unk_token="[UNK]",
        max_input_chars_per_word=200)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.Sequence([
        tokenizers.normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=True, strip_accents=strip_accents,
            lowercase=lower_case),
        tokenizers.normalizers.NFC()])
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return lambda texts: [encoding.ids for encoding
                          in tokenizer.encode_batch(texts, add_special_tokens=False)]


@pytest.fixture(scope="module")
def character_vocab():
    """Every old character, at the start of a word and inside; wrong splits are noticed."""
    pieces = [c for c in OLD if not c.isspace() and unicodedata.category(c)[0] != "C"]
    return [*SPECIAL_TOKENS, *pieces, *("##" + piece for piece in pieces), "ción", "##ción"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory, character_vocab):
    return make_tokenizer(tmp_path_factory.mktemp("cased"), character_vocab)


@pytest.fixture(scope="module")
def stripping_tokenizer(tmp_path_factory, character_vocab):
    return make_tokenizer(tmp_path_factory.mktemp("stripped"), character_vocab,
                          strip_accents=True)


@pytest.mark.parametrize("mode", MODES)
def test_ids_equal_the_originals(mode, tmp_path):
    switches = MODES[mode]
    tokenizer = make_tokenizer(tmp_path, golden_vocab(), lower_case=switches["do_lower_case"],
                               strip_accents=switches["strip_accents"])
    actual = dict(zip(CASES, tokenizer.encode_batch([c["text"] for c in CASES.values()]),
                      strict=True))
    expected = {name: case[mode]["ids"] for name, case in CASES.items()}
    if not switches["strip_accents"]:
        expected |= {name: expected[same] for name, same in NORMAL_FORM.items()}
        pieces = ["[UNK]", "ñ", "##\u0303", "\u0301", "##su", "##elt", "##o"]  # ñ, no longer n + ~
        expected["stacked combining"] = [tokenizer.vocab.index(piece) for piece in pieces]
    assert {name: ids.tolist() for name, ids in actual.items()} == expected


def test_cased_text_without_accents_equals_hugging_face_on_the_golden_strings(tmp_path):
    vocab = golden_vocab()
    tokenizer = make_tokenizer(tmp_path, vocab, strip_accents=True)
    texts = [case["text"] for case in CASES.values()]
    actual = [ids.tolist() for ids in tokenizer.encode_batch(texts)]
    expected = reference(vocab, strip_accents=True)(texts)
    # Unassigned in Unicode 14, which the original drops as we do; Hugging Face's tables keep it.
    newer = list(CASES).index("private use and unassigned")
    expected[newer] = CASES["private use and unassigned"]["lower_false__strip_true"]["ids"]
    assert actual == expected


@pytest.fixture(scope="module")
def references(character_vocab):
    return {strip: reference(character_vocab, strip_accents=strip) for strip in (False, True)}


@pytest.mark.parametrize("strip_accents", [False, True])
def test_every_old_character_is_treated_as_by_hugging_face(
        tokenizer, stripping_tokenizer, references, strip_accents):
    ours = stripping_tokenizer if strip_accents else tokenizer
    texts = [f"a{c}b" for c in OLD]
    actual = ours.encode_batch(texts)
    expected = references[strip_accents](texts)
    different = {f"U+{ord(c):04X}" for c, a, e in zip(OLD, actual, expected, strict=True)
                 if a.tolist() != e}
    assert different == set()


def texts_like_spanish(alphabet=OLD):
    return st.text(st.one_of(st.sampled_from(SPANISH), st.sampled_from(alphabet)), max_size=40)


@settings(max_examples=300, deadline=None)
@given(value=texts_like_spanish(), strip_accents=st.booleans())
def test_any_text_equals_hugging_face(
        value, strip_accents, tokenizer, stripping_tokenizer, references):
    ours = stripping_tokenizer if strip_accents else tokenizer
    assert [ours.encode_batch([value])[0].tolist()] == references[strip_accents]([value])


def python_normalize(value, config):
    """The same rules again in plain Python, for characters on which all Unicode tables agree."""
    kept = "".join(" " if c in "\t\n\r" or unicodedata.category(c)[0] == "Z" else c
                   for c in value
                   if (unicodedata.category(c)[0] != "C" or c in "\t\n\r") and c != "\ufffd")
    if config.unicode_form == "NFKC":
        kept = unicodedata.normalize("NFKC", kept)
    if config.lower_case:
        kept = kept.lower()
    if config.strip_accents:
        kept = "".join(c for c in unicodedata.normalize("NFD", kept)
                       if unicodedata.category(c) != "Mn")
    return unicodedata.normalize(config.unicode_form, kept)


CONFIGS = [TextConfig(lower_case=lower, strip_accents=strip, unicode_form=form)
           for lower in (False, True) for strip in (False, True) for form in ("NFC", "NFKC")]


@pytest.fixture(scope="module")
def normalizers():
    return {config: text.WordPieceTokenizer(config, [*SPECIAL_TOKENS, "a"]) for config in CONFIGS}


@settings(max_examples=150, deadline=None)
@given(value=texts_like_spanish(), config=st.sampled_from(CONFIGS))
def test_normalisation_equals_the_rules_in_python_and_is_idempotent(value, config, normalizers):
    normalizer = normalizers[config]
    once = normalizer.normalize(tf.constant([value]))
    assert once[0].numpy().decode() == python_normalize(value, config)
    assert normalizer.normalize(once)[0].numpy() == once[0].numpy()


def test_lower_casing_is_pythons_for_every_old_character():
    normalizer = text.WordPieceTokenizer(TextConfig(lower_case=True), [*SPECIAL_TOKENS, "a"])
    kept = [c for c in OLD if unicodedata.category(c)[0] not in "CZ" and c != "\ufffd"]
    expected = [unicodedata.normalize("NFC", c.lower()) for c in kept]
    assert [t.decode() for t in normalizer.normalize(tf.constant(kept)).numpy()] == expected


@pytest.mark.parametrize("value, expected", [
    (b"caf\xe9 ol\xc3\xa9", "caf olé"),              # Latin-1 among UTF-8
    (b"a\xed\xa0\x80b\xf4\x90\x80\x80", "ab"),       # a surrogate; beyond U+10FFFF
    (b"\x00uno\x0bdos\x0ctres\xc2\x85", "unodostres"),
    ("n\u0303u\u0301\u200b\ufeff\ufffd".encode(), "ñú"),
    ("a\u2028b\u00a0c\r\n d".encode(), "a b c   d"),
])
def test_normalising_awkward_bytes(tokenizer, value, expected):
    assert tokenizer.normalize(tf.constant([value]))[0].numpy().decode() == expected


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_texts_that_normalisation_leaves_alone_are_found(tmp_path, form):
    """Every other text is normalised: with each character at the start, inside and before an accent."""
    tokenizer = make_tokenizer(tmp_path, [*SPECIAL_TOKENS, "a"], unicode_form=form)
    characters = [chr(c) for c in (*range(1, 0x3400), *range(0xA000, 0xAC10), *range(0xF900, 0x11000),
                                   0x1F600, 0xE0001, 0x10FFFF)]
    texts = ["a\u0301", "", *(shape.format(c) for c in characters
                               for shape in ("{}a", "áa{}ñ¿", "e{}\u0301"))]
    data = [value.encode() for value in texts]
    changed = np.flatnonzero(tokenizer.normalize(tf.constant(data)).numpy() != np.array(data, object))
    rows = tokenizer._rows_to_normalize(data)
    assert set(changed.tolist()) <= set(rows)
    assert tokenizer._rows_to_normalize(["¿Qué pasó, niña? «Así» — dijo.".encode()] * 3) == []


def test_special_tokens_in_text_stay_text(tmp_path):
    pieces = [*SPECIAL_TOKENS, "[", "]", "SEP", "MASK", "sep", "PAD", "CLS", "UNK", "el"]
    tokenizer = make_tokenizer(tmp_path, pieces)
    value = "el [SEP] [MASK] [PAD] [CLS] [UNK] el[SEP]"
    ids = tokenizer.encode_batch([value])[0]
    assert [tokenizer.vocab[i] for i in ids] == [
        "el", "[", "SEP", "]", "[", "MASK", "]", "[", "PAD", "]", "[", "CLS", "]", "[", "UNK", "]",
        "el", "[", "SEP", "]"]


def test_a_piece_with_a_space_does_not_reach_across_words(tmp_path):
    tokenizer = make_tokenizer(tmp_path, [*SPECIAL_TOKENS, "a", "a b", "b", "##b c", "c"])
    ids = tokenizer.encode_batch(["a b c"])[0]
    assert [tokenizer.vocab[i] for i in ids] == ["a", "b", "c"]


def test_words_over_200_bytes_are_unknown(tokenizer):
    a, more_a = tokenizer.vocab.index("a"), tokenizer.vocab.index("##a")
    e, more_e = tokenizer.vocab.index("é"), tokenizer.vocab.index("##é")
    ids = tokenizer.encode_batch(["a" * 200, "a" * 201, "é" * 100, "é" * 101])
    assert [i.tolist() for i in ids] == [
        [a] + [more_a] * 199, [tokenizer.unk_id], [e] + [more_e] * 99, [tokenizer.unk_id]]


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.text(st.one_of(st.sampled_from(SPANISH), st.characters()), max_size=30),
                       max_size=5))
def test_graph_eager_and_batches_give_the_same_ids(values, stripping_tokenizer):
    """With any Unicode text, including lone surrogates, which a tensor cannot hold."""
    graph = tf.function(stripping_tokenizer.tokenize, input_signature=[
        tf.TensorSpec([None], tf.string)], reduce_retracing=True)
    tensor = tf.constant([v.encode("utf-8", "ignore") for v in values], tf.string, [len(values)])
    eager = stripping_tokenizer.tokenize(tensor)
    assert eager.dtype == tf.int32
    batch = [ids.tolist() for ids in stripping_tokenizer.encode_batch(values)]
    assert eager.to_list() == graph(tensor).to_list() == batch


def test_offsets_are_bytes_of_the_normalised_text(stripping_tokenizer):
    value = "  Ñandú\u200b, acción—\u00a0cigüen\u0303a "
    normalized = stripping_tokenizer.normalize(tf.constant([value]))[0].numpy()
    assert normalized.decode() == "  Nandu, accion— ciguena "
    ids, starts, ends = stripping_tokenizer.tokenize_with_offsets(tf.constant([value]))
    slices = [normalized[s:e].decode() for s, e in zip(starts[0], ends[0], strict=True)]
    pieces = [stripping_tokenizer.vocab[i].removeprefix("##") for i in ids[0]]
    assert slices == pieces == list("Nandu,accion—ciguena")
    assert starts[0][-1].numpy() == len(normalized) - 2


def test_word_starts(tmp_path):
    vocab = ["##s", "[MASK]", "la", "[SEP]", "#", "##", "[CLS]", "##ña", "[UNK]", "[PAD]", "##no"]
    tokenizer = make_tokenizer(tmp_path, vocab)
    assert tokenizer.word_starts.tolist() == [
        False, True, True, True, True, True, True, False, True, True, False]
    assert (tokenizer.mask_id, tokenizer.sep_id, tokenizer.cls_id, tokenizer.unk_id,
            tokenizer.pad_id) == (1, 3, 6, 8, 9)  # any order


def test_saved_model_gives_the_same_ids(stripping_tokenizer, tmp_path):
    module = tf.Module()
    module.tokenizer = stripping_tokenizer

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def tokenize(texts):
        ids = stripping_tokenizer.tokenize(texts)
        return {"ids": ids.flat_values, "row_splits": ids.row_splits}

    module.tokenize = tokenize
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path)).tokenize(tf.constant(["Mañana, sí.", "", "ñ"]))
    expected = stripping_tokenizer.encode_batch(["Mañana, sí.", "", "ñ"])
    np.testing.assert_array_equal(loaded["ids"], np.concatenate(expected))
    np.testing.assert_array_equal(loaded["row_splits"], [0, 10, 10, 11])


def test_text_json_says_everything_and_comes_back(tmp_path):
    make_tokenizer(tmp_path, ["el", *SPECIAL_TOKENS, "##la"], strip_accents=True)
    values = json.loads((tmp_path / "text.json").read_text())
    data = b"el\n[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n##la\n"
    assert values.pop("vocab_sha256") == hashlib.sha256(data).hexdigest()
    assert values == {
        "tokenizer": "wordpiece", "lower_case": False, "strip_accents": True,
        "unicode_form": "NFC", "vocab_size": 7,
        "special_tokens": {"[PAD]": 1, "[UNK]": 2, "[CLS]": 3, "[SEP]": 4, "[MASK]": 5}}
    assert vocabulary.load_text_config(tmp_path).strip_accents
    assert sorted(os.listdir(tmp_path)) == ["text.json", "vocab.txt"]


@pytest.mark.parametrize("spoil, message", [
    (lambda d: (d / "text.json").unlink(), "text.json: no such file"),
    (lambda d: (d / "text.json").write_text("{"), "text.json: not JSON"),
    (lambda d: (d / "text.json").write_text("[]"), "text.json: expected a JSON object, not list"),
    (lambda d: edit(d, lowercase=True),
     'text.json: unknown setting "lowercase" of TextConfig; did you mean "lower_case"'),
    (lambda d: edit(d, lower_case="no"), "text.json: lower_case='no': expected a value of type"),
    (lambda d: edit(d, vocab_size=8), "text.json: vocab_size=8, but .*vocab.txt has 6"),
    (lambda d: edit(d, special_tokens={"[PAD]": 3}), r"text.json: special_tokens=\{'\[PAD\]': 3\}"),
    (lambda d: (d / "vocab.txt").unlink(), "vocab.txt: cannot be read"),
    (lambda d: (d / "vocab.txt").write_text("otra\n"), "vocab.txt: sha256 .* is not .*text.json"),
])
def test_a_spoilt_vocabulary_directory_is_one_line(tmp_path, spoil, message):
    make_tokenizer(tmp_path, [*SPECIAL_TOKENS, "el"])
    spoil(tmp_path)
    with pytest.raises(UsageError, match=message) as error:
        text.load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=message):
        vocabulary.load_text_config(tmp_path)


@pytest.mark.parametrize("data, message", [
    (b"[PAD]\n[UNK]\n[CLS]\nel\n", r"vocab.txt: special tokens missing: \[SEP\], \[MASK\]"),
    ("\n".join([*SPECIAL_TOKENS, "el", "la", "el"]).encode(), 'vocab.txt:8: "el" is on line 6'),
    (b"[PAD]\n\n[UNK]\n", "vocab.txt:2: empty line"),
    (b"[PAD]\n[UN\xf1]\n", "vocab.txt: byte 9 is not UTF-8"),
])
def test_a_bad_vocabulary_is_refused(tmp_path, data, message):
    (tmp_path / "vocab.txt").write_bytes(data)
    with pytest.raises(UsageError, match=message):
        vocabulary.save_text_config(tmp_path, TextConfig())
    assert os.listdir(tmp_path) == ["vocab.txt"]


def test_settings_that_contradict_the_vocabulary():
    config = TextConfig(strip_accents=True)
    given = {"strip_accents": True, "lower_case": False, "seed": 7}
    vocabulary.check_agrees(config, given, "v/text.json")
    with pytest.raises(UsageError, match=(
            "strip_accents=False contradicts strip_accents=True in v/text.json")):
        vocabulary.check_agrees(config, {"strip_accents": False}, "v/text.json")


def edit(directory, **changes):
    values = json.loads((directory / "text.json").read_text())
    (directory / "text.json").write_text(json.dumps(values | changes))


@pytest.mark.parametrize("strip_accents", [False, True])
def test_real_text_equals_hugging_face(shared_dir, tmp_path, strip_accents):
    vocab = (shared_dir / "data/selectra_vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    tokenizer = make_tokenizer(tmp_path, vocab, strip_accents=strip_accents)
    encode = reference(vocab, strip_accents=strip_accents)
    for path in sorted((shared_dir / "data/text").glob("*.txt")):
        with open(path, encoding="utf-8") as file:
            lines = file.read(200_000).split("\n")
        assert [ids.tolist() for ids in tokenizer.encode_batch(lines)] == encode(lines), path.name
