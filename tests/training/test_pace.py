"""Loops are as long as a signal allows, and their length changes nothing. Lines come in time."""

import types

import pytest
from engine_helpers import (
    Data,
    TrainingProcess,
    assert_same_state,
    make_data,
    model_config,
    run_config,
    saved_state,
)

from electra_es.monitoring import progress
from electra_es.monitoring.metrics_log import read_log
from electra_es.monitoring.progress import ProgressLog
from electra_es.training import pace as pace_module
from electra_es.training import train as train_module
from electra_es.training.pace import Pace
from electra_es.training.train import train
from electra_es.training.workers import Workers


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    for module in (pace_module, progress):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Data:
    return make_data(tmp_path_factory.mktemp("data"))


def loops(pace: Pace, clock: Clock, seconds_per_step: list[float], overhead: float = 0.0) -> list[int]:
    """The lengths of loops with these times of a step, from step 0 on."""
    step, lengths = 0, []
    for seconds in seconds_per_step:
        lengths.append(pace.begin_loop(step))
        clock.now += overhead + lengths[-1] * seconds
        pace.end_loop(lengths[-1])
        step += lengths[-1]
    return lengths


@pytest.mark.parametrize("seconds, expected", [
    ([60, 3, 3, 3, 3], [1, 1, 3, 3, 3]),  # the first compiles
    ([9, 0.25, 0.25, 0.25], [1, 1, 40, 40]),
    ([9, 0.001, 0.001, 0.001], [1, 1, 50, 50]),  # steps_per_loop is the limit
    ([9, 45, 45, 45], [1, 1, 1, 1]),
    ([9, 0.5, 4, 4, 0.5, 0.5], [1, 1, 20, 2, 2, 20]),  # a machine that becomes slower, and faster again
])
def test_a_loop_lasts_ten_seconds_at_most(clock, seconds, expected):
    config = run_config(num_train_steps=1000, steps_per_loop=50, log_every=1000, save_every=1000)
    assert loops(Pace(config, Workers()), clock, seconds) == expected


def test_loops_end_where_something_is_due(clock):
    config = run_config(num_train_steps=1000, steps_per_loop=500, log_every=30, save_every=25,
                        restart_steps=())
    assert loops(Pace(config, Workers()), clock, [0.01] * 6) == [1, 1, 23, 5, 20, 10]


def test_what_costs_a_loop_and_not_a_step_is_learnt_in_a_few_loops(clock):
    """Steps of 10 ms behind 500 ms that each loop costs."""
    config = run_config(num_train_steps=10**6, steps_per_loop=10**4, log_every=10**6,
                        save_every=10**6, restart_steps=())
    assert loops(Pace(config, Workers()), clock, [0.01] * 5, overhead=0.5) == [1, 1, 19, 275, 846]


def test_workers_take_the_length_of_the_slowest(clock):
    workers = types.SimpleNamespace(gather=lambda mine: [(mine,), (2500,)])
    config = run_config(num_train_steps=1000, steps_per_loop=50, log_every=1000, save_every=1000)
    assert loops(Pace(config, workers), clock, [1, 1, 0.1]) == [1, 1, 4]


def test_a_run_of_slow_steps_has_short_loops_compiled_once(data, tmp_path, clock, monkeypatch):
    """Steps of 4 seconds by the test's clock: loops of 2, which end earlier where something is due."""
    lengths, compiled = [], []

    def make_slow_loop(*given):
        compiled.append(original(*given))

        def loop(batches, num_steps, *rest):
            lengths.append(int(num_steps))
            clock.now += 4.0 * lengths[-1]
            return compiled[0](batches, num_steps, *rest)

        return loop

    original = train_module.make_train_loop
    monkeypatch.setattr(train_module, "make_train_loop", make_slow_loop)
    config = run_config(deterministic=False, num_train_steps=16, restart_steps=(), steps_per_loop=40,
                        log_every=9, save_every=12)
    train(model_config(), config, model_dir=str(tmp_path / "run"), evaluate_at_end=False,
          **data._asdict())
    assert lengths == [1, 1, 2, 2, 2, 1, 2, 1, 2, 2]
    assert compiled[0].experimental_get_tracing_count() == 1


def test_the_length_of_loops_changes_neither_weights_nor_metrics(data, tmp_path):
    """One step a loop, and as many as the times of this machine allow, with a line every 20 steps."""
    states, lines = [], []
    for steps_per_loop in (1, 60):
        model_dir = tmp_path / str(steps_per_loop)
        TrainingProcess(data, model_dir, steps_per_loop=steps_per_loop).wait()
        states.append(saved_state(model_dir))
        lines.append([{name: value for name, value in line.items()
                       if name != "time" and "per_second" not in name}
                      for line in read_log(str(model_dir)).training])
    assert_same_state(*states)
    assert [line["step"] for line in lines[0]] == [20, 40, 60] and len(lines[0][0]) > 10
    assert lines[0] == lines[1]


def test_a_line_within_a_minute_and_then_at_longer_intervals(tmp_path, clock, capsys):
    """Loops of ten seconds with a report that is far away: lines for people, and nothing written."""
    log = ProgressLog(str(tmp_path), run_config(num_train_steps=10**6, restart_steps=()))
    log.count_from(0)
    shown = []
    for loop in range(1, 361):  # an hour
        clock.now += 10
        log.while_training(4 * loop, {"loss": 24.5, "tokens": loop * 4 * 52.0})
        if line := capsys.readouterr().out:
            shown.append(clock.now - 1000)
    assert shown[:5] == [50, 150, 350, 750, 1350] and shown[-1] > 3000
    assert line == "" and not (tmp_path / "metrics.jsonl").exists()
    clock.now += 600
    log.while_training(1440, {"loss": 24.5, "tokens": 1440 * 52.0})
    assert capsys.readouterr().out.startswith("step 1440/1000000  loss 24.500  1.4 ex/s  18 tok/s  ETA ")


def test_lines_between_reports_do_not_change_the_reports(tmp_path, clock):
    logs = []
    for name in ("told", "silent"):
        log = ProgressLog(str(tmp_path / name), run_config())
        log.count_from(0)
        for step in range(10, 60, 10):
            clock.now += 60
            if name == "told":
                log.while_training(step, {"loss": 2.0, "tokens": 30.0})
        log.train(60, {"loss": 2.0, "tokens": 30.0})
        logs.append([{**line, "time": 0} for line in read_log(str(tmp_path / name)).training])
    assert logs[0] == logs[1] and logs[0][0]["steps_per_second"] == pytest.approx(0.2)


def test_a_report_is_a_line_too(tmp_path, clock, capsys):
    log = ProgressLog(str(tmp_path), run_config())
    log.count_from(0)
    for step in range(1, 7):
        clock.now += 40
        log.train(step, {"loss": 2.0, "tokens": 30.0})
        capsys.readouterr()
        clock.now += 5
        log.meanwhile("not now")
    assert capsys.readouterr().out == ""
