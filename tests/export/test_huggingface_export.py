"""Hugging Face folders: exports have the same tokens and logits, imports give the same bytes."""

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import pickle
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tokenizers
import torch
import transformers
from export_helpers import (
    MAX_LENGTH,
    VARIANTS,
    loaded,
    model_dir,
    our_scores,
    sentences,
    vocabulary_dir,
    write_model_dir,
)
from safetensors.numpy import load_file, save_file

from electra_es.detect.scoring import load_detector
from electra_es.errors import CheckFailed, UsageError
from electra_es.export.huggingface import write
from electra_es.export.huggingface.read import import_folder, load_folder
from electra_es.export.huggingface.write import export_huggingface, push_to_hub
from electra_es.model.variables import get_weights
from electra_es.run_config import load_run
from electra_es.training.checkpoints import Checkpoints
from electra_es.training.run_dir import load_model

# What a published folder's config.json holds beside the model's shape (SELECTRA's, by keys).
FOREIGN_KEYS = {
    "classifier_dropout": None, "position_embedding_type": "absolute", "summary_activation": "gelu",
    "summary_last_dropout": 0.1, "summary_type": "first", "summary_use_proj": True,
    "torch_dtype": "float32", "transformers_version": "4.9.1", "use_cache": True}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """`exported(variant)`: path of its export."""
    paths = {}

    def export(variant) -> pathlib.Path:
        if variant not in paths:
            paths[variant] = tmp_path_factory.mktemp("published") / variant
            export_huggingface(str(model_dir(variant)), str(paths[variant]))
        return paths[variant]

    return export


@pytest.fixture
def folder(exported, tmp_path) -> pathlib.Path:
    """A copy of the WordPiece export, which a test damages."""
    return pathlib.Path(shutil.copytree(exported("wordpiece"), tmp_path / "folder"))


def digests(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file except the card and export.json, which name the origin."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()
            and path.name not in ("README.md", "export.json")}


@pytest.mark.parametrize("variant", VARIANTS)
def test_tokenizer_json_is_what_tokenizers_writes_itself(exported, variant):
    """Read into its objects and written by them: no key too many, too few or of another value."""
    text = (exported(variant) / "discriminator" / "tokenizer.json").read_text(encoding="utf-8")
    ours, theirs = json.loads(text), json.loads(tokenizers.Tokenizer.from_str(text).to_str())
    if ours["model"]["type"] == "Unigram":  # its reader of JSON is one unit off in the last place
        pieces, scores = zip(*ours["model"].pop("vocab"), strict=True)
        their_pieces, their_scores = zip(*theirs["model"].pop("vocab"), strict=True)
        assert pieces == their_pieces and scores == pytest.approx(their_scores, rel=1e-14)
    assert ours == theirs


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_tokens_and_logits_on_200_sentences(exported, variant, caplog):
    ours, path = our_scores(variant), str(exported(variant) / "discriminator")
    with caplog.at_level(logging.WARNING):
        model, info = transformers.ElectraForPreTraining.from_pretrained(path, output_loading_info=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not caplog.records
    batch = tokenizer(sentences(), padding=True, truncation=True, return_tensors="pt")
    np.testing.assert_array_equal(batch["attention_mask"], ours["mask"])
    differs = (batch["input_ids"].numpy() != ours["token_ids"]).any(axis=1)
    if variant == "sentencepiece_stripped":
        # Of two segmentations that a unigram model finds equally likely, each takes another one.
        assert differs.sum() <= 2
        np.testing.assert_array_equal(np.sort(batch["input_ids"]), np.sort(ours["token_ids"]))
    else:
        assert not differs.any()
    with torch.no_grad():
        logits = model.eval()(**batch).logits.numpy()
    compared = (ours["mask"] > 0) & ~differs[:, None]
    assert np.max(np.abs(logits - ours["logits"])[compared]) <= 1e-4


@pytest.mark.parametrize("variant", ["wordpiece", "wordpiece_stripped"])
def test_electra_tokenizer_gives_the_same_tokens(exported, variant):
    path = str(exported(variant) / "discriminator")
    tokenizer = transformers.ElectraTokenizerFast.from_pretrained(path)
    batch = tokenizer(sentences(), padding=True, truncation=True)
    np.testing.assert_array_equal(batch["input_ids"], our_scores(variant)["token_ids"])
    assert tokenizer.model_max_length == MAX_LENGTH


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("text", [
    "El an\u0303o AU\u0301N", "uno\u00a0dos\u2028tres\u200b,cuatro", "Ünïcödé «ﬁn» 字x", "  ¡¿?! ", "",
    "a" * 150])
def test_normalisation_is_repeated_in_tokenizer_json(exported, variant, text):
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(exported(variant) / "discriminator"))
    ours = loaded(variant)[1].encode_batch([text])[0]
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ours.tolist()


