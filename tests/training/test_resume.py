"""A run that was killed, stopped and resumed ends with the weights of an uninterrupted run."""

import random

import pytest
from engine_helpers import TrainingProcess, assert_same_state, make_data, saved_state

from electra_es.errors import EXIT_STOPPED
from electra_es.hardware import usable_cores


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """The state after 60 steps (7 epochs and a warm restart) with dropout, in loops of 7."""
    model_dir = tmp_path_factory.mktemp("uninterrupted") / "run"
    TrainingProcess(data, model_dir).wait()
    return saved_state(model_dir)


def test_killed_three_times(data, uninterrupted, tmp_path):
    steps = sorted(random.sample(range(6, 58), 3))
    print("killed at or after", steps)
    for step in steps:
        run = TrainingProcess(data, tmp_path / "run", log_every=1, save_every=5, steps_per_loop=3)
        run.wait_for_step(step)
        run.process.kill()
        run.wait(expected=-9)
    printed = TrainingProcess(data, tmp_path / "run").wait()
    assert "; step 0 of 60" not in printed, "the last start did not resume"
    assert_same_state(saved_state(tmp_path / "run"), uninterrupted)


def test_stopped_by_sigterm(data, uninterrupted, tmp_path):
    run = TrainingProcess(data, tmp_path / "run", log_every=1)
    run.wait_for_step(random.randrange(3, 50))
    run.process.terminate()
    assert "stopped by a signal at step" in run.wait(expected=EXIT_STOPPED)
    TrainingProcess(data, tmp_path / "run").wait()
    assert_same_state(saved_state(tmp_path / "run"), uninterrupted)


@pytest.mark.skipif(usable_cores() == 1, reason="takes two cores")
def test_killed_while_cores_divide_the_batch(data, tmp_path):
    rows = 4 * usable_cores()
    settings = dict(train_batch_size=rows, eval_batch_size=rows, num_train_steps=24, restart_steps=(),
                    jit_compile="auto", log_every=1, save_every=3)
    printed = TrainingProcess(data, tmp_path / "whole", **settings).wait()
    assert "each core computes a part of the batch" in printed
    run = TrainingProcess(data, tmp_path / "killed", **settings)
    run.wait_for_step(random.randrange(6, 20))
    run.process.kill()
    run.wait(expected=-9)
    printed = TrainingProcess(data, tmp_path / "killed", **settings).wait()
    assert "; step 0 of 24" not in printed, "the last start did not resume"
    assert_same_state(saved_state(tmp_path / "killed"), saved_state(tmp_path / "whole"))
