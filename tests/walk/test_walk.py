"""All steps from text to use, with the commands that a user types.

Every step works on what the step before really wrote. `make test` walks it once, for the default
objective; `make walk` (`pytest tests/walk --walk`) walks every variant, with longer runs.
"""

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from paths import SAMPLE
from walker import Walk

SENTENCE = "Estamos desayunando pan rosa con tomate y aceite de oliva."
# Sizes that differ from each other, as in the other tests.
MODEL = ("--embedding_size=20", "--hidden_size=48", "--num_layers=2", "--num_heads=3",
         "--intermediate_size=96")
GENERATOR = ("--generator_heads=2", "--generator_width=0.5")
STEPS = 24


class Variant(NamedTuple):
    """A variant: its flags that differ from the defaults, and the parts of its model."""

    training: tuple[str, ...] = GENERATOR
    vocabulary: tuple[str, ...] = ()
    discriminator: bool = True
    generator: bool = True  # whether transformers has a class for it
    imported: str = "published"  # what is imported back


VARIANTS = {
    "electra": Variant(),
    "mlm": Variant(("--objective=mlm",), discriminator=False),
    "electric": Variant((*GENERATOR, "--objective=electric", "--generator_kind=two_tower"),
                        generator=False),
    # Published, its towers have a table each; a model with two tables of two widths is not imported.
    "disentangled": Variant((*GENERATOR, "--embedding_sharing=gradient_disentangled"),
                            imported="published/discriminator"),
    "sentencepiece": Variant(vocabulary=("--tokenizer=sentencepiece",)),
    "bfloat16": Variant((*GENERATOR, "--precision=bfloat16")),
    "two_replicas": Variant((*GENERATOR, "--distribution=cpu", "--cpu_replicas=2")),
}


@pytest.fixture(scope="module", params=VARIANTS)
def road(request, tmp_path_factory) -> tuple[Walk, Variant]:
    """Text, vocabulary, records and a run of one variant, stopped once and resumed."""
    if request.param != "electra" and not request.config.getoption("--walk"):
        pytest.skip("make walk walks this one")
    variant = VARIANTS[request.param]
    walk = Walk(tmp_path_factory.mktemp(request.param))
    shutil.copytree(SAMPLE / "train", walk.folder / "text")
    shutil.copytree(SAMPLE / "validation", walk.folder / "held_out")

    walk.run("data_prep.train_vocabulary", "--input=text/*.txt", "--output=vocabulary",
             "--vocab_size=1200", *variant.vocabulary)
    walk.run("data_prep.build_tfrecords", "--input=text/*.txt", "--validation_input=held_out/*.txt",
             "--vocab_dir=vocabulary", "--output=records", "--max_seq_length=64", "--workers=2")
    assert "validation:" in walk.run("data_prep.inspect_tfrecords", "--records=records", "--num=1",
                                     "--vocab_dir=vocabulary")
    walk.run("data_prep.audit_vocabulary", "--vocab_dir=vocabulary", "--records=records",
             "--output=audit.json")

    assert walk.run("run_pretraining.py", f"--num_train_steps={STEPS}", "--print_schedule")
    stopped = walk.stop_at(rf"^step \d+/{STEPS}", *training(variant))
    at = int(re.search(r"stopped by a signal at step (\d+); saved", stopped)[1])
    resumed = walk.run(*training(variant))
    assert f"step {at} of {STEPS}" in resumed and f"step {STEPS}/{STEPS}" in resumed
    return walk, variant


def training(variant: Variant, model_dir: str = "model") -> list[str]:
    return ["run_pretraining.py", "--data_dir=records", "--vocab_dir=vocabulary",
            f"--model_dir={model_dir}", "--max_seq_length=64", f"--num_train_steps={STEPS}",
            "--train_batch_size=16", "--eval_batch_size=8", "--log_every=4", "--save_every=8",
            "--steps_per_loop=4", *MODEL, *variant.training]