def test_generator_gives_our_mlm_logits(exported):
    ours = our_scores("wordpiece")
    peer, info = transformers.ElectraForMaskedLM.from_pretrained(
        str(exported("wordpiece") / "generator"), output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids, mask = ours["token_ids"][:20], ours["mask"][:20]
    with torch.no_grad():
        found = peer.eval()(input_ids=torch.tensor(ids).long(),
                            attention_mask=torch.tensor(mask).long()).logits.numpy()
    model = loaded("wordpiece")[0]
    sequence = model.generator_sequence(ids, mask, np.zeros_like(ids))
    expected = model.mlm_head(sequence, model.generator_embeddings.word_table).numpy()
    assert np.max(np.abs(found - expected)[mask > 0]) <= 1e-4


def test_the_published_usage_snippet_runs_unchanged(exported, tmp_path, monkeypatch, capsys):
    shutil.copytree(exported("wordpiece") / "discriminator", tmp_path / "Recognai" / "selectra_small")
    monkeypatch.chdir(tmp_path)
    from transformers import ElectraForPreTraining, ElectraTokenizerFast

    discriminator = ElectraForPreTraining.from_pretrained("Recognai/selectra_small")
    tokenizer = ElectraTokenizerFast.from_pretrained("Recognai/selectra_small")
    sentence_with_fake_token = "Estamos desayunando pan rosa con tomate y aceite de oliva."
    inputs = tokenizer.encode(sentence_with_fake_token, return_tensors="pt")
    logits = discriminator(inputs).logits.tolist()[0]
    print("\t".join(tokenizer.tokenize(sentence_with_fake_token)))
    print("\t".join(f"{logit:.3f}" for logit in logits[1:-1]))

    from electra_es.detect.scoring import detect

    scored = detect(str(model_dir("wordpiece")), [sentence_with_fake_token])[0].tokens
    tokens, shown = capsys.readouterr().out.splitlines()
    assert tokens.split("\t") == [token.token for token in scored]
    np.testing.assert_allclose([float(x) for x in shown.split("\t")],
                               [token.logit for token in scored], atol=6e-4)


@pytest.mark.parametrize("variant", ["wordpiece_stripped", "sentencepiece"])
def test_import_then_export_is_the_identity(exported, tmp_path, variant):
    import_folder(str(exported(variant)), str(tmp_path / "model"))
    export_huggingface(str(tmp_path / "model"), str(tmp_path / "again"))
    assert digests(tmp_path / "again") == digests(exported(variant))
    assert len(digests(tmp_path / "again")) == 12


def foreign_folder(source: pathlib.Path, target: pathlib.Path, part: str, vocab: str) -> None:
    """A folder as others publish it: older transformers' keys and buffers, no text.json."""
    target.mkdir(parents=True)
    config = json.loads((source / part / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **FOREIGN_KEYS}))
    tensors = load_file(source / part / "model.safetensors")
    tensors["electra.embeddings.position_ids"] = np.arange(59)[None]
    if part == "generator":
        tensors["generator_lm_head.weight"] = tensors["electra.embeddings.word_embeddings.weight"]
    save_file(tensors, target / "model.safetensors")
    shutil.copy(vocabulary_dir(vocab) / "vocab.txt", target)
    settings = {"do_lower_case": False, "strip_accents": vocab == "wordpiece_stripped"}
    (target / "tokenizer_config.json").write_text(json.dumps(settings))


def test_a_foreign_folder_comes_back_key_for_key(exported, tmp_path):
    for part in ("discriminator", "generator"):
        foreign_folder(exported("wordpiece_stripped"), tmp_path / part, part, "wordpiece_stripped")
    import_folder(str(tmp_path / "discriminator"), str(tmp_path / "model"),
                  generator=str(tmp_path / "generator"))
    model, _, run, step = load_model(str(tmp_path / "model"))
    assert (run.text.strip_accents, run.text.lower_case, step) == (True, False, 0)
    expected, _, original = loaded("wordpiece_stripped")
    assert run.model == original.model
    for name, array in get_weights(expected).items():
        np.testing.assert_array_equal(get_weights(model)[name], array)
    export_huggingface(str(tmp_path / "model"), str(tmp_path / "again"))
    for part in ("discriminator", "generator"):
        read = [json.loads((tmp_path / where / "config.json").read_text())
                for where in (part, f"again/{part}")]
        assert read[0] == read[1] and read[1]["transformers_version"] == "4.9.1"
        before, after = (load_file(tmp_path / where / "model.safetensors")
                         for where in (part, f"again/{part}"))
        copies = {"electra.embeddings.position_ids", "generator_lm_head.weight"}
        assert set(before) - copies == set(after)
        assert all(before[name].tobytes() == after[name].tobytes() for name in after)


