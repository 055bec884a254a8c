"""The SavedModel gives the scores of the model, and works without this project."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from export_helpers import (
    MAX_LENGTH,
    SHAPE,
    VARIANTS,
    loaded,
    model_dir,
    our_scores,
    sentences,
    text_model,
    write_model_dir,
)

from electra_es.config import ModelConfig
from electra_es.errors import CheckFailed, UsageError
from electra_es.export.saved_model import write as saved_model
from electra_es.export.saved_model.text_model import NUM_CANDIDATES, TextModel
from electra_es.export.saved_model.write import export_saved_model
from electra_es.model.pretrainer import build_pretrainer

LOADER = """
import json, sys
import numpy as np
import tensorflow as tf, tensorflow_text
texts = tf.constant(json.load(open(sys.argv[2], encoding="utf-8")))
model = tf.saved_model.load(sys.argv[1])
np.savez(sys.argv[3], **model.signatures["detect"](texts=texts))
print(sorted({name.partition(".")[0] for name in sys.modules} & {"electra_es", "tf_keras", "official"}))
print(sorted(model.signatures))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """`exported(variant)`: path of its SavedModel."""
    paths = {}

    def export(variant):
        if variant not in paths:
            paths[variant] = tmp_path_factory.mktemp("saved_models") / variant
            export_saved_model(str(model_dir(variant)), str(paths[variant]))
        return paths[variant]

    return export


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_tokens_and_logits_on_200_sentences(exported, variant):
    ours = our_scores(variant)
    signatures = tf.saved_model.load(str(exported(variant))).signatures
    found = signatures["detect"](texts=tf.constant(sentences()))
    np.testing.assert_array_equal(found["token_ids"], ours["token_ids"])
    np.testing.assert_array_equal(found["mask"], ours["mask"])
    mask = ours["mask"] > 0
    assert np.max(np.abs(found["logits"] - ours["logits"])[mask]) <= 1e-4
    np.testing.assert_allclose(
        found["probabilities"].numpy()[mask], 1 / (1 + np.exp(-ours["logits"][mask])), rtol=1e-3)
    scored = signatures["score_ids"](
        input_ids=ours["token_ids"], input_mask=ours["mask"],
        segment_ids=tf.zeros_like(ours["token_ids"]))
    assert np.max(np.abs(scored["logits"] - ours["logits"])[mask]) <= 1e-4


def test_loads_in_a_process_with_tensorflow_and_tensorflow_text_only(exported, tmp_path):
    (tmp_path / "texts.json").write_text(json.dumps(sentences()[:20]), encoding="utf-8")
    # As a user's process has it: without what importing electra_es has put there.
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    result = subprocess.run(
        [sys.executable, "-c", LOADER, str(exported("wordpiece")), "texts.json", "out.npz"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**environment, "PYTHONPATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"})
    assert result.stdout.splitlines() == ["[]", "['detect', 'encode', 'fill_mask', 'score_ids']"]
    ours = our_scores("wordpiece")
    with np.load(tmp_path / "out.npz") as found:
        length = found["mask"].shape[1]
        np.testing.assert_array_equal(found["token_ids"], ours["token_ids"][:20, :length])
        mask = found["mask"] > 0
        assert np.max(np.abs(found["logits"] - ours["logits"][:20, :length])[mask]) <= 1e-4


def test_a_sentence_scores_the_same_alone_and_in_a_ragged_batch():
    model = text_model("wordpiece")
    batch = ["", "Sí.", sentences()[3], sentences()[4] * 20]
    together = model.detect(tf.constant(batch))
    for row, sentence in enumerate(batch):
        alone = model.detect(tf.constant([sentence]))
        length = alone["mask"].shape[1]
        assert together["mask"].numpy()[row].sum() == length
        np.testing.assert_allclose(together["logits"][row, :length], alone["logits"][0], atol=2e-5)
    assert together["truncated"].numpy().tolist() == [False, False, False, True]
    assert together["mask"].shape[1] == MAX_LENGTH
    assert model.detect(tf.constant([], tf.string))["logits"].shape == (0, 0)


