"""Word counts and the vocabularies made of them."""

import os
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from paths import ROOT

from data_prep import train_vocabulary
from data_prep.build import tasks as pipeline_tasks
from data_prep.corpus import listing
from data_prep.words import counting, measuring, wordpieces
from electra_es.config import SPECIAL_TOKENS, TextConfig
from electra_es.errors import UsageError
from electra_es.sample import TRAIN_GLOB, VALIDATION_GLOB
from electra_es.text import tokenizer as text
from electra_es.text import vocabulary
from electra_es.text.audit import audit

SMALL = 1_500


@pytest.fixture(scope="module")
def documents():
    tasks = pipeline_tasks.plan_tasks(listing.list_files(TRAIN_GLOB))
    return [document for task in tasks for document in counting.sampled_documents(task, 1.0)]


@pytest.fixture(scope="module")
def word_counts(documents):
    return counting.count_words(documents, TextConfig())


@pytest.mark.parametrize("config, expected", [
    (TextConfig(), {"¡": 1, "Así": 1, "!": 1, "Dice": 1, "así": 1, ":": 1, "«": 1, "»": 1, "a": 1,
                    "/": 1, "b": 2, "日": 1, "本": 1, "…": 1}),
    (TextConfig(lower_case=True, strip_accents=True),
     {"¡": 1, "asi": 2, "!": 1, "dice": 1, ":": 1, "«": 1, "»": 1, "a": 1, "/": 1, "b": 2, "日": 1,
      "本": 1, "…": 1}),
    (TextConfig(tokenizer="sentencepiece"),
     {"¡Así!": 1, "Dice": 1, "así:": 1, "«a/b»": 1, "日本…": 1, "b": 1}),
])
def test_words_counted_by_hand(config, expected):
    texts = ["¡Asi\u0301!\u00a0Dice\u200b\tasí: «a/b»\r\n日本…", "b ▁b " + "z" * 201]
    assert counting.count_words(texts, config) == expected


def test_counts_of_files_do_not_depend_on_engine_or_workers(tmp_path, word_counts):
    config = TextConfig()
    assert counting.count_files(TRAIN_GLOB, config, workers=2) == word_counts
    output = str(tmp_path / "counts.tsv")
    counting.beam_count_files(TRAIN_GLOB, output, config, sample_fraction=1.0, min_count=3,
                                 runner="DirectRunner", workers=1, beam_options=[])
    frequent = {word: number for word, number in word_counts.items() if number >= 3}
    assert counting.read_counts(output) == frequent
    counting.write_counts(word_counts, output)
    assert counting.read_counts(output) == word_counts
    with open(output, encoding="utf-8") as file:
        assert file.readline() == f",\t{word_counts[',']}\n"


def test_counts_know_how_their_text_was_treated(tmp_path, word_counts):
    counts = str(tmp_path / "counts.tsv")
    counting.write_counts(word_counts, counts)
    counting.write_settings(counts, TextConfig())
    assert counting.read_settings(counts) == {
        "tokenizer": "wordpiece", "lower_case": False, "strip_accents": False, "unicode_form": "NFC"}
    with pytest.raises(UsageError, match="strip_accents=True contradicts strip_accents=False in "
                       f"{counts}.json: leave the flag out"):
        train_vocabulary.train_vocabulary(
            [], tmp_path / "v", TextConfig(vocab_size=SMALL, strip_accents=True), counts=counts)
    (tmp_path / "counts.tsv.json").write_text('{"lower_caes": true}')
    with pytest.raises(UsageError, match='counts.tsv.json: .*"lower_caes" .* did you mean "lower_case"'):
        counting.read_settings(counts)


def test_a_vocabulary_takes_its_settings_from_the_counts(tmp_path):
    def run(*arguments):
        return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True,
                              timeout=120)

    counts = f"{tmp_path}/counts.tsv"
    result = run("data_prep.count_words", f"--input={TRAIN_GLOB}", f"--output={counts}",
                 "--strip_accents", "--workers=2")
    assert result.returncode == 0 and result.stdout.startswith(f"{counts}: "), result.stderr
    result = run("data_prep.train_vocabulary", f"--counts={counts}", f"--output={tmp_path}/v",
                 f"--vocab_size={SMALL}")
    assert result.returncode == 0, result.stderr
    assert vocabulary.load_text_config(tmp_path / "v").strip_accents


