"""Exports of really fine-tuned tiny models give the labels and logits of the models.

Each kind is fine-tuned by the function that the command calls, on the words and texts of the bundled
sample; 200 examples are compared.
"""

import functools
import json
import pathlib
from typing import Any

import numpy as np
import pytest
import transformers
from export_helpers import sentences, write_model_dir
from finetuning_helpers import KINDS

from electra_es import sample
from electra_es.config import from_dict
from electra_es.errors import UsageError
from electra_es.export.model_card import CardOptions
from electra_es.finetuning.data import make_features
from electra_es.finetuning.examples import Question, TaggingExample, TextExample
from electra_es.finetuning.export.huggingface import export_finetuned_huggingface
from electra_es.finetuning.export.transformers_form import head_arrays
from electra_es.finetuning.finetune import finetune
from electra_es.finetuning.model import FinetuningModel
from electra_es.finetuning.predict import answer, classify, rate, tag
from electra_es.finetuning.questions import find_answers
from electra_es.finetuning.readers import read_split
from electra_es.finetuning.saved import Finetuned, load_finetuned
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.tasks import load_task
from electra_es.model.pretrainer import build_pretrainer
from electra_es.training.run_dir import vocabulary_facts

LENGTH = 128  # all of the examples fit
SETTINGS = dict(max_seq_length=LENGTH, stride=32, epochs=6, train_batch_size=25, learning_rate=1e-2,
                distribution="cpu", jit_compile="off", log_every=100)
LABELS = ("corta", "larga", "media")
RANGE = (1.0, 5.0)


def pairs() -> list[tuple[str, str]]:
    """200 pairs of sentences."""
    found = [" ".join(text.split()[:12]) for text in sentences()]
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
        lines = []
        for a, b in pairs():
            size = len(a) + len(b)
            gold = (LABELS[0] if size < 100 else LABELS[2] if size < 130 else LABELS[1]
                    ) if kind == "classification" else f"{1 + 4 * min(size, 200) / 200:.3f}"
            lines.append(f"{a}\t{b}\t{gold}\n")
        (folder / "all.txt").write_text("".join(lines))
    path = folder / f"small_{kind}.json"
    path.write_text(json.dumps(values))
    return str(path), str(folder)


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    """`model_of(kind)`: the directory of a fine-tuned model."""
    root = tmp_path_factory.mktemp("finetuned")
    pretrained = write_model_dir(root / "pretrained", "wordpiece", max_position_embeddings=LENGTH + 3)

    @functools.cache
    def model_of(kind: str, **settings: Any) -> str:
        path, data = write_task(kind, root / f"{kind}-task")
        config = from_dict(FinetuningConfig, {**SETTINGS, **settings})
        output = root / kind
        finetune(load_task(path), config, model=str(pretrained), data_dir=data, output=str(output))
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
    assert np.std(logits) > 0.1, "logits too alike for a comparison to mean much"
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
        assert len({label for row in named for label in row}) > 4
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
    assert capsys.readouterr().out.strip()


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