def test_offsets_and_words_lead_back_to_the_text():
    texts = ["El pingu\u0308ino, ¿volvera\u0301?", "[SEP] ñ"]
    outputs = text_model("wordpiece").detect(tf.constant(texts))
    normalized = [text.decode() for text in outputs["normalized"].numpy()]
    assert normalized == ["El pingüino, ¿volverá?", "[SEP] ñ"]
    for row, text in enumerate(outputs["normalized"].numpy()):
        words: dict[int, str] = {}
        for token, word, (start, end) in zip(
                outputs["tokens"].numpy()[row], outputs["words"].numpy()[row],
                outputs["offsets"].numpy()[row], strict=True):
            if word < 0:
                assert (start, end) == (0, 0) and token in (b"[CLS]", b"[SEP]", b"[PAD]")
                continue
            piece = text[start:end].decode()
            assert token.decode().removeprefix("##") in (piece, "[UNK]")
            words[int(word)] = words.get(int(word), "") + piece
        assert list(words.values()) == [
            ["El", "pingüino", ",", "¿", "volverá", "?"], ["[", "SEP", "]", "ñ"]][row]
    # A literal "[SEP]" is text: brackets and letters, and one separator at the end.
    sep = loaded("wordpiece")[1].sep_id
    assert (outputs["token_ids"].numpy() == sep).sum(axis=1).tolist() == [1, 1]


def test_words_of_sentencepiece_begin_at_spaces():
    outputs = text_model("sentencepiece").detect(tf.constant(["La montaña, ¿volverá?"]))
    row = {name: value.numpy()[0] for name, value in outputs.items()}
    text, words = row["normalized"], {}
    for word, (start, end) in zip(row["words"], row["offsets"], strict=True):
        if word >= 0:
            words[int(word)] = words.get(int(word), "") + text[start:end].decode()
    assert [word.strip() for word in words.values()] == ["La", "montaña,", "¿volverá?"]


def test_pooled_embedding_is_the_mean_over_tokens():
    texts = tf.constant(["Sí.", sentences()[5]])
    encoded = text_model("wordpiece").encode(texts)
    model = loaded("wordpiece")[0]
    layers = model.encode(encoded["token_ids"], encoded["mask"], tf.zeros_like(encoded["mask"])).layers
    np.testing.assert_allclose(encoded["sequence"], layers[-1], atol=1e-5)
    for row, length in enumerate(encoded["mask"].numpy().sum(axis=1)):
        expected = layers[-1].numpy()[row, :length].mean(axis=0)
        np.testing.assert_allclose(encoded["pooled"][row], expected, atol=1e-5)


def test_fill_mask_gives_the_generators_best_tokens():
    model, tokenizer, _ = loaded("wordpiece")
    filled = text_model("wordpiece").fill_mask(
        tf.constant(["La [MASK] de [MASK].", "No hay ninguna.", "[MASK]"]))
    before = tokenizer.encode_batch(["La", "de"])
    first, second = 1 + len(before[0]), 2 + len(before[0]) + len(before[1])
    assert filled["positions"].numpy().tolist() == [[first, second], [-1, -1], [1, -1]]
    ids = [tokenizer.cls_id, *before[0], tokenizer.mask_id, *before[1], tokenizer.mask_id,
           *tokenizer.encode_batch(["."])[0], tokenizer.sep_id]
    ids = tf.constant([ids], tf.int32)
    sequence = model.generator_sequence(ids, tf.ones_like(ids), tf.zeros_like(ids))
    logits = model.mlm_head(sequence, model.generator_embeddings.word_table).numpy()[0]
    for slot, position in enumerate((first, second)):
        best = np.argsort(-logits[position])[:NUM_CANDIDATES]
        assert filled["token_ids"].numpy()[0, slot].tolist() == best.tolist()
        assert filled["tokens"].numpy()[0, slot, 0].decode() == tokenizer.vocab[best[0]]
        probability = np.exp(logits[position] - logits[position].max())
        np.testing.assert_allclose(filled["probabilities"][0, slot],
                                   (probability / probability.sum())[best], rtol=1e-4)
    assert filled["probabilities"].numpy()[1].max() == 0


