"""Runs of several trials: going on after a kill, selection on dev only, the files that are left."""

import fnmatch
import json
import os
import pathlib
import shutil

import huggingface_hub
import numpy as np
import pytest
import tensorflow as tf
from finetuning_helpers import QUICK, CommandProcess, make_model_dir, task_of, write_task
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from electra_es.config import from_dict
from electra_es.errors import UsageError
from electra_es.export.huggingface.write import export_huggingface
from electra_es.finetuning import finetune as finetune_module
from electra_es.finetuning import trial as trial_module
from electra_es.finetuning import trials as trials_module
from electra_es.finetuning.finetune import finetune
from electra_es.finetuning.finetuner import Finetuner, TrialKeys
from electra_es.finetuning.grid import grid_points, parse_grid
from electra_es.finetuning.model import load_pretrained
from electra_es.finetuning.predict import tag
from electra_es.finetuning.saved import load_finetuned
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.tasks import load_task

RUN = "electra_es.finetuning.run"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> pathlib.Path:
    """A directory with a pretrained model and a task."""
    directory = tmp_path_factory.mktemp("runs")
    make_model_dir(directory)
    write_task(directory / "task")
    return directory


def arguments(place: pathlib.Path, output: str, *more: str) -> list[str]:
    return [f"--task={place}/task/tiny_tagging.json", f"--data={place}/task", f"--model={place}/tiny",
            f"--output={place}/{output}", "--deterministic", *more]


def run_here(place: pathlib.Path, output: str, grid: str = "", **settings):
    task = load_task(f"{place}/task/tiny_tagging.json")
    config = from_dict(FinetuningConfig, {**task.recipe, **settings})
    return finetune(task, config, model=f"{place}/tiny", data_dir=f"{place}/task",
                    output=f"{place}/{output}", grid=parse_grid(grid) if grid else None)


def timeless(results: dict) -> dict:
    """Results without what no two runs have in common."""
    trials = [{key: value for key, value in trial.items() if key != "seconds"}
              for trial in results["trials"]]
    return {**results, "trials": trials}


@pytest.fixture(scope="module")
def undisturbed(place) -> dict:
    CommandProcess(place / "undisturbed.log", RUN, *arguments(
        place, "undisturbed", "--num_trials=3", "--epochs=3")).wait()
    return json.loads((place / "undisturbed" / "results.json").read_text())


def test_a_run_that_was_killed_in_trial_3_of_5_gives_the_same_results(place):
    CommandProcess(place / "five.log", RUN, *arguments(
        place, "five", "--num_trials=5", "--epochs=3")).wait()
    undisturbed = json.loads((place / "five" / "results.json").read_text())
    command = arguments(place, "killed", "--num_trials=5", "--epochs=3", "--save_every=2")
    process = CommandProcess(place / "killed.log", RUN, *command)
    process.wait_for(r"trial 3 of 5.*^step 5/9")
    process.process.kill()
    process.process.join()
    run = place / "killed"
    assert not (run / "results.json").exists() and not (run / "trial-3" / "trained.json").exists()
    finished = {path: path.stat().st_mtime_ns for number in (1, 2)
                for path in (run / f"trial-{number}").rglob("*") if path.is_file()}
    printed = CommandProcess(place / "killed-again.log", RUN, *command).wait()
    assert "trial 1 of 5" not in printed and "trial 2 of 5" not in printed
    assert "trial 3 of 5: step 4 of 9" in printed or "trial 3 of 5: step 3 of 9" in printed
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    results = json.loads((run / "results.json").read_text())
    assert {**timeless(results), "settings": {}} == {**timeless(undisturbed), "settings": {}}
    for trial in undisturbed["trials"]:
        for name in trial["predictions"].values():
            assert (run / name).read_bytes() == (place / "five" / name).read_bytes()
    # As TensorBoard reads them: what was repeated is there once.
    shown = EventAccumulator(str(run / "trial-3" / "summaries" / "train")).Reload().Tensors("loss")
    assert [event.step for event in shown] == list(range(1, 10))