@pytest.mark.parametrize("arguments, message", [
    (["data_prep.count_words", "--output=."], "error: .: expected the name of a file in a folder"),
    (["data_prep.count_words", "--output=no/x.tsv"], "error: no/x.tsv: expected the name of a file"),
    (["data_prep.train_vocabulary", "--output=/proc/v"], "error: /proc/v: cannot be created"),
    (["data_prep.train_vocabulary", "--output=v", "--workers=-3"], "workers=-3: expected 0 or more"),
    (["data_prep.train_vocabulary", "--output=v", "--", "--x"], "error: --x: expected only flags"),
])
def test_wrong_use_is_told_before_the_work(tmp_path, arguments, message):
    result = subprocess.run([sys.executable, "-m", arguments[0], f"--input={TRAIN_GLOB}", "--overwrite",
                             *arguments[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=60,
                            env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 2 and message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_vocabulary_from_elsewhere_is_not_trained(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "data_prep.train_vocabulary", f"--from_vocab={tmp_path}/vocab.txt",
         f"--output={tmp_path}/v", "--vocab_size=777"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert result.stderr == "error: --vocab_size has no effect with --from_vocab: leave it out\n"


def test_a_bad_line_of_counts_is_named(tmp_path):
    (tmp_path / "counts.tsv").write_text("de\t12\nla 11\n")
    with pytest.raises(UsageError, match=r'counts.tsv:2: "la 11": expected word<TAB>count'):
        counting.read_counts(str(tmp_path / "counts.tsv"))


def test_the_sample_is_chosen_by_content_and_the_held_out_part_is_not_trained_on(documents):
    training = list(counting.sample(documents, 1.0, 0.2, False))
    held_out = list(counting.sample(documents, 1.0, 0.2, True))
    assert sorted(training + held_out) == sorted(documents)
    assert 0.13 < len(held_out) / len(documents) < 0.27
    backwards = list(counting.sample(documents[::-1], 1.0, 0.2, True))
    assert backwards[::-1] == held_out
    half = list(counting.sample(documents, 0.5, 0.0, False))
    assert 0.4 < len(half) / len(documents) < 0.6 and set(half) <= set(documents)


def test_frequent_pieces_come_first_and_every_character_is_in():
    """Small ids for frequent pieces: ids are written as varints."""
    words = Counter({"casa": 50, "cosa": 9, "caso": 7, "año": 5, "osa": 1})
    config = TextConfig(vocab_size=27)
    data = wordpieces.train_wordpieces(words, config, character_coverage=1.0)
    tokenizer = text.make_tokenizer(data, config, "vocab.txt")
    assert {c for word in words for c in (word[0], f"##{word[0]}")} <= set(tokenizer.vocab)
    occurrences = Counter()
    for word, ids in zip(words, tokenizer.encode_batch(list(words)), strict=True):
        for piece in ids:
            occurrences[int(piece)] += words[word]
    by_id = [occurrences[i] for i in range(5, len(tokenizer.vocab))]
    assert by_id == sorted(by_id, reverse=True)
    assert tokenizer.vocab[5] == "casa"


@pytest.mark.parametrize("settings", [
    {}, {"strip_accents": True}, {"lower_case": True, "strip_accents": True},
    {"unicode_form": "NFKC", "lower_case": True}])
def test_every_entry_of_a_trained_vocabulary_is_reachable(documents, tmp_path, settings):
    config = TextConfig(vocab_size=SMALL, **settings)
    directory = train_vocabulary.train_vocabulary(documents, tmp_path / "v", config)
    tokenizer = text.load_tokenizer(directory)
    assert len(tokenizer.vocab) == SMALL
    assert tuple(tokenizer.vocab[:5]) == SPECIAL_TOKENS
    assert audit(tokenizer).num_unreachable == 0
    joined = "".join(tokenizer.vocab[5:])
    assert ("ñ" in joined) is not config.strip_accents
    assert (joined != joined.lower()) is not config.lower_case


def test_same_text_in_any_order_gives_the_same_bytes(documents, tmp_path):
    config = TextConfig(vocab_size=SMALL)
    first = train_vocabulary.train_vocabulary(documents, tmp_path / "1", config)
    shuffled = random.Random(3).sample(documents, len(documents))
    second = train_vocabulary.train_vocabulary(shuffled, tmp_path / "2", config)
    for name in ("vocab.txt", "text.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_trained_vocabulary_is_as_short_as_it_should_be(word_counts, tmp_path, caplog):
    """On text it has not seen; BPE's own first pieces need 1.459 tokens a word."""
    config = TextConfig(vocab_size=4_000)
    caplog.set_level("INFO")
    directory = train_vocabulary.train_vocabulary(
        TRAIN_GLOB, tmp_path / "v", config, held_out=VALIDATION_GLOB)
    tokenizer = text.load_tokenizer(directory)
    held_out = list(train_vocabulary._documents(VALIDATION_GLOB, 1.0, 0.0))
    tokens, unknown = measuring.tokens_per_word(tokenizer, held_out)
    assert tokens < 1.454 and unknown < 0.001
    assert f"{tokens:.3f} tokens a word" in caplog.text

    ids = np.concatenate(tokenizer.encode_batch(list(word_counts)))
    unused = np.flatnonzero(np.bincount(ids, minlength=4_000) == 0)
    unused_pieces = [tokenizer.vocab[i].removeprefix("##") for i in unused[5:]]
    assert sum(len(piece) > 1 for piece in unused_pieces) < 40  # 191 of BPE's first pieces


def test_pieces_that_are_never_the_longest_match_go_last():
    base = [*SPECIAL_TOKENS, "a", "n", "b", "##a", "##n", "##b"]
    words = Counter({"banana": 5, "ana": 1})
    candidates = ["##an", "ban", "banan", "banana", "ana"]
    # "ban" and "##an" would be used only if "banana" were not there.
    config = TextConfig(vocab_size=len(base) + len(candidates))
    assert wordpieces._used(candidates, base, words, config) == [
        "banana", "ana", "##an", "ban", "banan"]


def test_rare_characters_and_their_words_are_left_out():
    words = Counter({"casa": 90, "saca": 8, "日": 1, "cosa": 1})
    covered = wordpieces._covered_words(words, 0.99)
    assert covered == {"casa": 90, "saca": 8}
    assert wordpieces._covered_words(words, 1.0) == words


def test_a_small_text_is_filled_up_and_says_so(tmp_path, caplog):
    directory = train_vocabulary.train_vocabulary(
        ["la casa, la cosa"], tmp_path / "v", TextConfig(vocab_size=61), held_out=["la casa"])
    vocab = (directory / "vocab.txt").read_text().splitlines()
    assert len(vocab) == 61 and vocab[-1].startswith("[unused")
    filled = sum(piece.startswith("[unused") for piece in vocab)
    assert f"{filled} [unusedN] fill the vocabulary of 61" in caplog.text
    assert {"casa", "cosa", "la", ",", "##a"} <= set(vocab) and "##," not in vocab


@pytest.mark.parametrize("settings, arguments, message", [
    ({"vocab_size": 7}, {}, "vocab_size=7: the characters of the text alone need"),
    ({}, {"character_coverage": 0.0}, "character_coverage=0.0: expected a share"),
    ({}, {"sample_fraction": 1.5}, "sample_fraction=1.5: expected a share"),
    ({}, {"model_type": "char"}, "model_type=char: expected one of bpe, unigram"),
    ({}, {"model_type": "unigram"}, "model_type=unigram: expected tokenizer=sentencepiece"),
    ({}, {"counts": "c.tsv", "compare_vocab": "v"}, "compare_vocab=v: with counts, held_out text"),
    ({"tokenizer": "sentencepiece"}, {}, "vocab_size=50000: SentencePiece cannot .* too high"),
])
def test_wrong_settings_are_one_line_and_write_nothing(tmp_path, settings, arguments, message):
    with pytest.raises(UsageError, match=message) as error:
        train_vocabulary.train_vocabulary(
            ["la casa de la niña"], tmp_path / "v", TextConfig(**settings), **arguments)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "v").exists()


def test_text_without_words_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no words to train a vocabulary on"):
        train_vocabulary.train_vocabulary([" \n\u200b"], tmp_path, TextConfig())


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def sentencepiece_dir(request, documents, tmp_path_factory):
    return train_vocabulary.train_vocabulary(
        documents, tmp_path_factory.mktemp(request.param) / "v",
        TextConfig(tokenizer="sentencepiece", vocab_size=SMALL, strip_accents=True),
        model_type=request.param)


def test_sentencepiece_vocabulary(sentencepiece_dir, documents, tmp_path):
    tokenizer = text.load_tokenizer(sentencepiece_dir)
    assert len(tokenizer.vocab) == SMALL and tuple(tokenizer.vocab[:5]) == SPECIAL_TOKENS
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id,
            tokenizer.mask_id) == (0, 1, 2, 3, 4)
    assert audit(tokenizer).num_unreachable == 0
    starts = [piece for piece, is_start in zip(tokenizer.vocab, tokenizer.word_starts, strict=True)
              if is_start]
    assert starts == [*SPECIAL_TOKENS, *(p for p in tokenizer.vocab if p.startswith("▁"))]

    ids = tokenizer.encode_batch(["[CLS] [SEP] [MASK]", "La  niña\tde\ncasa"])
    assert not {0, 2, 3, 4} & set(ids[0].tolist())  # text stays text
    assert "".join(tokenizer.vocab[i] for i in ids[1]) == "▁La▁nina▁de▁casa"

    values, starts, ends = tokenizer.tokenize_with_offsets(tf.constant(["  La niñá. "]))
    normalized = b"  La nina. "
    slices = [normalized[s:e].decode().strip() for s, e in zip(starts[0], ends[0], strict=True)]
    assert slices == [tokenizer.vocab[i].removeprefix("▁") for i in values[0]]


def test_sentencepiece_training_is_deterministic(sentencepiece_dir, documents, tmp_path, request):
    kind = request.node.callspec.params["sentencepiece_dir"]
    again = train_vocabulary.train_vocabulary(
        documents, tmp_path / "v", vocabulary.load_text_config(sentencepiece_dir), model_type=kind)
    for name in ("spm.model", "text.json"):
        assert (again / name).read_bytes() == (sentencepiece_dir / name).read_bytes()


def test_sentencepiece_audit_finds_what_it_should(sentencepiece_dir):
    data = (sentencepiece_dir / "spm.model").read_bytes()
    lowered = text.make_tokenizer(data, TextConfig(tokenizer="sentencepiece", lower_case=True))
    expected = {piece for piece in lowered.vocab[5:] if piece != piece.lower()}
    assert set(audit(lowered).unreachable["changed_by_normalisation"]) == expected != set()


def test_sentencepiece_in_a_saved_model(sentencepiece_dir, tmp_path):
    tokenizer = text.load_tokenizer(sentencepiece_dir)
    module = tf.Module()
    module.tokenizer = tokenizer
    module.tokenize = tf.function(lambda texts: tokenizer.tokenize(texts).flat_values,
                                  input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    texts = ["Mañana, sí.", "", "niño"]
    np.testing.assert_array_equal(loaded.tokenize(tf.constant(texts)),
                                  np.concatenate(tokenizer.encode_batch(texts)))


def test_a_vocabulary_from_elsewhere_keeps_its_order(tmp_path):
    pieces = ["!", "[MASK]", "[SEP]", "é", "[CLS]", "##é", "[UNK]", "[PAD]"]
    (tmp_path / "other.txt").write_text("\r\n".join(pieces), encoding="utf-8")
    config = TextConfig(strip_accents=True)
    directory = train_vocabulary.wrap_vocabulary(
        str(tmp_path / "other.txt"), tmp_path / "v", config)
    tokenizer = text.load_tokenizer(directory)
    assert tokenizer.vocab == pieces and tokenizer.mask_id == 1 and tokenizer.config.strip_accents
    with pytest.raises(UsageError, match="v: has a text.json already"):
        train_vocabulary.wrap_vocabulary(str(tmp_path / "other.txt"), directory, config)
    (tmp_path / "bad.txt").write_text("[PAD]\n")
    with pytest.raises(UsageError, match=r"special tokens missing: \[UNK\]"):
        train_vocabulary.wrap_vocabulary(
            str(tmp_path / "bad.txt"), directory, config, overwrite=True)
    assert text.load_tokenizer(directory).vocab == pieces  # still there


def test_overwriting_with_the_other_kind_leaves_no_old_file(sentencepiece_dir, tmp_path):
    (tmp_path / "v.txt").write_text("\n".join([*SPECIAL_TOKENS, "a"]))
    train_vocabulary.wrap_vocabulary(str(tmp_path / "v.txt"), tmp_path / "v", TextConfig())
    train_vocabulary.wrap_vocabulary(
        str(sentencepiece_dir / "spm.model"), tmp_path / "v",
        TextConfig(tokenizer="sentencepiece"), overwrite=True)
    assert sorted(p.name for p in (tmp_path / "v").iterdir()) == ["spm.model", "text.json"]


def test_tokens_per_word_by_hand():
    tokenizer = text.WordPieceTokenizer(
        TextConfig(), [*SPECIAL_TOKENS, "la", "ca", "##sa", "##s", "."])
    assert measuring.tokens_per_word(tokenizer, ["la casa.", "la casas la ñ"]) == (
        (4 + 6) / 7, 1 / 7)


def test_a_vocabulary_that_is_refused_leaves_nothing(tmp_path):
    (tmp_path / "v.txt").write_text("\n".join([*SPECIAL_TOKENS, "a" * 300]))
    with pytest.raises(UsageError, match="v.txt: "):
        train_vocabulary.wrap_vocabulary(str(tmp_path / "v.txt"), tmp_path / "v", TextConfig())
    assert not (tmp_path / "v").exists()


def test_sentencepiece_learns_from_long_lines_and_from_those_with_its_own_signs(caplog):
    """It leaves out lines of more bytes than its limit, and lines with the two signs that it uses."""
    draws = random.Random(2)
    long = " ".join(draws.choices(["zanahoria", "berenjena", "calabaza"], k=140_000))
    lines = [long, *["una casa"] * 12, *["el ▁ murciélago"] * 40, *["la ▅ lechuga"] * 40]
    data = wordpieces.train_sentencepiece(
        iter(lines), TextConfig(tokenizer="sentencepiece", vocab_size=30), 1.0)
    pieces = "".join(text.make_tokenizer(data, TextConfig(tokenizer="sentencepiece")).vocab)
    assert set("zjbglc") <= set(pieces) and {"é", "h"} <= set(pieces)
    assert "1 lines of over 1048576 bytes: cut between words" in caplog.text


@pytest.mark.parametrize("settings", [
    dict(), dict(tokenizer="sentencepiece", model_type="unigram")], ids=["counts", "lines"])
def test_a_corpus_that_cannot_be_read_trains_no_vocabulary(tmp_path, settings):
    (tmp_path / "a.txt").write_text("una casa\n\n" * 40 + "otra frase sin fin\n" * 700_000)
    model_type = settings.pop("model_type", "bpe")
    with pytest.raises(UsageError, match="of the text, by its bytes, cannot be read, more than "
                       "max_bad_fraction=0.05: huge_document 1 times, first at a.txt: byte "):
        train_vocabulary.train_vocabulary(str(tmp_path / "a.txt"), tmp_path / "v", TextConfig(
            vocab_size=40, **settings), model_type=model_type)
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_corpus_that_cannot_be_read_is_not_counted(tmp_path, workers):
    """By its bytes: it is one of 42 documents."""
    (tmp_path / "a.txt").write_text("una casa\n\n" * 40 + "otra frase sin fin\n" * 700_000)
    (tmp_path / "b.txt").write_text("otra\n")
    with pytest.raises(UsageError, match="of the text, by its bytes, cannot be read, more than "
                       "max_bad_fraction=0.05: huge_document 1 times"):
        counting.count_files(f"{tmp_path}/*.txt", TextConfig(), workers=workers)


def test_the_command(tmp_path):
    (tmp_path / "counts.tsv").write_text("casa\t7\nniña\t5\nla\t9\n")
    run = subprocess.run(
        [sys.executable, "-m", "data_prep.train_vocabulary", f"--output={tmp_path / 'v'}",
         f"--counts={tmp_path / 'counts.tsv'}", "--vocab_size=47", "--strip_accents"],
        capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{tmp_path / 'v'}: 47 entries\n"
    assert vocabulary.load_text_config(tmp_path / "v").strip_accents


def test_vocabularies_are_compared_on_the_same_words(tmp_path):
    pieces = [*SPECIAL_TOKENS, "la", "ca", "##sa", "##s", ".", "niña", "ni", "##na"]
    cased = text.WordPieceTokenizer(TextConfig(), pieces)
    stripped = text.WordPieceTokenizer(TextConfig(strip_accents=True), pieces)
    rows = measuring.compare(["la casa.", "la niña la ñ 7"], {"cased": cased, "stripped": stripped})
    # la la la casa niña ñ; of letters: 6 words, 2 of them not ASCII.
    assert rows[0] == ("cased", 13, 9 / 8, 2 / 8, 1 / 6, 0.0)
    assert rows[1] == ("stripped", 13, 10 / 8, 2 / 8, 2 / 6, 1 / 2)
    assert measuring.table(rows)[2] == "| cased | 13 | 1.125 | 25.000% | 16.7% | 0.0% |"
    for name in ("a.svg", "b.svg", "c.png"):
        measuring.draw(rows, str(tmp_path / name))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
