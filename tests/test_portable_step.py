"""The step that is taken to a machine without TensorFlow computes what TensorFlow computes."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from engine_helpers import make_data, model_config, run_config
from paths import ROOT

from benchmarks.portable_step.export import export, state_variables
from benchmarks.portable_step.folder import (
    Array,
    State,
    StepFacts,
    endless_batches,
    read_facts,
    read_state,
    write_batches,
    write_state,
)
from electra_es.errors import UsageError
from electra_es.model.batches import Inputs
from electra_es.model.pretrainer import build_pretrainer
from electra_es.model.variables import set_weights
from electra_es.text.tokenizer import load_tokenizer
from electra_es.training.optimization import Adam, schedule_for
from electra_es.training.run_dir import vocabulary_facts
from electra_es.training.steps import TrainStep

MODEL = model_config(num_layers=1)
STEPS = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def exported(data, tmp_path_factory):
    """A step on 4 batches, its state in pieces of 9 kB."""
    folder = tmp_path_factory.mktemp("exported") / "step"
    export(MODEL, run_config(), **data._asdict(), output=str(folder), num_batches=4, piece_mb=0.009)
    return folder


def without_tensorflow(module: str, *arguments: str) -> subprocess.CompletedProcess:
    """A command on a machine that has neither TensorFlow nor absl."""
    script = (f"import runpy, sys; sys.modules['tensorflow'] = sys.modules['absl'] = None; "
              f"sys.argv = ['x', *{list(arguments)!r}]; "
              f"runpy.run_module({module!r}, run_name='__main__', alter_sys=False)")
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True,
                          timeout=600)


def tensorflow_steps(data, folder) -> tuple[list[dict[str, float]], dict[str, np.ndarray]]:
    """Metric sums of each step, and the state after the last, by TensorFlow from the exported state."""
    facts, config = read_facts(folder), run_config()
    tokenizer = load_tokenizer(data.vocab_dir)
    model = build_pretrainer(MODEL, vocabulary_facts(tokenizer))
    values = read_state(folder, facts).values
    set_weights(model, {name: values[name] for name in facts.weights}, str(folder))
    optimizer = Adam(model.trainable_variables, schedule_for(config), config)
    step = tf.function(TrainStep(model, optimizer, MODEL, config))
    batches = endless_batches(folder, facts)
    sums = []
    for _ in range(STEPS):
        result = step(Inputs(*map(tf.constant, next(batches))))
        sums.append({name: float(value) for name, value in result.items()})
    return sums, {name: v.numpy() for name, v in state_variables(model, optimizer).items()}


def test_three_steps_equal_those_of_tensorflow(data, exported, tmp_path):
    """Metrics and gradient norm of each step, the new weights and moments; then the way back."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed (requirements-preflight.txt)")
    trained = tmp_path / "trained"
    done = without_tensorflow(
        "benchmarks.portable_step", "run", str(exported), "--platform=cpu", f"--steps={STEPS}",
        f"--output={trained}", "--with_moments", "--piece_mb=0.02")
    assert done.returncode == 0, done.stderr
    expected, state = tensorflow_steps(data, exported)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("step ")]
    assert len(lines) == STEPS
    for line, sums in zip(lines, expected, strict=True):
        found = dict(zip(line[4::2], map(float, line[5::2]), strict=True))
        assert found.keys() == sums.keys()
        for name, value in sums.items():
            assert found[name] == pytest.approx(value, rel=2e-5), name
    found = read_state(trained, read_facts(trained))
    assert found.step == STEPS and found.values["step"] == STEPS
    assert found.examples_seen == STEPS * run_config().train_batch_size
    for name, value in state.items():
        np.testing.assert_allclose(found.values[name], value, rtol=2e-4, atol=2e-6, err_msg=name)

    model_dir = tmp_path / "model"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.portable_step", "load", str(trained),
         f"--data_dir={data.data_dir}", f"--vocab_dir={data.vocab_dir}", f"--model_dir={model_dir}"],
        cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert f"a run at step {STEPS}" in done.stdout
    reader = tf.train.load_checkpoint(str(
        model_dir / "checkpoints" / f"step-{STEPS:08d}" / "ckpt"))
    stored = reader.get_tensor("model/mlm_head/output_bias/.ATTRIBUTES/VARIABLE_VALUE")
    np.testing.assert_array_equal(stored, found.values["generator_predictions/output_bias"])


def test_pytorch_step_runs_without_tensorflow():
    for flags in ([], ["--heads_everywhere", "--attention=eager", "--precision=bfloat16"]):
        done = without_tensorflow(
            "benchmarks.pytorch_step", "--model_size=debug", "--batch_size=3", "--max_seq_length=13",
            "--vocab_size=61", "--steps=1", "--turns=1", "--peak_tflops=1", *flags)
        assert done.returncode == 0, done.stderr
        assert "ms a step" in done.stdout and "of the peak" in done.stdout


def test_state_in_pieces(tmp_path):
    """Each piece has its size; what is zero takes no room; a lost byte is noticed."""
    values = {"a": np.arange(11, dtype=np.float32), "a/m": np.zeros([3, 5], np.float32),
              "step": np.array(7, np.int64), "b": np.full([2, 3], 1.5, np.float32)}
    facts = StepFacts({}, [], [Array(n, list(v.shape), v.dtype.name) for n, v in values.items()],
                      ["a", "b"], [], [], 0.0)
    write_state(tmp_path, State(7, 70, values), piece_bytes=25)
    pieces = [np.load(path).size for path in sorted(tmp_path.glob("*.npy"))]
    assert pieces == [25, 25, 25, 1]
    state = read_state(tmp_path, facts)
    assert (state.step, state.examples_seen) == (7, 70)
    for name, value in values.items():
        np.testing.assert_array_equal(state.values[name], value)
        assert state.values[name].dtype == value.dtype
    np.save(tmp_path / "state-00003.npy", np.zeros(0, np.uint8))
    with pytest.raises(UsageError, match="75 bytes: expected 76"):
        read_state(tmp_path, facts)


def test_batches_repeat_with_other_places(tmp_path):
    facts = StepFacts({}, [Array("input_ids", [2, 3], "int32"), Array("example_index", [2], "int64")],
                      [], [], [], [], 0.0)
    ids = np.arange(12).reshape(2, 2, 3) * 5000
    write_batches(tmp_path, {"input_ids": ids, "example_index": np.arange(4).reshape(2, 2) + 40})
    batches = endless_batches(tmp_path, facts)
    found = [next(batches) for _ in range(3)]
    assert [batch[0].dtype for batch in found] == ["int32"] * 3
    np.testing.assert_array_equal(found[2][0], ids[0])
    assert [batch[1].tolist() for batch in found] == [[40, 41], [42, 43], [44, 45]]


def test_errors_of_use(exported, tmp_path):
    for flags, message in (
            ([], "expected either --steps or --seconds"),
            (["--steps=1", f"--output={tmp_path}"], "exists already: expected a new path")):
        done = without_tensorflow("benchmarks.portable_step", "run", str(exported), *flags)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    done = without_tensorflow("benchmarks.portable_step", "go")
    assert done.returncode == 2 and "go: expected one of export, run, load" in done.stderr