@pytest.mark.parametrize("settings, signatures", [
    (dict(objective="mlm"), ["encode", "fill_mask"]),
    (dict(generator_kind="uniform"), ["detect", "encode", "score_ids"]),
    (dict(objective="electric", generator_kind="two_tower"),
     ["detect", "encode", "fill_mask", "score_ids"]),
])
def test_signatures_follow_the_objective(vocab_facts, settings, signatures):
    model = build_pretrainer(ModelConfig(**SHAPE, **settings), vocab_facts)
    assert sorted(TextModel(model, loaded("wordpiece")[1], MAX_LENGTH).functions) == signatures


def test_a_model_without_discriminator_is_exported(tmp_path):
    source = write_model_dir(tmp_path / "model", "wordpiece", objective="mlm")
    export_saved_model(str(source), str(tmp_path / "exported"))
    assert sorted(tf.saved_model.load(str(tmp_path / "exported")).signatures) == ["encode", "fill_mask"]


def test_a_difference_after_reloading_is_found_and_leaves_nothing(tmp_path, exported, monkeypatch):
    def save_other_weights(module, path, signatures):
        shutil.copytree(exported("wordpiece"), path, dirs_exist_ok=True)

    monkeypatch.setattr(tf.saved_model, "save", save_other_weights)
    write_model_dir(tmp_path / "model", "wordpiece", seed=21)
    with pytest.raises(CheckFailed, match="reloaded SavedModel's .* differ by"):
        export_saved_model(str(tmp_path / "model"), str(tmp_path / "exported"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("settings, signature, output", [
    (dict(), "fill_mask", "probabilities"), (dict(), "score_ids", "logits"),
    (dict(), "detect", "offsets"), (dict(), "encode", "pooled"),
    (dict(objective="mlm"), "fill_mask", "positions"),
    (dict(objective="electric", generator_kind="two_tower"), "fill_mask", "token_ids"),
])
def test_a_difference_in_any_output_is_found(tmp_path, monkeypatch, settings, signature, output):
    def save(text_model, path, real=saved_model._save):
        function = getattr(text_model, signature)

        def changed_function(*inputs):
            outputs = function(*inputs)
            value = outputs[output]
            # Half of what fill_mask shows, another token, another place, another logit.
            spoil = value / 2 if output == "probabilities" else value + tf.ones_like(value)
            return {**outputs, output: spoil}

        specs = text_model.functions[signature].input_signature
        text_model.functions[signature] = tf.function(changed_function, input_signature=specs)
        real(text_model, path)

    monkeypatch.setattr(saved_model, "_save", save)
    source = write_model_dir(tmp_path / "model", "wordpiece", **settings)
    with pytest.raises(CheckFailed, match=f"the reloaded SavedModel.*{signature}"):
        export_saved_model(str(source), str(tmp_path / "exported"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_exists_is_replaced_only_when_asked_and_only_an_export(tmp_path, exported):
    target = tmp_path / "target"
    target.mkdir()
    (target / "thesis.txt").write_text("years of work")
    for overwrite, message in ((False, "exists already"), (True, "not an export")):
        with pytest.raises(UsageError, match=message) as error:
            export_saved_model(str(model_dir("wordpiece")), str(target), overwrite=overwrite)
        assert "\n" not in str(error.value) and str(target) in str(error.value)
    assert (target / "thesis.txt").read_text() == "years of work"
    with pytest.raises(UsageError, match="expected a model directory"):
        export_saved_model(str(tmp_path / "nowhere"), str(tmp_path / "new"))
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
