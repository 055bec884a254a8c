"""`python -m electra_es.exam` on every form of a model, and on each checkpoint of a run."""

import csv
import json
import shutil

import pytest
from command_helpers import fresh_flags
from export_helpers import exports_dir, model_dir

from electra_es.errors import UsageError
from electra_es.exam.__main__ import main
from electra_es.exam.any_model import examine
from electra_es.export.huggingface.read import import_folder
from electra_es.minimal_pairs.pairs import load_pairs

PAIRS = load_pairs("", ["ser_estar", "tense"])[::4]


@pytest.fixture
def run(monkeypatch, capsys):
    def command(*arguments: str) -> str:
        fresh_flags(monkeypatch, "electra_es.exam", arguments)
        main()
        return capsys.readouterr().out

    return command


@pytest.fixture(scope="module")
def exports():
    return exports_dir()


def test_every_form_of_the_model_has_the_same_results(exports):
    source, = examine(str(model_dir("wordpiece")), PAIRS)
    assert source.step == 7 and source.result.all.generator
    both, = examine(str(exports / "published"), PAIRS)
    assert both == source
    for form in ("saved_model", "published/discriminator"):
        found, = examine(str(exports / form), PAIRS)
        assert found.step == 7 and found.result.all.generator is None
        assert found.result.all.discriminator == source.result.all.discriminator
    found, = examine(str(exports / "published/generator"), PAIRS)
    assert found.result.all.discriminator is None
    assert found.result.all.generator == source.result.all.generator


def test_pairs_of_many_lengths_warn_of_nothing(caplog):
    """TensorFlow warns of a function that is traced often; here each length is traced once."""
    pairs = load_pairs("", ["accents", "agreement"])
    with caplog.at_level("WARNING", logger="tensorflow"):
        examine(str(model_dir("wordpiece")), pairs[:8] + pairs[-8:])
    assert not caplog.records


def test_a_generator_that_was_never_trained_takes_no_part(exports, tmp_path):
    import_folder(str(exports / "published/discriminator"), str(tmp_path / "imported"))
    found, = examine(str(tmp_path / "imported"), PAIRS)
    assert found.step == 0 and found.result.all.generator is None and found.result.all.discriminator


def test_what_has_no_effect_is_refused(exports, tmp_path, run):
    with pytest.raises(UsageError, match="--steps=all: .*saved_model has no checkpoints"):
        examine(str(exports / "saved_model"), PAIRS, every_step=True)
    with pytest.raises(UsageError, match=r"--records=R: .*saved_model does not tell the ids"):
        examine(str(exports / "saved_model"), PAIRS, records="R")
    with pytest.raises(UsageError, match="--show_wrong: has no effect with --steps=all"):
        run(f"--model={tmp_path}", "--steps=all", "--show_wrong=3")
    with pytest.raises(UsageError, match=r"a.png: expected a name in .json or .csv; .png .* --steps=all"):
        run(f"--model={model_dir('wordpiece')}", f"--output={tmp_path}/a.png")
    with pytest.raises(UsageError, match=r"--model=.*: expected a model directory, a SavedModel"):
        run(f"--model={tmp_path}")


def test_the_table_the_wrong_answers_and_the_files(run, tmp_path):
    text = run(f"--model={model_dir('wordpiece')}", "--phenomenon=tense,ser_estar", "--show_wrong=2",
               f"--output={tmp_path}/exam.json")
    lines = text.splitlines()
    assert lines[0].endswith(": weights of step 7")
    assert lines[1].split() == ["phenomenon", "pairs", "discriminator", "generator"]
    assert [line.split()[:2] for line in lines[2:5]] == [
        ["ser_estar", "54"], ["tense", "54"], ["all", "108"]]
    values = json.loads((tmp_path / "exam.json").read_text())
    assert values["step"] == 7
    assert [each["name"] for each in values["phenomena"]] == ["ser_estar", "tense"]
    assert f"{values['all']['generator']['accuracy']:.3f} (" in lines[4]
    wrong = [line for line in lines if line.startswith("  ")]
    assert len(wrong) == 4 and " right " in wrong[0] and ", wrong " in wrong[0]
    run(f"--model={model_dir('wordpiece')}", "--phenomenon=tense", f"--output={tmp_path}/exam.csv")
    with open(tmp_path / "exam.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["phenomenon"], row["examinee"]) for row in rows] == [
        ("tense", "discriminator"), ("tense", "generator"),
        ("all", "discriminator"), ("all", "generator")]
    assert float(rows[0]["accuracy"]) == pytest.approx(
        values["phenomena"][1]["discriminator"]["accuracy"], abs=1e-4)


def test_own_pairs(run, tmp_path):
    (tmp_path / "saludos.txt").write_text("[Buenos|Buenas] días.\n[Buenas|Buenos] tardes.\n", "utf-8")
    text = run(f"--model={model_dir('wordpiece')}", f"--pairs={tmp_path}/saludos.txt")
    assert [line.split()[:2] for line in text.splitlines()[2:]] == [["saludos", "2"], ["all", "2"]]


def test_each_checkpoint_of_a_run(real_run, run, tmp_path):
    """Of a real one, with the counts of its records; a damaged checkpoint is left out."""
    copy = tmp_path / "run"
    shutil.copytree(real_run.model_dir, copy)
    steps = sorted(int(path.name[5:]) for path in (copy / "checkpoints").iterdir())
    assert len(steps) == 3
    (copy / "checkpoints" / f"step-{steps[1]:08d}" / "ckpt.index").write_bytes(b"")
    text = run(f"--model={copy}", "--steps=all", "--phenomenon=accents,tense",
               f"--records={real_run.data.data_dir}", f"--output={tmp_path}/steps.json")
    tables = text.split("\n\n")
    assert tables[0].splitlines()[0].split() == [
        "discriminator", "pairs", f"{steps[0]:,}", f"{steps[2]:,}"]
    assert tables[2].splitlines()[0].split() == ["counting", "pairs", "share"]
    values = json.loads((tmp_path / "steps.json").read_text())
    assert [each["step"] for each in values["steps"]] == [steps[0], steps[2]]
    last, = examine(str(copy), load_pairs("", ["accents", "tense"]), records=real_run.data.data_dir)
    assert values["steps"][-1] == json.loads(json.dumps(last.to_json()))
    for ending in ("png", "svg"):
        run(f"--model={copy}", "--steps=all", "--phenomenon=accents",
            f"--output={tmp_path}/curve.{ending}")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    drawn = (tmp_path / "curve.svg").read_text()
    assert "Exam: accents" in drawn and "Exam: all" in drawn
