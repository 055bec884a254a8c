"""Exports of really fine-tuned tiny models give the labels and logits of the models.

Each kind is fine-tuned by the function that the command calls, on the words and texts of the bundled
sample; 200 examples are compared.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import transformers
from command_helpers import fresh_flags, main_of
from export_helpers import sentences, write_model_dir
from finetuning_helpers import KINDS

from electra_es import sample
from electra_es.config import from_dict
from electra_es.errors import CheckFailed, UsageError
from electra_es.export.model_card import CardOptions
from electra_es.finetuning.alignment import word_windows
from electra_es.finetuning.data import make_features
from electra_es.finetuning.examples import Question, TaggingExample, TextExample
from electra_es.finetuning.export.huggingface import export_finetuned_huggingface
from electra_es.finetuning.export.saved_model import export_finetuned_saved_model
from electra_es.finetuning.export.tagging_graph import cut
from electra_es.finetuning.export.transformers_form import head_arrays
from electra_es.finetuning.finetune import finetune
from electra_es.finetuning.model import FinetuningModel
from electra_es.finetuning.predict import answer, classify, outputs_for, rate, tag
from electra_es.finetuning.questions import find_answers
from electra_es.finetuning.readers import read_split
from electra_es.finetuning.saved import Finetuned, load_finetuned
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.tasks import load_task
from electra_es.model.pretrainer import build_pretrainer
from electra_es.training.run_dir import vocabulary_facts

LENGTH = 128  # all of the examples fit
SETTINGS = dict(max_seq_length=LENGTH, stride=32, epochs=2, train_batch_size=25, learning_rate=1e-3,
                distribution="cpu", jit_compile="off", log_every=100)
LABELS = ("corta", "larga", "media")
RANGE = (1.0, 5.0)


def pairs() -> list[tuple[str, str]]:
    """200 pairs of sentences. The first word of a pair gives its class away."""
    found = [f"{LABELS[i % 3]} {' '.join(text.split()[:10])}" for i, text in enumerate(sentences())]
    return list(zip(found, [*found[7:], *found[:7]], strict=True))


def questions() -> list[dict[str, Any]]:
    """200 questions about sentences; the answer to "¿Qué sigue a X?" is the word after X."""
    rows = []
    for i, text in enumerate(sentences()):
        words = text.split()[:20]
        at = i % max(1, len(words) - 1)
        context, start = " ".join(words), len(" ".join(words[:at + 1])) + 1
        answers = [{"text": words[at + 1], "answer_start": start}] if at + 1 < len(words) else []
        rows.append({"context": context, "qas": [{
            "id": str(i), "question": f"¿Qué sigue a {words[at]}?", "answers": answers,
            "is_impossible": not answers}]})
    return rows


def write_task(kind: str, folder: pathlib.Path) -> tuple[str, str]:
    """Writes a task of a kind with the same 200 examples in train and dev; its path and its data's."""
    folder.mkdir()
    if kind == "tagging":
        return "sample_pos", sample.TAGGING_DIR
    values: dict[str, Any] = {"kind": kind, "files": {"train": "all.txt", "dev": "all.txt"},
                              "layout": "tsv", "header": False}
    if kind == "question_answering":
        values |= {"layout": "squad", "metric": "exact_match", "unanswerable": True}
        del values["header"]
        (folder / "all.txt").write_text(json.dumps({"data": [{"paragraphs": questions()}]}))
    else:
        columns = {"text": 0, "text_pair": 1}
        if kind == "classification":
            values |= {"columns": {**columns, "label": 2}, "labels": LABELS, "metric": "accuracy"}
        else:
            values |= {"columns": {**columns, "score": 2}, "score_range": RANGE, "metric": "pearson"}
        ranks = np.argsort(np.argsort([len(a) + len(b) for a, b in pairs()]))  # 0 to 199
        lines = []
        for (a, b), rank in zip(pairs(), ranks, strict=True):
            gold = a.split()[0] if kind == "classification" else f"{1 + 4 * rank / 199:.3f}"
            lines.append(f"{a}\t{b}\t{gold}\n")
        (folder / "all.txt").write_text("".join(lines))
    path = folder / f"small_{kind}.json"
    path.write_text(json.dumps(values))
    return str(path), str(folder)


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    """`model_of(kind)`: the directory of a fine-tuned model."""
    root = tmp_path_factory.mktemp("finetuned")
    sizes = dict(max_position_embeddings=LENGTH + 3)
    random = write_model_dir(root / "random", "wordpiece", **sizes)
    # From weights that are all random, classes are not learnt in so few steps.
    plain = write_model_dir(root / "plain", "wordpiece", random=False, **sizes)

    @functools.cache
    def model_of(kind: str) -> str:
        path, data = write_task(kind, root / f"{kind}-task")
        # Seeds 1, 2 and 3 reach 1.0 on dev. At a rate of 1e-2 one of them ends with one class only.
        more = dict(learning_rate=3e-3, epochs=20) if kind == "classification" else {}
        config = from_dict(FinetuningConfig, {**SETTINGS, **more})
        output = root / kind
        finetune(load_task(path), config, model=str(plain if kind == "classification" else random),
                 data_dir=data, output=str(output))
        return str(output / "trial-1" / "model")

    return model_of