def test_what_a_run_leaves(place, undisturbed):
    assert undisturbed["metric"] == "entity_f1" and undisturbed["split"] == "test"
    assert undisturbed["id2label"] == {"0": "O", "1": "B-PER", "2": "I-PER"}
    assert set(undisturbed["metrics"]) == {
        "dev/entity_f1", "dev/accuracy", "test/entity_f1", "test/accuracy"}
    values = undisturbed["metrics"]["test/accuracy"]["values"]
    assert len(values) == 3
    assert undisturbed["metrics"]["test/accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert undisturbed["metrics"]["test/accuracy"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert undisturbed["mean"] == undisturbed["metrics"]["test/entity_f1"]["mean"]
    assert undisturbed["splits"]["train"]["examples"] == 10
    assert len({tuple(trial["head_seed"]) for trial in undisturbed["trials"]}) == 3
    run = place / "undisturbed"
    # Other heads, orders and dropouts. Scores of so few words may be equal, as they were on one machine.
    predictions = [run / trial["predictions"]["test"] for trial in undisturbed["trials"]]
    assert len({path.read_bytes() for path in predictions}) == 3
    for trial in undisturbed["trials"]:
        assert trial["steps"] == 9 and trial["seconds"] > 0
        lines = (run / trial["predictions"]["test"]).read_text().splitlines()
        assert len(lines) == undisturbed["splits"]["test"]["examples"] == 6
        first = json.loads(lines[0])
        assert len(first["words"]) == len(first["predicted"]) == len(first["probabilities"])
        assert sum(first["probabilities"][0]) == pytest.approx(1, abs=1e-5)
    assert (run / "trial-1" / "metrics.jsonl").exists() and os.listdir(run / "trial-1" / "summaries")
    assert not (run / "trial-1" / "checkpoints").exists()


def test_the_saved_model_predicts_what_the_run_did(place, undisturbed):
    run = place / "undisturbed"
    finetuned = load_finetuned(str(run / "trial-2" / "model"))
    rows = [json.loads(line) for line in
            (run / undisturbed["trials"][1]["predictions"]["test"]).read_text().splitlines()]
    assert tag(finetuned, [row["words"] for row in rows]) == [row["predicted"] for row in rows]


def test_more_trials_are_added_to_a_finished_run(place, undisturbed):
    shutil.copytree(place / "undisturbed", place / "more")
    printed = CommandProcess(place / "more.log", RUN, *arguments(
        place, "more", "--num_trials=4", "--epochs=3")).wait()
    assert "trial 4 of 4" in printed and "trial 3 of 4" not in printed
    results = json.loads((place / "more" / "results.json").read_text())
    values = results["metrics"]["test/accuracy"]["values"]
    assert values[:3] == undisturbed["metrics"]["test/accuracy"]["values"] and len(values) == 4


@pytest.fixture
def scored_splits(monkeypatch) -> list[str]:
    """The splits that are scored from now on, in order; "chosen" where a grid is decided."""
    seen: list[str] = []
    for module in (trial_module, trials_module):
        def record(data, split, *rest, original=module.score_split):
            seen.append(split)
            return original(data, split, *rest)

        monkeypatch.setattr(module, "score_split", record)

    def choose(*given, original=finetune_module.best_point):
        seen.append("chosen")
        return original(*given)

    monkeypatch.setattr(finetune_module, "best_point", choose)
    return seen


def test_selection_never_reads_test(place, scored_splits):
    results = run_here(place, "grid", "learning_rate=1e-2,1e-4", epochs=2, keep="best", num_trials=2)
    decided = scored_splits.index("chosen")
    assert set(scored_splits[:decided]) == {"dev"}
    # The chosen point is the first trial, which only test is scored of; then the second trial.
    assert scored_splits[decided + 1:] == ["test", "dev", "dev", "dev", "test"]
    assert len(results["grid"]) == 2 and results["trials"][0]["predictions"]["test"].startswith("grid/")
    best = max(results["grid"], key=lambda point: results["grid"][point]["dev/entity_f1"])
    assert results["trials"][0]["predictions"]["test"].startswith(f"grid/{best}/")
    assert all(name.startswith("dev/") for point in results["grid"].values() for name in point)


def test_selectra_watches_test_and_says_so(place, scored_splits):
    results = run_here(place, "selectra", protocol="selectra", epochs=2)
    assert scored_splits == ["test", "test", "test"]
    assert set(results["metrics"]) == {"test/entity_f1", "test/accuracy"}
    assert results["protocol"] == "selectra"


def test_the_best_epoch_is_kept_and_patience_ends_a_trial(place, monkeypatch):
    values = iter([0.3, 0.5, 0.4, 0.4, 0.9])
    original = trial_module.score_split

    def by_order(*given):
        found = original(*given)
        return found._replace(metrics={"dev/entity_f1": next(values), "dev/accuracy": 0.0})

    monkeypatch.setattr(trial_module, "score_split", by_order)
    results = run_here(place, "early", epochs=6, keep="best", early_stopping=2)
    assert (results["trials"][0]["kept_epoch"], results["trials"][0]["steps"]) == (2, 12)


class Stop:
    """Asks to stop at a given question."""

    def __init__(self, after: int):
        self.left = after

    def __call__(self, strategy) -> "Stop":
        return self

    def __enter__(self) -> "Stop":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def requested(self) -> bool:
        self.left -= 1
        return self.left == 0


def test_a_signal_saves_and_the_same_command_goes_on(place, monkeypatch):
    whole = run_here(place, "whole", epochs=2)
    with monkeypatch.context() as patched:
        patched.setattr(finetune_module, "StopSignal", Stop(4))
        assert run_here(place, "stopped", epochs=2) is None
    assert timeless(run_here(place, "stopped", epochs=2)) == timeless(whole)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_signal_while_a_split_is_scored(place, monkeypatch, capsys, split):
    """Nothing of the scoring is kept; the same command scores the split from its beginning."""
    whole = run_here(place, f"undisturbed, {split}", epochs=1)
    stop, name = Stop(0), f"stopped in {split}"
    scoring_forward = Finetuner.scoring_forward

    def stopped_here(self, scored, given):
        stop.left = 1 if scored == split else 0
        return scoring_forward(self, scored, given)

    with monkeypatch.context() as patched:
        patched.setattr(finetune_module, "StopSignal", lambda strategy: stop)
        patched.setattr(Finetuner, "scoring_forward", stopped_here)
        assert run_here(place, name, epochs=1) is None
    assert f"stopped by a signal while {split} was scored" in capsys.readouterr().out
    assert timeless(run_here(place, name, epochs=1)) == timeless(whole)


def test_another_run_in_the_same_place_is_refused(place):
    run_here(place, "same", epochs=1)
    with pytest.raises(UsageError, match="learning_rate=0.01, this one has learning_rate=0.02"):
        run_here(place, "same", epochs=1, learning_rate=0.02)


def test_grids():
    assert len(grid_points(FinetuningConfig(), parse_grid("evales"))) == 12
    points = grid_points(FinetuningConfig(), parse_grid("learning_rate=1e-5,3e-5 train_batch_size=8"))
    assert list(points) == ["learning_rate-1e-05_train_batch_size-8",
                            "learning_rate-3e-05_train_batch_size-8"]
    assert [(c.learning_rate, c.train_batch_size) for c in points.values()] == [(1e-5, 8), (3e-5, 8)]
    for text in ("evals", "learning_rat=1", "learning_rate=", "learning_rate=x", "seed=1,2"):
        with pytest.raises(UsageError, match="--grid"):
            parse_grid(text)


@pytest.mark.parametrize("change, complaint", [
    (["--task="], "--task="),
    (["--task=conll2002_po"], 'did you mean "conll2002_pos"'),
    (["--output=gs://x/y"], "--output=gs://x/y: expected a local directory"),
    (["--tpu=mine"], "--tpu=mine: expected local"),
    (["--model="], "--model="),
    (["--model=/no/such"], "--model=/no/such: no such directory"),
    (["--output="], "--output="),
    (["--data=/no/such"], "expected files to score on"),
    (["--epochs=0"], "epochs=0: expected a positive number"),
    (["--learning_rat=1"], "learning_rate"),
    (["--protocol=selectr"], 'did you mean "selectra"'),
    (["--protocol=selectra", "--keep=best"], "keep='best': expected"),
    (["--protocol=selectra", "--grid=evales"], "select on dev"),
    (["--grid=best"], "--grid=best"),
    (["--max_seq_length=512"], "max_seq_length=512: expected at most 17"),
    (["stray"], "stray: expected only flags")])
def test_wrong_use_is_told_in_one_line(place, tmp_path, change, complaint):
    process = CommandProcess(tmp_path / "log", RUN, *arguments(place, "refused"), *change)
    printed = process.wait(2)
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and complaint in errors[0] and "Traceback" not in printed


def test_replicas_share_a_batch(place, tmp_path):
    """Without dropout, two replicas do what one does; 10 examples fill no whole batch of 4."""
    model = make_model_dir(tmp_path, hidden_dropout=0.0, attention_dropout=0.0)
    found = []
    for replicas in (1, 2):
        name = f"replicas-{replicas}"
        CommandProcess(tmp_path / f"{name}.log", RUN, *arguments(place, name), f"--model={model}",
                       "--epochs=2", f"--cpu_replicas={replicas}").wait()
        lines = (place / name / "trial-1" / "predictions-test.jsonl").read_text().splitlines()
        found.append([p for line in lines for word in json.loads(line)["probabilities"] for p in word])
    np.testing.assert_allclose(*found, atol=2e-4)


@pytest.mark.parametrize("missing, complaint", [
    ("--task", "--task: expected the name of a task"), ("--model", "--model: expected a model"),
    ("--output", "--output: expected a directory"), ("--data", "--data: expected the directory")])
def test_a_missing_flag_is_told_in_one_line(place, tmp_path, missing, complaint):
    given = [argument for argument in arguments(place, "refused") if not argument.startswith(missing)]
    printed = CommandProcess(tmp_path / "log", RUN, *given).wait(2)
    assert complaint in printed and "Traceback" not in printed


def test_a_model_of_the_hub_is_imported_without_its_pickle(place, tmp_path, monkeypatch):
    export_huggingface(f"{place}/tiny", str(tmp_path / "published"))
    asked = {}

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked[name] = allow_patterns
        return str(tmp_path / "published" / "discriminator")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    task = load_task(f"{place}/task/tiny_tagging.json")
    config = FinetuningConfig(**{**task.recipe, "epochs": 1})
    common = dict(data_dir=f"{place}/task")
    results = finetune(task, config, model="someone/tiny", output=str(tmp_path / "run"), **common)
    assert list(asked) == ["someone/tiny"]
    assert not any(fnmatch.fnmatch("pytorch_model.bin", p) for p in asked["someone/tiny"])
    assert results["name"] == "tiny" and results["model"] == "someone/tiny"
    direct = finetune(task, config, model=f"{place}/tiny", output=str(tmp_path / "direct"), **common)
    assert results["metrics"] == direct["metrics"]


def test_from_scratch_begins_with_other_weights_than_the_model(place):
    models = [load_pretrained(f"{place}/tiny", "m", scratch_seed=seed) for seed in (None, 3, 3, 4)]
    tables = [model.model.embeddings.word_embeddings.numpy() for model in models]
    assert models[1].origin == "m, weights drawn anew"
    np.testing.assert_array_equal(tables[1], tables[2])
    assert np.abs(tables[0] - tables[1]).max() > 0.01 < np.abs(tables[1] - tables[3]).max()


def test_each_trial_from_scratch_begins_with_weights_of_its_own(place):
    strategy = tf.distribute.OneDeviceStrategy("device:CPU:0")
    with strategy.scope():
        pretrained = load_pretrained(f"{place}/tiny", "m", scratch_seed=3)
    finetuner = Finetuner(
        pretrained, task_of("tagging"), from_dict(FinetuningConfig, QUICK), 4, strategy)
    seen = []
    for number in (1, 2, 1):
        finetuner.begin(TrialKeys(3, number))
        seen.append(finetuner.model.embeddings.word_embeddings.numpy())
    np.testing.assert_array_equal(seen[0], seen[2])
    assert np.abs(seen[0] - seen[1]).max() > 0.01


def test_a_pickle_is_refused_with_the_way_to_convert_it(place, tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(UsageError, match="a pickle.*is not read: convert it.*save_pretrained"):
        task = load_task(f"{place}/task/tiny_tagging.json")
        finetune(task, FinetuningConfig(**task.recipe), model=str(folder),
                 data_dir=f"{place}/task", output=str(tmp_path / "run"))