def test_a_discriminator_alone_gets_a_new_generator(exported, tmp_path):
    foreign_folder(exported("wordpiece"), tmp_path / "alone", "discriminator", "wordpiece")
    first, again = load_folder(str(tmp_path / "alone")), load_folder(str(tmp_path / "alone"))
    assert all(name.startswith(("generator/", "generator_predictions/")) for name in first.new)
    assert first.run.model.generator_hidden_size == 6  # the recipe's quarter
    for name, array in get_weights(first.model).items():
        np.testing.assert_array_equal(array, get_weights(again.model)[name])


@pytest.mark.parametrize("settings, lower, strip", [
    ({}, True, True), ({"do_lower_case": False}, False, False),
    ({"do_lower_case": True, "strip_accents": False}, True, False),
    ({"do_lower_case": False, "strip_accents": None}, False, False)])
def test_unsaid_text_settings_are_those_of_berts_tokeniser(exported, tmp_path, settings, lower, strip):
    foreign_folder(exported("wordpiece"), tmp_path / "alone", "discriminator", "wordpiece")
    (tmp_path / "alone" / "tokenizer_config.json").write_text(json.dumps(settings))
    text = load_folder(str(tmp_path / "alone")).run.text
    assert (text.lower_case, text.strip_accents) == (lower, strip)


@pytest.mark.parametrize("variant", ["wordpiece", "wordpiece_stripped"])
def test_tokenizer_json_says_how_text_is_treated_where_nothing_else_does(
        exported, tmp_path, variant, capsys):
    """As `tokenizers` alone saves it; a cased model was read back as lower-casing."""
    folder = tmp_path / "alone"
    shutil.copytree(exported(variant) / "discriminator", folder)
    for name in ("tokenizer_config.json", "text.json"):
        (folder / name).unlink()
    text = load_folder(str(folder)).run.text
    assert (text.lower_case, text.strip_accents) == (False, variant == "wordpiece_stripped")
    assert "taken to be" not in capsys.readouterr().err
    (folder / "tokenizer.json").unlink()
    assert load_folder(str(folder)).run.text.lower_case
    assert "says how text is treated: taken to be lower-cased" in capsys.readouterr().err


@pytest.mark.parametrize("settings, parts", [
    (dict(embedding_sharing="untied"), ["discriminator", "generator"]),
    (dict(generator_kind="shared"), ["discriminator", "generator"]),
    (dict(embedding_sharing="gradient_disentangled"), ["discriminator", "generator"]),
    (dict(generator_kind="two_tower", objective="electric"), ["discriminator"]),
    (dict(objective="mlm"), ["generator"]),
])
def test_other_objectives(tmp_path, settings, parts):
    source = write_model_dir(tmp_path / "model", "wordpiece", **settings)
    assert export_huggingface(str(source), str(tmp_path / "published")).parts == parts
    model = load_model(str(source))[0]
    ids = our_scores("wordpiece")["token_ids"][:2, :9]
    if "generator" in parts:
        peer = transformers.ElectraForMaskedLM.from_pretrained(str(tmp_path / "published" / "generator"))
        with torch.no_grad():
            found = peer.eval()(input_ids=torch.tensor(ids).long()).logits.numpy()
        sequence = model.generator_sequence(ids, np.ones_like(ids), np.zeros_like(ids))
        expected = model.mlm_head(sequence, model.generator_embeddings.word_table).numpy()
        assert np.max(np.abs(found - expected)) <= 1e-4
    if settings == dict(embedding_sharing="untied"):
        assert load_folder(str(tmp_path / "published")).run.model == load_run(str(source)).model
    if settings == dict(generator_kind="shared"):
        assert load_folder(str(tmp_path / "published")).run.model.generator_kind == "shared"


def change_tensors(folder: pathlib.Path, change) -> None:
    path = folder / "discriminator" / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def change_config(folder: pathlib.Path, **values) -> None:
    path = folder / "discriminator" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def weights_as_pickle(folder: pathlib.Path) -> None:
    (folder / "discriminator" / "model.safetensors").unlink()
    (folder / "discriminator" / "pytorch_model.bin").write_bytes(pickle.dumps({"w": 1}))