def test_evaluate_and_report(road):
    walk, variant = road
    before = json.loads((walk.folder / "model" / "evaluation.json").read_text())
    assert before["step"] == STEPS
    assert ("disc_auc" in before) == variant.discriminator
    log = (walk.folder / "model" / "metrics.jsonl").read_text()
    printed = walk.run("run_pretraining.py", "--mode=evaluate", "--data_dir=records", "--model_dir=model")
    assert ("AUC" in printed) == variant.discriminator
    # The same weights, masks and samples: nothing new to say, and nothing said twice.
    assert json.loads((walk.folder / "model" / "evaluation.json").read_text()) == before
    assert (walk.folder / "model" / "metrics.jsonl").read_text() == log
    for name in ("report.html", "report.png"):
        assert name in walk.run("electra_es.monitoring", "--model_dir=model", f"--output={name}")
        assert (walk.folder / name).stat().st_size > 10_000
    assert "accents" in walk.run("electra_es.exam", "--model=model", "--phenomenon=accents,enye",
                                 "--show_wrong=1")


def test_fine_tune_report_and_export(road):
    walk, _ = road
    walk.run("electra_es.finetuning.run", "--task=sample_pos", "--model=model", "--output=pos",
             "--num_trials=1", "--epochs=1", "--max_seq_length=64")
    walk.run("electra_es.finetuning.report", "--results=pos", "--output=results.md")
    assert "(`sample_pos`)" in (walk.folder / "results.md").read_text()
    walk.run("electra_es.export.saved_model", "--model_dir=pos/trial-1/model", "--output=tagger")
    walk.run("electra_es.export.huggingface", "--model_dir=pos/trial-1/model", "--output=tagger_hf",
             "--licence=apache-2.0", "--name=a/b")


def test_export_and_detect(road):
    walk, variant = road
    walk.run("electra_es.export.saved_model", "--model_dir=model", "--output=saved_model")
    walk.run("electra_es.export.huggingface", "--model_dir=model", "--output=published",
             "--licence=apache-2.0", "--name=a/b")
    parts = [part for part, there in (("discriminator", variant.discriminator),
                                      ("generator", variant.generator)) if there]
    for part in parts:
        card = (walk.folder / "published" / part / "README.md").read_text()
        assert card.startswith("---\n") and f"{STEPS}" in card
    assert sorted(path.name for path in (walk.folder / "published").iterdir() if path.is_dir()) == parts
    models = ["model", "saved_model", "published"]
    if variant.discriminator:
        models.append("published/discriminator")
        walk.run("electra_es.export.onnx_model", "--model_dir=model", "--output=onnx")
        models.append("onnx")
    scores = {}
    for model in models:
        if not variant.discriminator:
            walk.run("electra_es.detect", f"--model={model}", SENTENCE, expect=2)
            continue
        tokens = json.loads(walk.run("electra_es.detect", f"--model={model}", "--json", SENTENCE))
        scores[model] = [token["logit"] for token in tokens[0]["tokens"]]
        assert scores[model] == pytest.approx(scores["model"], abs=1e-4)
    if scores:
        assert len(set(scores["model"])) > 1


def test_import_and_go_on(road):
    walk, variant = road
    walk.run("electra_es.export.huggingface", f"--import_from={variant.imported}", "--output=imported")
    again = walk.run("electra_es.export.huggingface", "--model_dir=imported", "--output=again")
    assert "read back and equal" in again
    part = "discriminator" if variant.discriminator else "generator"
    assert weights(walk.folder / "published" / part) == weights(walk.folder / "again" / part)
    # An import is a plain ELECTRA or MLM: two towers or deltas are not what transformers' classes have.
    go_on = VARIANTS["mlm"] if not variant.discriminator else VARIANTS["electra"]
    go_on = go_on._replace(vocabulary=variant.vocabulary)
    printed = walk.run(*training(go_on, "continued"), "--init_checkpoint=imported", "--stop_at_step=5")
    assert "weights of imported" in printed and "step 0 of" in printed


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_preflight_traces_the_step(road):
    """Without libtpu the command ends after the trace and names what is missing."""
    walk, variant = road
    if "sentencepiece" in str(variant.vocabulary) or "cpu_replicas" in str(variant.training):
        pytest.skip("the step is that of the default")
    try:
        import libtpu  # noqa: F401

        code, expected = 0, "it fits"
    except ImportError:
        code, expected = 2, ""
    assert expected in walk.run(
        "electra_es.preflight", "--topology=v2-8", "--train_batch_size=16", "--max_seq_length=64",
        "--vocab_size=1200", *MODEL, *variant.training, expect=code)
