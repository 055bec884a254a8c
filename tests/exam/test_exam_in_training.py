"""A run with exams: the same weights, and what it reports. Runs are processes of their own."""

import pathlib
import shutil

import numpy as np
import pytest
from engine_helpers import VOCAB_SIZE, Data, TrainingProcess, make_data, run_config, saved_state
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from electra_es.export.model_card import facts
from electra_es.monitoring.metrics_log import read_log
from electra_es.monitoring.report import write_report
from electra_es.training.pace import steps_until_due


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Data:
    data = make_data(tmp_path_factory.mktemp("data"))
    np.save(f"{data.data_dir}/id_counts.npy", np.arange(VOCAB_SIZE))
    return data


def start(data: Data, model_dir: pathlib.Path, **settings) -> str:
    """Six steps; returns what was printed."""
    return TrainingProcess(data, model_dir, num_train_steps=6, restart_steps=(), log_every=2,
                           save_every=3, async_checkpoints=False, **settings).wait()


@pytest.fixture(scope="module")
def examined(data, tmp_path_factory) -> pathlib.Path:
    """A run with exams after 2 and 4 steps and at the end; it was stopped after 3 and went on."""
    model_dir = tmp_path_factory.mktemp("examined") / "run"
    start(data, model_dir, exam_every=2, stop_at_step=3)
    start(data, model_dir, exam_every=2)
    return model_dir


def test_a_run_ends_with_the_same_weights_with_exams_and_without(examined, data, tmp_path):
    start(data, tmp_path / "plain")
    expected, found = saved_state(tmp_path / "plain"), saved_state(examined)
    assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_exams_are_in_the_log_of_the_run(examined):
    log = read_log(str(examined))
    assert [line["step"] for line in log.exams] == [2, 3, 4, 6]  # 3: the end of the first start
    assert len(log.exams[0]["phenomena"]) == 12 and log.exams[0]["all"]["pairs"] > 600
    assert log.exams[-1]["all"]["frequency"]["accuracy"] == log.exams[0]["all"]["frequency"]["accuracy"]
    assert [line["step"] for line in log.up_to(4).exams] == [2, 3, 4]


def test_the_same_command_once_more_adds_no_line(examined, data, tmp_path):
    copy = shutil.copytree(examined, tmp_path / "run")
    before = (copy / "metrics.jsonl").read_text()
    printed = start(data, copy, exam_every=2)
    assert (copy / "metrics.jsonl").read_text().count('"exam"') == before.count('"exam"')
    line, = (line for line in printed.splitlines() if line.startswith("exam at step 6:"))
    share = read_log(str(copy)).exams[-1]["all"]["discriminator"]
    assert f"discriminator {share['accuracy']:.3f} ({share['low']:.3f} to {share['high']:.3f})" in line
    assert "generator 0." in line and "counting 0." in line


def test_tensorboard_has_a_curve_for_each_phenomenon(examined):
    events = EventAccumulator(str(examined / "summaries" / "validation"), {"tensors": 0}).Reload()
    tags = set(events.Tags()["tensors"])
    assert {"exam_accents/discriminator", "exam_all/generator", "exam_enye/frequency"} <= tags


def test_the_report_draws_them_and_the_card_has_a_row(examined, tmp_path):
    write_report([str(examined)], str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    assert all(f"<figcaption>Exam: {name}</figcaption>" in page for name in ("all", "accents", "enye"))
    write_report([str(examined)], str(tmp_path / "report.png"))
    log = read_log(str(examined))
    (label, value), (counting, _) = facts.exam("discriminator", log)
    share = log.exams[-1]["all"]["discriminator"]
    assert "at step 6" in label and "frequent" in counting
    assert value.startswith(f"{share['accuracy']:.4f} (")
    assert facts.exam("generator", log) and not facts.exam("generator", log.up_to(1))


def test_without_exam_every_there_is_none(data, tmp_path):
    start(data, tmp_path / "plain", stop_at_step=2)
    assert not read_log(str(tmp_path / "plain")).exams


def test_a_stretch_ends_where_an_exam_is_due():
    config = run_config(num_train_steps=58, steps_per_loop=40, log_every=30, save_every=30,
                        restart_steps=(), exam_every=9)
    assert [steps_until_due(step, config) for step in (0, 9, 27, 54)] == [9, 9, 3, 4]
