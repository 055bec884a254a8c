"""Half-written, damaged and unwritable checkpoints."""

import contextlib
import pathlib
import resource

import numpy as np
import pytest
import tensorflow as tf
from engine_helpers import damaged

from electra_es.errors import UsageError
from electra_es.training.checkpoint_files import checkpoint_path, completed_steps
from electra_es.training.checkpoints import Checkpoints, restore_weights


@pytest.fixture(params=[False, True], ids=["foreground", "background"])
def run(request, tmp_path):
    """Checkpoints of a variable with 20000 numbers, and the variable."""
    variable = tf.Variable(tf.zeros([20_000]))
    state = tf.train.Checkpoint(model=tf.Module())
    state.model.weights = variable
    return Checkpoints(str(tmp_path), state, keep=2, keep_every=30,
                       background=request.param), variable


def save(checkpoints, variable, *steps: int) -> None:
    for step in steps:
        variable.assign(tf.fill([20_000], float(step)))
        checkpoints.save(step, examples_seen=4 * step)
    checkpoints.wait()


def data_file(model_dir, step: int) -> pathlib.Path:
    return pathlib.Path(f"{checkpoint_path(str(model_dir), step)}.data-00000-of-00001")


@contextlib.contextmanager
def largest_file(size: int):
    """No file can be longer than `size` bytes, so that writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_kept_and_restored(run, tmp_path):
    checkpoints, variable = run
    save(checkpoints, variable, 10, 20, 30, 40, 50)
    assert completed_steps(str(tmp_path)) == [30, 40, 50]
    variable.assign(tf.zeros([20_000]))
    assert checkpoints.restore_latest() == (50, 200)
    assert np.unique(variable.numpy()) == [50.0]


@pytest.mark.parametrize("name", ["run[1]", "a*b?"])
def test_a_model_dir_with_signs_of_patterns(tmp_path, name):
    """TensorFlow looks for a checkpoint with a glob: it found none of them."""
    model_dir = tmp_path / name
    variable = tf.Variable(tf.zeros([20_000]))
    state = tf.train.Checkpoint(model=tf.Module())
    state.model.weights = variable
    checkpoints = Checkpoints(str(model_dir), state, keep=2, keep_every=0)
    save(checkpoints, variable, 10, 20)
    variable.assign(tf.zeros([20_000]))
    assert checkpoints.restore_latest() == (20, 80) and np.unique(variable.numpy()) == [20.0]
    with damaged(data_file(model_dir, 20), keep_bytes=100):
        assert checkpoints.restore_latest() == (10, 40) and np.unique(variable.numpy()) == [10.0]


def test_the_values_are_those_at_the_time_of_the_call(run, tmp_path):
    checkpoints, variable = run
    variable.assign(tf.fill([20_000], 7.0))
    checkpoints.save(10, 40)
    variable.assign(tf.fill([20_000], 8.0))
    checkpoints.wait()
    assert checkpoints.restore_latest() == (10, 40)
    assert np.unique(variable.numpy()) == [7.0]


def test_no_checkpoint(run, tmp_path):
    assert run[0].restore_latest() == (0, 0)
    with pytest.raises(UsageError, match="expected at least one whole checkpoint"):
        restore_weights(str(tmp_path), run[0].state.model)


def test_without_its_marker_it_is_not_taken_up_and_written_again(run, tmp_path):
    checkpoints, variable = run
    save(checkpoints, variable, 10, 20)
    (data_file(tmp_path, 20).parent / "COMPLETED").unlink()
    assert checkpoints.restore_latest() == (10, 40)
    save(checkpoints, variable, 20)
    assert checkpoints.restore_latest() == (20, 80)


def test_truncated_one_is_passed_over_kept_and_written_again(run, tmp_path):
    checkpoints, variable = run
    save(checkpoints, variable, 10, 20)
    with damaged(data_file(tmp_path, 20), keep_bytes=1000):
        assert checkpoints.restore_latest() == (10, 40)
        assert np.unique(variable.numpy()) == [10.0]
        save(checkpoints, variable, 15)
        assert data_file(tmp_path, 20).stat().st_size == 1000
        save(checkpoints, variable, 20)
        assert data_file(tmp_path, 20).stat().st_size > 80_000
        assert checkpoints.restore_latest() == (20, 80)


def test_all_are_damaged(run, tmp_path):
    checkpoints, variable = run
    save(checkpoints, variable, 10)
    with damaged(data_file(tmp_path, 10), keep_bytes=0), pytest.raises(
            UsageError, match="none of the 1 checkpoints can be read"):
        checkpoints.restore_latest()


def flip_byte(path: pathlib.Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x55
    path.write_bytes(bytes(data))


DAMAGE = {
    "data cut off": lambda folder: (folder / DATA).write_bytes((folder / DATA).read_bytes()[:1000]),
    "data gone": lambda folder: (folder / DATA).unlink(),
    "data changed": lambda folder: flip_byte(folder / DATA, 500),
    "index cut off": lambda folder: (folder / "ckpt.index").write_bytes(b"half"),
    "index gone": lambda folder: (folder / "ckpt.index").unlink(),
    "marker half-written": lambda folder: (folder / "COMPLETED").write_text('{"step": 20, "exam'),
    "marker of another form": lambda folder: (folder / "COMPLETED").write_text("[20, 80]"),
    "marker of another step": lambda folder: (folder / "COMPLETED").write_text(
        '{"step": 30, "examples_seen": 80}'),
    "marker without a position": lambda folder: (folder / "COMPLETED").write_text(
        '{"step": 20, "examples_seen": "80"}'),
}
DATA = "ckpt.data-00000-of-00001"


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_command_passes_over_a_damaged_one_and_names_it(tmp_path, capfd, damage):
    """Both training and commands that read only the weights (evaluation, exports, detection)."""
    variable = tf.Variable(tf.zeros([20_000]))
    state = tf.train.Checkpoint(model=tf.Module())
    state.model.weights = variable
    checkpoints = Checkpoints(str(tmp_path), state, keep=2, keep_every=0)
    save(checkpoints, variable, 10, 20)
    folder = tmp_path / "checkpoints" / "step-00000020"
    DAMAGE[damage](folder)
    for restore in (lambda: checkpoints.restore_latest().step,
                    lambda: restore_weights(str(tmp_path), state.model)):
        variable.assign(tf.zeros([20_000]))
        assert restore() == 10
        assert np.unique(variable.numpy()) == [10.0]
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"warning: {folder}/ckpt: damaged (")
        assert line.endswith("): taking the checkpoint before it")


def test_an_error_that_says_nothing_about_the_files_is_not_passed_over(tmp_path, monkeypatch):
    variable = tf.Variable(tf.zeros([20_000]))
    state = tf.train.Checkpoint(model=variable)
    checkpoints = Checkpoints(str(tmp_path), state, keep=2, keep_every=0)
    save(checkpoints, variable, 10, 20)

    def refuse_reading(*arguments):
        raise tf.errors.PermissionDeniedError(None, None, "ckpt.index; Permission denied\nat line 2")

    monkeypatch.setattr(checkpoints.state, "read", refuse_reading)
    with pytest.raises(UsageError, match=r"step-00000020/ckpt: cannot be read \(.*denied\)$"):
        checkpoints.restore_latest()


def test_weights_alone_are_no_state_of_a_run(tmp_path):
    variable = tf.Variable(tf.zeros([20_000]))
    save(Checkpoints(str(tmp_path), tf.train.Checkpoint(model=variable), keep=1, keep_every=0),
         variable, 10)
    both = tf.train.Checkpoint(model=variable, optimizer=tf.Variable(1.0))
    with pytest.raises(UsageError, match="ckpt: not the state of this run; weights alone are a start "
                                         "for a new --model_dir, with --init_checkpoint"):
        Checkpoints(str(tmp_path), both, keep=1, keep_every=0).restore_latest()


def test_disk_full_while_saving(run, tmp_path):
    checkpoints, variable = run
    save(checkpoints, variable, 10)
    with largest_file(40_000), pytest.raises(
            UsageError, match="a checkpoint cannot be written .* earlier checkpoints are whole"):
        save(checkpoints, variable, 20)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000010"]
    assert checkpoints.restore_latest() == (10, 40)
    save(checkpoints, variable, 20)
    assert checkpoints.restore_latest() == (20, 80)


def test_leftovers_of_a_crash_go_with_the_next_save(run, tmp_path):
    checkpoints, variable = run
    leftover = tmp_path / "checkpoints" / ".writing-0-step-00000005"
    leftover.mkdir(parents=True)
    (leftover / "ckpt.index").write_text("half")
    assert checkpoints.restore_latest() == (0, 0)
    save(checkpoints, variable, 10)
    assert not leftover.exists()


def test_weights_of_another_model(run, tmp_path):
    checkpoints, variable = run
    save(checkpoints, variable, 10)
    other = tf.Module()
    other.weights = tf.Variable(tf.zeros([3]))
    with pytest.raises(UsageError, match="ckpt: not the weights of this model"):
        restore_weights(str(tmp_path), other)