def examples_of(kind: str) -> list[Any]:
    if kind == "tagging":
        task = load_task("sample_pos")
        read = [example for split in ("train", "dev", "test")
                for example in read_split(task, split, sample.TAGGING_DIR).examples]
        return [TaggingExample(example.words, example.labels) for example in read][:200]
    if kind == "question_answering":
        return [Question(q["id"], q["question"], row["context"], ())
                for row in questions() for q in row["qas"]]
    return [TextExample(pair, LABELS[0] if kind == "classification" else 1.0) for pair in pairs()]


def ours(finetuned: Finetuned, examples: list[Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The inputs of the examples, under the names of transformers, and our logits."""
    features = make_features(finetuned.task, finetuned.tokenizer, examples, finetuned.config)
    assert [row.example for row in features] == list(range(len(examples))) and len(examples) == 200
    shape = (len(features), max(map(len, features)))
    ids, mask, segments = (np.zeros(shape, np.int32) for _ in range(3))
    for i, row in enumerate(features):
        ids[i, :len(row)], mask[i, :len(row)], segments[i, :len(row)] = row.input_ids, 1, row.segment_ids
    logits = finetuned.model(ids, mask, segments).numpy()
    assert np.std(logits) > 0.03, "logits too alike for a comparison to mean much"
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}, logits


def tokenized(tokenizer: Any, kind: str, examples: list[Any]) -> Any:
    """The inputs of the examples as a user of transformers makes them."""
    if kind == "tagging":
        texts: tuple[Any, ...] = ([list(example.words) for example in examples],)
    elif kind == "question_answering":
        texts = ([e.question for e in examples], [e.context for e in examples])
    else:
        texts = tuple(list(texts) for texts in zip(*(e.texts for e in examples), strict=True))
    return tokenizer(*texts, is_split_into_words=kind == "tagging", padding=True, return_tensors="np")


def check(finetuned: Finetuned, examples: list[Any], batch: Any, outputs: list[np.ndarray],
          labels: dict[int, str]) -> None:
    """Compares an export's outputs for 200 examples with the model's: logits, and what follows."""
    inputs, logits = ours(finetuned, examples)
    for name, array in inputs.items():
        np.testing.assert_array_equal(batch[name], array)
    kind, real = finetuned.task.kind, inputs["attention_mask"] > 0
    if kind == "regression":
        scores = outputs[0].reshape(-1)
        np.testing.assert_allclose(scores, RANGE[0] + (RANGE[1] - RANGE[0]) * logits[:, 0], atol=1e-4)
        np.testing.assert_allclose(scores, rate(finetuned, [e.texts for e in examples]), atol=1e-4)
    elif kind == "classification":
        assert np.max(np.abs(outputs[0] - logits)) <= 1e-4
        named = [labels[i] for i in outputs[0].argmax(axis=-1)]
        expected = classify(finetuned, [e.texts for e in examples])
        assert named == [max(row, key=row.__getitem__) for row in expected] and len(set(named)) > 1
    elif kind == "tagging":
        assert np.max(np.abs(outputs[0] - logits)[real]) <= 1e-4
        named = []
        for i in range(len(examples)):
            words = batch.word_ids(i)
            named.append([labels[outputs[0][i, words.index(word)].argmax()]
                          for word in range(len(examples[i].words))])
        assert named == tag(finetuned, [e.words for e in examples])
        assert len({label for row in named for label in row}) > 3
    else:
        for column, output in enumerate(outputs):
            assert np.max(np.abs(output - logits[..., column])[real]) <= 1e-4
        features = make_features(finetuned.task, finetuned.tokenizer, examples, finetuned.config)
        found = find_answers(examples, features, *outputs)
        expected = answer(finetuned, [(e.question, e.context) for e in examples])
        assert [found[e.id].text for e in examples] == [one.text for one in expected]
        assert len({one.text for one in expected}) > 50


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_gives_the_same(tmp_path, model_of, kind):
    import torch

    finetuned = load_finetuned(model_of(kind))
    exported = export_finetuned_huggingface(model_of(kind), str(tmp_path / "out"))
    assert exported.parts == [finetuned.task.name]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    architecture, = config["architectures"]
    peer, report = getattr(transformers, architecture).from_pretrained(
        str(tmp_path / "out"), output_loading_info=True)
    assert not any(report.values()), report
    examples = examples_of(kind)
    batch = tokenized(transformers.AutoTokenizer.from_pretrained(str(tmp_path / "out")), kind, examples)
    with torch.no_grad():
        outputs = peer.eval()(**{name: torch.tensor(batch[name]) for name in batch})
    found = ([outputs.start_logits, outputs.end_logits] if kind == "question_answering"
             else [outputs.logits])
    if kind in ("tagging", "classification"):
        assert tuple(peer.config.id2label.values()) == finetuned.task.labels
        assert peer.config.label2id == finetuned.task.label_ids
    check(finetuned, examples, batch, [one.numpy() for one in found], peer.config.id2label)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_the_pipeline_of_transformers_says_the_same(tmp_path, model_of, kind):
    export_finetuned_huggingface(model_of(kind), str(tmp_path / "out"))
    pipe = transformers.pipeline("text-classification", model=str(tmp_path / "out"), device="cpu")
    found = pipe([{"text": a, "text_pair": b} for a, b in pairs()[:20]])
    finetuned = load_finetuned(model_of(kind))
    if kind == "regression":
        scores = [one["score"] for one in found]
        np.testing.assert_allclose(scores, rate(finetuned, pairs()[:20]), atol=1e-4)
        return
    for one, expected in zip(found, classify(finetuned, pairs()[:20]), strict=True):
        assert one["label"] == max(expected, key=expected.__getitem__)
        assert one["score"] == pytest.approx(expected[one["label"]], abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_the_card_runs(tmp_path, monkeypatch, capsys, model_of, kind):
    monkeypatch.chdir(tmp_path)
    options = CardOptions(name="out", licence="cc0-1.0")
    export_finetuned_huggingface(model_of(kind), "out", options=options)
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlanguage:") and "license: \"cc0-1.0\"" in card
    assert "| dev/" in card and str(tmp_path) not in card
    exec(card.split("```python\n")[1].split("```")[0], {})
    assert capsys.readouterr().out


def test_more_labels_than_the_head_of_transformers_holds_are_refused(model_of):
    finetuned = load_finetuned(model_of("classification"))
    pretrainer = build_pretrainer(finetuned.model_config, vocabulary_facts(finetuned.tokenizer))
    for labels, fits in ((12, True), (13, False)):
        model = FinetuningModel(pretrainer, "classification", labels, 0.1)
        some = finetuned._replace(model=model)
        if fits:
            assert head_arrays(some, "here")["classifier.out_proj.weight"].shape == (12, 24)
            continue
        with pytest.raises(UsageError, match="here: 13 labels: expected at most 12, half of"):
            head_arrays(some, "here")


def test_a_trial_that_has_no_weights_yet_is_refused(tmp_path, model_of):
    source = pathlib.Path(model_of("tagging"))
    (tmp_path / "model").mkdir()
    for name in ("finetuned.json", "text.json", "vocab.txt"):
        (tmp_path / "model" / name).write_bytes((source / name).read_bytes())
    with pytest.raises(UsageError, match="expected at least one whole checkpoint"):
        export_finetuned_huggingface(str(tmp_path / "model"), str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


# ---- SavedModel


@pytest.fixture(scope="module")
def signatures_of(model_of, tmp_path_factory):
    """`signatures_of(kind)`: of its SavedModel, reloaded."""
    root = tmp_path_factory.mktemp("saved_models")

    @functools.cache
    def signatures_of(kind: str) -> Any:
        exported = export_finetuned_saved_model(model_of(kind), str(root / kind))
        assert exported.parts[0] == "score_ids"
        # The object has to stay: signatures alone do not keep its variables.
        return tf.saved_model.load(str(root / kind))

    return lambda kind: signatures_of(kind).signatures


def padded(sentences_of_words: list[tuple[str, ...]]) -> tf.Tensor:
    width = max(map(len, sentences_of_words)) + 2
    return tf.constant([[*words, *[""] * (width - len(words))] for words in sentences_of_words])


def test_saved_model_tags_words(model_of, signatures_of):
    finetuned, examples = load_finetuned(model_of("tagging")), examples_of("tagging")
    found = signatures_of("tagging")["tag_words"](words=padded([e.words for e in examples]))
    labels = [[label.decode() for label in row if label] for row in found["labels"].numpy()]
    assert labels == tag(finetuned, [e.words for e in examples])
    assert len({label for row in labels for label in row}) > 3
    features = make_features(finetuned.task, finetuned.tokenizer, examples, finetuned.config)
    inputs, logits = ours(finetuned, examples)
    for i, row in enumerate(features):
        first = np.flatnonzero(row.words >= 0)
        assert np.max(np.abs(found["logits"][i, :len(first)] - logits[i, first])) <= 1e-4
        assert np.all(found["label_ids"][i, len(first):] == -1)
    scored = signatures_of("tagging")["score_ids"](
        input_ids=tf.constant(inputs["input_ids"]), input_mask=tf.constant(inputs["attention_mask"]),
        segment_ids=tf.constant(inputs["token_type_ids"]))
    assert np.max(np.abs(scored["logits"] - logits)[inputs["attention_mask"] > 0]) <= 1e-4


def test_saved_model_reads_long_sentences_and_words_without_pieces(model_of, signatures_of):
    """Windows, [UNK] and cut words are those of training."""
    finetuned = load_finetuned(model_of("tagging"))
    words = tuple(" ".join(sentences()).split())
    strange = ("\u200b", "casa", "\ufffd", "x" * 300, "", "fin")
    cases = [words[:1238], strange, ("sola",), words[50:400], ()]
    found = signatures_of("tagging")["tag_words"](words=padded(cases))
    known = [row for row in cases if row]
    expected = outputs_for(finetuned, [TaggingExample(row, ("NOUN",) * len(row)) for row in known])
    for row, probabilities in zip(known, expected, strict=True):
        got = found["probabilities"].numpy()[cases.index(row), :len(row)]
        np.testing.assert_allclose(got, probabilities, atol=1e-4)
    assert not any(found["labels"].numpy()[4])
    assert signatures_of("tagging")["tag"](texts=tf.constant([""]))["labels"].shape == (1, 0)


def test_saved_model_tags_text(signatures_of):
    text = "Los EE.UU. (a las 7:45) «año» 3,5 %... niño"
    found = signatures_of("tagging")["tag"](texts=tf.constant([text, "Fin"]))
    words = [word.decode() for word in found["words"].numpy()[0]]
    assert words == ["Los", "EE.UU", ".", "(", "a", "las", "7:45", ")", "«", "año", "»", "3,5", "%",
                     "...", "niño"]
    data = text.encode()
    assert [data[a:b].decode() for a, b in found["offsets"].numpy()[0]] == words
    alone = signatures_of("tagging")["tag_words"](words=tf.constant([words, ["Fin"] + [""] * 14]))
    np.testing.assert_array_equal(found["labels"], alone["labels"])


def test_windows_in_the_graph_are_those_of_the_features():
    random = np.random.default_rng(4)
    for budget in (3, 7, 20, 126):
        rows = [random.integers(1, min(budget, 9) + 1, size).tolist()
                for size in (0, 1, 5, 40, 300, *random.integers(1, 80, 12))]
        windows = cut(tf.ragged.constant(rows, tf.int64, row_splits_dtype=tf.int64), budget)
        found = [[] for _ in rows]
        for sentence, *window in zip(*(part.numpy().tolist() for part in windows), strict=True):
            found[sentence].append(tuple(window))
        assert found == [word_windows(row, budget) for row in rows]


def test_saved_model_classifies_and_cuts_as_training_does(model_of, signatures_of):
    finetuned = load_finetuned(model_of("classification"))
    long = " ".join(sentences())
    some = [*pairs(), (long, "Corta."), ("Corta.", long), (long, long[500:]), ("", "\u200b")]
    found = signatures_of("classification")["classify"](
        texts=tf.constant([a for a, _ in some]), text_pairs=tf.constant([b for _, b in some]))
    expected = classify(finetuned, some)
    np.testing.assert_allclose(found["probabilities"], [list(row.values()) for row in expected],
                               atol=1e-4)
    named = [label.decode() for label in found["labels"].numpy()]
    assert named == [max(row, key=row.__getitem__) for row in expected] and len(set(named)) > 1
    assert found["truncated"].numpy().tolist() == [False] * 200 + [True] * 3 + [False]
    _, logits = ours(finetuned, examples_of("classification"))
    assert np.max(np.abs(found["logits"][:200] - logits)) <= 1e-4


def test_saved_model_rates(model_of, signatures_of):
    found = signatures_of("regression")["rate"](
        texts=tf.constant([a for a, _ in pairs()]), text_pairs=tf.constant([b for _, b in pairs()]))
    scores = rate(load_finetuned(model_of("regression")), pairs())
    np.testing.assert_allclose(found["scores"], scores, atol=1e-4)


def test_saved_model_answers(model_of, signatures_of):
    """Contexts of one window and of many."""
    finetuned = load_finetuned(model_of("question_answering"))
    asked = [(e.question, e.context) for e in examples_of("question_answering")]
    asked += [("¿Qué?", " ".join(sentences()[i:i + 20])) for i in (0, 50)]
    found = signatures_of("question_answering")["answer"](
        questions=tf.constant([q for q, _ in asked]), contexts=tf.constant([c for _, c in asked]))
    expected = answer(finetuned, asked)
    np.testing.assert_allclose(found["scores"], [one.score for one in expected], atol=1e-4)
    np.testing.assert_allclose(found["null_differences"], [one.null_difference for one in expected],
                               atol=2e-4)
    # The sample's text is in its normal form, so that answers are parts of both.
    assert [one.decode() for one in found["answers"].numpy()] == [one.text for one in expected]
    for text, (start, end), one in zip(found["normalized"].numpy(), found["offsets"].numpy(),
                                       found["answers"].numpy(), strict=True):
        assert text[start:end] == one
    empty = signatures_of("question_answering")["answer"](
        questions=tf.constant(["¿Qué?"]), contexts=tf.constant([""]))
    assert empty["answers"].numpy()[0] == b"" and empty["scores"].numpy()[0] == -np.inf


def test_saved_model_needs_only_tensorflow(tmp_path, model_of):
    export_finetuned_saved_model(model_of("tagging"), str(tmp_path / "out"))
    code = ("import sys, tensorflow as tf, tensorflow_text\n"
            "model = tf.saved_model.load('out')\n"
            "found = model.signatures['tag'](texts=tf.constant(['La casa.']))\n"
            "print(found['labels'].numpy()[0].tolist())\n"
            "print(sorted({name.partition('.')[0] for name in sys.modules}\n"
            "             & {'electra_es', 'tf_keras', 'official'}))")
    # As a user's process has it: without what importing electra_es has put there.
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("PYTHONPATH", "TF_USE_LEGACY_KERAS")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
                          timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    finetuned = load_finetuned(model_of("tagging"))
    labels, modules = done.stdout.splitlines()
    assert labels == str([label.encode() for label in tag(finetuned, [("La", "casa", ".")])[0]])
    assert modules == "[]"


def test_a_difference_is_found_and_nothing_is_left(tmp_path, monkeypatch, model_of):
    from electra_es.finetuning.export import saved_model

    def save(module, path, real=saved_model.save):
        function = module.functions["rate"]
        signature = function.input_signature
        module.functions["rate"] = tf.function(
            lambda *texts: {"scores": function(*texts)["scores"] + 0.01}, input_signature=signature)
        real(module, path)

    monkeypatch.setattr(saved_model, "save", save)
    with pytest.raises(CheckFailed, match="scores of rate"):
        export_finetuned_saved_model(model_of("regression"), str(tmp_path / "out"))
    assert not list(tmp_path.iterdir())


# ---- ONNX


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_gives_the_same(tmp_path, model_of, kind):
    onnxruntime = pytest.importorskip("onnxruntime", reason="requirements-onnx.txt is not installed")
    pytest.importorskip("onnxscript", reason="requirements-onnx.txt is not installed")
    from electra_es.finetuning.export.onnx_model import export_finetuned_onnx, outputs_of

    export_finetuned_onnx(model_of(kind), str(tmp_path / "onnx"))
    finetuned, examples = load_finetuned(model_of(kind)), examples_of(kind)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "onnx"))
    batch = tokenized(tokenizer, kind, examples)
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    assert [one.name for one in session.get_outputs()] == outputs_of(kind)
    outputs = session.run(None, {one.name: batch[one.name] for one in session.get_inputs()})
    check(finetuned, examples, batch, outputs, dict(enumerate(finetuned.task.labels)))


# ---- The commands


@pytest.mark.parametrize("module, marker", [
    ("saved_model", "saved_model.pb"), ("huggingface", "model.safetensors"),
    ("onnx_model", "model.onnx")])
def test_the_commands_know_what_model_dir_is(tmp_path, monkeypatch, capsys, model_of, module, marker):
    if module == "onnx_model":
        pytest.importorskip("onnxscript", reason="requirements-onnx.txt is not installed")
    source, target = model_of("tagging"), tmp_path / "out"
    name = f"electra_es.export.{module}.__main__"
    fresh_flags(monkeypatch, name, [f"--model_dir={source}", f"--output={target}"])
    main_of(name)()
    printed = capsys.readouterr().out
    assert f"{target}: " in printed and f"equal to {source} in" in printed
    assert (target / marker).exists() and json.loads((target / "export.json").read_text())["step"] > 0


def test_flags_for_the_card_of_a_pretraining_are_refused(tmp_path, monkeypatch, model_of):
    name = "electra_es.export.huggingface.__main__"
    fresh_flags(monkeypatch, name, [f"--model_dir={model_of('tagging')}", f"--output={tmp_path}/out",
                                    "--watts=300"])
    with pytest.raises(UsageError, match="--watts has no effect with a fine-tuned model"):
        main_of(name)()
