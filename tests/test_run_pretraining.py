"""The command that a user types: the run on the sample, its exit codes and its one-line errors."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
from paths import ROOT

SHORT = ["--num_train_steps=2000", "--log_every=4", "--steps_per_loop=4", "--save_every=4",
         "--vocab_size=1500", "--max_seq_length=64", "--train_batch_size=8",
         "--set", "hidden_size=24", "--set", "num_heads=3", "--set", "embedding_size=12",
         "--set", "intermediate_size=40", "--set", "num_layers=2", "--set", "generator_heads=2"]


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "run_pretraining.py", *arguments], cwd=ROOT, text=True,
                          capture_output=True, timeout=400, check=False, **options)


@pytest.fixture(scope="module")
def sample_run(tmp_path_factory):
    """A short run on the sample, killed with -9 after its first checkpoint, then run again."""
    root = tmp_path_factory.mktemp("sample")
    arguments = [*SHORT, f"--sample_dir={root}"]
    first = subprocess.Popen([sys.executable, "run_pretraining.py", *arguments], cwd=ROOT,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoints = root / "model" / "checkpoints"
    deadline = time.monotonic() + 300
    while not list(checkpoints.glob("step-*/COMPLETED")):
        assert first.poll() is None, "ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.kill()
    first.wait()
    killed_at = max(int(path.parent.name.split("-")[1])
                    for path in checkpoints.glob("step-*/COMPLETED"))
    stop = f"--stop_at_step={killed_at + 8}"
    return root, killed_at, run(*arguments, stop)


def test_a_killed_run_goes_on_from_its_last_checkpoint_and_ends(sample_run):
    root, killed_at, result = sample_run
    assert result.returncode == 0, result.stderr
    assert f"step {killed_at} of 2000" in result.stdout
    steps = [json.loads(line)["step"]
             for line in (root / "model" / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == killed_at + 8
    evaluation = json.loads((root / "model" / "evaluation.json").read_text())
    assert evaluation["step"] == killed_at + 8
    assert 0 < evaluation["disc_auc"] < 1


def test_the_sample_run_leaves_everything_a_user_needs(sample_run):
    root, _, result = sample_run
    config = json.loads((root / "model" / "config.json").read_text())
    assert config["model"]["hidden_size"] == 24
    assert config["pretraining"]["num_train_steps"] == 2000
    assert config["text"]["vocab_size"] == 1500
    shown = re.sub(r" +##", "", result.stdout.split("5/5")[1])  # pieces joined to words
    assert "Estamos" in shown and "desayunando" in shown


def test_the_saved_model_needs_tensorflow_and_tensorflow_text_only(sample_run, tmp_path):
    root, _, _ = sample_run
    program = (
        "import sys, tensorflow as tf, tensorflow_text\n"
        "model = tf.saved_model.load(sys.argv[1])\n"
        "found = model.signatures['detect'](tf.constant(['El niño comió piña.']))\n"
        "print(found['probabilities'].shape[0], 'electra_es' in sys.modules, "
        "'official' in sys.modules)")
    result = subprocess.run([sys.executable, "-c", program, str(root / "saved_model")],
                            cwd=tmp_path, text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["1", "False", "False"]


def test_another_configuration_in_the_same_directory_is_refused(sample_run):
    root, _, _ = sample_run
    before = sorted(os.listdir(root / "model" / "checkpoints"))
    result = run(*SHORT, f"--sample_dir={root}", "--learning_rate=0.5")
    assert result.returncode == 2
    assert "learning_rate=0.0006, this one has learning_rate=0.5" in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(os.listdir(root / "model" / "checkpoints")) == before


def test_a_run_that_goes_on_shows_its_new_weights(sample_run):
    """A SavedModel of an earlier step is written again; one of the same step is not."""
    root, killed_at, first = sample_run
    export = root / "saved_model" / "export.json"
    assert json.loads(export.read_text())["step"] == killed_at + 8
    assert f"after {killed_at + 8:,} steps?" in first.stdout
    arguments = [*SHORT, f"--sample_dir={root}", f"--stop_at_step={killed_at + 16}"]
    second = run(*arguments)
    assert second.returncode == 0, second.stderr
    assert json.loads(export.read_text())["step"] == killed_at + 16
    assert f"after {killed_at + 16:,} steps?" in second.stdout
    assert first.stdout.split("5/5")[1] != second.stdout.split("5/5")[1]
    written = export.stat().st_mtime_ns
    third = run(*arguments)
    assert f"of step {killed_at + 16:,} is there already" in third.stdout
    assert export.stat().st_mtime_ns == written
    assert third.stdout.split("5/5")[1] == second.stdout.split("5/5")[1]


@pytest.mark.parametrize("flags", [
    ["--objective=mlm"], ["--distribution=cpu", "--cpu_replicas=2"]])
def test_the_sample_run_ends_with_other_settings_too(tmp_path, flags):
    """BERT's objective has no discriminator to show; and two replicas must be set up before the
    vocabulary is made."""
    # BERT's objective has no small generator, and refuses its setting, the last of SHORT.
    short = SHORT[:-2] if "--objective=mlm" in flags else SHORT
    result = run(*short, f"--sample_dir={tmp_path}", "--stop_at_step=4", *flags)
    assert result.returncode == 0, result.stderr
    assert "5/5" in result.stdout and "after 4 steps?" in result.stdout


@pytest.mark.parametrize(("arguments", "message"), [
    (["--lerning_rate=1"], "Unknown command line flag 'lerning_rate'. Did you mean: learning_rate ?"),
    (["--set", "generator_wdth=0.5"],
     'unknown setting "generator_wdth"; did you mean "generator_width"?'),
    (["--model_size=smal"], 'model_size="smal": expected one of debug, small, medium, base, large'),
])
def test_wrong_use_is_one_line_and_exit_code_2(arguments, message):
    result = run(*arguments)
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in result.stderr