def pickle_in_disguise(folder: pathlib.Path) -> None:
    (folder / "discriminator" / "model.safetensors").write_bytes(pickle.dumps({"w": 1}))


def shards_outside(folder: pathlib.Path) -> None:
    inner = folder / "discriminator"
    (inner / "model.safetensors").rename(folder / "elsewhere.safetensors")
    (inner / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))


def link_outside(folder: pathlib.Path) -> None:
    vocab = folder / "discriminator" / "vocab.txt"
    vocab.rename(folder / "vocab.txt")
    vocab.symlink_to(folder / "vocab.txt")


NORM = "electra.encoder.layer.1.output.LayerNorm.weight"
SPOILT = {
    "missing": (lambda f: change_tensors(f, lambda t: t.pop(NORM)), f"no tensor {NORM}"),
    "extra": (lambda f: change_tensors(f, lambda t: t.update(pooler=np.zeros(3, np.float32))),
              "unknown tensor pooler"),
    "shape": (lambda f: change_tensors(f, lambda t: t.update({NORM: np.zeros(25, np.float32)})),
              rf"{NORM} has shape \[25\]: expected \[24\]"),
    "dtype": (lambda f: change_tensors(f, lambda t: t.update({NORM: t[NORM].astype(np.float16)})),
              "is of type F16: expected F32"),
    "not finite": (lambda f: change_tensors(f, lambda t: t[NORM].fill(np.nan)), "finite"),
    "pickle": (weights_as_pickle, "pytorch_model.bin, a pickle"),
    "pickle in disguise": (pickle_in_disguise, "not a safetensors file"),
    "shards outside": (shards_outside, "leads out of the folder"),
    "link outside": (link_outside, "leads out of the folder"),
    "other model": (lambda f: change_config(f, model_type="bert"), 'expected "electra"'),
    "other gelu": (lambda f: change_config(f, hidden_act="gelu_new"), 'expected "gelu"'),
    "not a discriminator": (lambda f: change_config(f, architectures=["ElectraForMaskedLM"]),
                            "ElectraForPreTraining"),
    "no size": (lambda f: change_config(f, hidden_size=None), "expected a positive number"),
    "vocabulary": (lambda f: change_config(f, vocab_size=612), "vocab_size=612: expected 611"),
    "contradiction": (lambda f: (f / "discriminator" / "tokenizer_config.json").write_text(
        '{"strip_accents": true}'), "strip_accents=True, text.json has strip_accents=False"),
    "no json": (lambda f: (f / "discriminator" / "config.json").write_text("{"), "not JSON"),
    "no vocabulary": (lambda f: [(f / "discriminator" / name).unlink() for name in
                                 ("vocab.txt", "text.json", "tokenizer.json")], "expected a vocabulary"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_spoilt_folder_is_one_clear_line_and_nothing_written(folder, tmp_path, fault):
    spoil, message = SPOILT[fault]
    spoil(folder)
    with pytest.raises(UsageError, match=message) as error:
        import_folder(str(folder), str(tmp_path / "model"))
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


def test_links_of_the_hubs_download_cache_are_followed(exported, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for i, path in enumerate((exported("wordpiece") / "discriminator").iterdir()):
        shutil.copy(path, blobs / str(i))
        (snapshot / path.name).symlink_to(os.path.join("..", "..", "blobs", str(i)))
    assert load_folder(str(snapshot)).run.model.hidden_size == 24


def test_an_export_that_reads_back_otherwise_is_not_left(tmp_path, monkeypatch):
    def spoil(weights, part, config, real=write.published_arrays):
        arrays = real(weights, part, config)
        arrays[NORM.replace("layer.1", "layer.0")] += 0.01
        return arrays

    monkeypatch.setattr(write, "published_arrays", spoil)
    with pytest.raises(CheckFailed, match="differ by"):
        export_huggingface(str(model_dir("wordpiece")), str(tmp_path / "published"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("settings, tensor", [
    (dict(), "generator_predictions.dense.weight"),
    (dict(objective="mlm"), NORM),
    (dict(embedding_sharing="untied"), "electra.embeddings.LayerNorm.weight"),
    (dict(embedding_sharing="gradient_disentangled"), "electra.embeddings.token_type_embeddings.weight"),
    (dict(generator_kind="shared"), "generator_lm_head.bias"),
])
def test_a_generator_that_reads_back_otherwise_is_not_left(tmp_path, monkeypatch, settings, tensor):
    def spoil(weights, part, config, real=write.published_arrays):
        arrays = real(weights, part, config)
        if part == "generator":
            arrays[tensor] = arrays[tensor].copy()
            # One number, as LayerNorm takes off what is added to all; of token types, one of the
            # second segment's.
            arrays[tensor].flat[-1] += 0.1
        return arrays

    monkeypatch.setattr(write, "published_arrays", spoil)
    source = write_model_dir(tmp_path / "model", "wordpiece", **settings)
    with pytest.raises(CheckFailed, match="the exported generator's logits .* differ by"):
        export_huggingface(str(source), str(tmp_path / "published"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("settings, lines", [
    (dict(), ["tokens of the discriminator", "logits of the discriminator",
              "tokens of the generator", "logits of the generator at [MASK]"]),
    (dict(generator_kind="uniform"), ["tokens of the discriminator", "logits of the discriminator"]),
    (dict(objective="mlm"), ["tokens of the generator", "logits of the generator at [MASK]"]),
])
def test_an_export_says_what_was_compared(tmp_path, settings, lines):
    source = write_model_dir(tmp_path / "model", "wordpiece", **settings)
    exported = export_huggingface(str(source), str(tmp_path / "published"))
    assert [line.partition(" (")[0] for line in exported.compared] == lines
    assert all("the same" in line or "differ by at most" in line for line in exported.compared)
    assert exported.summary("DIR", "M", "read back").count("\n  ") == len(lines)


def test_a_generator_alone_is_a_model_of_berts_objective(tmp_path):
    source = write_model_dir(tmp_path / "model", "wordpiece", objective="mlm")
    export_huggingface(str(source), str(tmp_path / "published"))
    import_folder(str(tmp_path / "published"), str(tmp_path / "imported"))
    imported, original = (load_run(str(path)).model for path in (tmp_path / "imported", source))
    # The settings of a smaller generator have no effect with this objective.
    unused = {name: getattr(imported, name)
              for name in ("generator_width", "generator_depth", "generator_heads")}
    assert imported == dataclasses.replace(original, **unused)
    export_huggingface(str(tmp_path / "imported"), str(tmp_path / "again"))
    assert digests(tmp_path / "again") == digests(tmp_path / "published")
    with pytest.raises(UsageError, match="objective=mlm has no discriminator"):
        load_detector(str(tmp_path / "published"))


def test_disentangled_parts_come_back_one_by_one(tmp_path):
    source = write_model_dir(tmp_path / "model", "wordpiece", embedding_sharing="gradient_disentangled")
    export_huggingface(str(source), str(tmp_path / "published"))
    with pytest.raises(UsageError, match="gradient_disentangled.*expected the discriminator alone"):
        import_folder(str(tmp_path / "published"), str(tmp_path / "imported"))
    import_folder(str(tmp_path / "published" / "discriminator"), str(tmp_path / "imported"))
    # A generator that the import drew is not published as if it were trained.
    assert export_huggingface(str(tmp_path / "imported"), str(tmp_path / "again")).parts == [
        "discriminator"]
    assert digests(tmp_path / "again" / "discriminator") == digests(
        tmp_path / "published" / "discriminator")


def test_an_import_that_reads_back_otherwise_is_not_left(folder, tmp_path, monkeypatch):
    def spoil(self, step, examples_seen, real=Checkpoints.save):
        table = self.state.model.embeddings.word_embeddings
        table.assign_add(tf.ones_like(table))
        real(self, step, examples_seen)
        table.assign_sub(tf.ones_like(table))

    monkeypatch.setattr(Checkpoints, "save", spoil)
    with pytest.raises(CheckFailed, match="electra/embeddings/word_embeddings, read back, differs"):
        import_folder(str(folder), str(tmp_path / "imported"))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_push_uploads_each_part_as_a_repository(exported, monkeypatch):
    import huggingface_hub

    calls = []

    class Api:
        def create_repo(self, name, *, private, exist_ok):
            calls.append((name, private))

        def upload_folder(self, *, repo_id, folder_path):
            calls.append((repo_id, sorted(os.listdir(folder_path))[0]))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    parts = ["discriminator", "generator"]
    names = push_to_hub(str(exported("wordpiece")), "me/electra", parts, private=True)
    assert names == ["me/electra", "me/electra-generator"]
    assert calls == [("me/electra", True), ("me/electra", "README.md"),
                     ("me/electra-generator", True), ("me/electra-generator", "README.md")]

    def refuse(self, name, *, private, exist_ok):
        raise huggingface_hub.errors.LocalTokenNotFoundError("Token is required\nLog in first")

    monkeypatch.setattr(Api, "create_repo", refuse)
    with pytest.raises(UsageError, match=r"--push_to_hub=me/electra: Token is required; the export is"):
        push_to_hub(str(exported("wordpiece")), "me/electra", parts, private=True)
