"""Progress lines, warnings, operations per example, the log of a run, and its report."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import pytest
import tensorflow as tf
from engine_helpers import run_config
from real_run import STEPS
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from electra_es.config import ModelConfig, PretrainingConfig, TextConfig, model_config, to_json
from electra_es.data.inputs import training_dataset, usable_shards
from electra_es.data.records import load_records_info
from electra_es.durations import format_duration
from electra_es.errors import UsageError
from electra_es.monitoring import charts, progress
from electra_es.monitoring.health import HealthWatch
from electra_es.monitoring.metrics_log import append_metrics, read_log, tidy
from electra_es.monitoring.progress import ProgressLog
from electra_es.monitoring.report import load_runs, run_names, write_report
from electra_es.monitoring.samples import SampleToken, readable, sample_markdown
from electra_es.training.flops import training_flops

METRICS = dict(loss=24.5, masked_lm_loss=4.25, masked_lm_accuracy=0.3, disc_loss=0.4,
               sampled_masked_lm_accuracy=0.2, disc_accuracy=0.87, disc_precision=0.6,
               disc_recall=0.5, replaced_share=0.12, learning_rate=1e-3, gradient_norm=2.0)


@pytest.mark.parametrize("seconds, text", [(12.4, "12s"), (185, "3m05s"), (3720, "1h02m")])
def test_format_duration(seconds, text):
    assert format_duration(seconds) == text


def test_speed_and_utilisation(tmp_path, monkeypatch, capsys):
    """10 steps of 4 examples in 5 s: 8 examples/s; of 52 tokens a step, 104 tokens/s; 8 * 50 of 1000
    FLOP/s. Then half of each row is padding, which does not count."""
    clock = iter([100.0, 105.0, 105.0, 110.0, 110.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    log = ProgressLog(str(tmp_path), run_config(), flops_per_example=50.0, peak_flops=1000.0)
    log.count_from(20)
    log.train(30, {**METRICS, "tokens": 30 * 52.0})
    line = capsys.readouterr().out
    assert "step 30/60  loss 24.500" in line
    assert "8.0 ex/s  104 tok/s  MFU 40.0 %  ETA 15s" in line
    written = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (written["steps_per_second"], written["flop_utilisation"]) == (2.0, 0.4)
    log.train(40, {**METRICS, "tokens": 10 * 26.0})
    assert "8.0 ex/s  52 tok/s" in capsys.readouterr().out


def test_first_line_has_no_speed(tmp_path, capsys):
    """It would be that of compiling."""
    log = ProgressLog(str(tmp_path), run_config())
    log.count_from(20)
    log.train(20, METRICS)
    assert "ex/s" not in capsys.readouterr().out


def test_lines_show_what_there_is(tmp_path, capsys):
    """A model without a discriminator has no metrics of one."""
    log = ProgressLog(str(tmp_path), run_config())
    metrics = {name: value for name, value in METRICS.items() if "disc" not in name}
    log.train(30, metrics)
    log.evaluation(30, metrics)
    assert capsys.readouterr().out == (
        "step 30/60  loss 24.500  mlm 4.250 acc 0.300  lr 1.00e-03\n"
        "evaluation at step 30: loss 24.500  mlm acc 0.300\n")


def test_operations_of_an_example_by_hand():
    """L=8, K=2, E=6, H=4, F=10, V=50; generator of width 2, F=8, and one layer each."""
    config = ModelConfig(embedding_size=6, hidden_size=4, num_layers=1, num_heads=2,
                         intermediate_size=10, generator_width=0.5, max_predictions=2)
    discriminator = 2 * 8 * 6 * 4 + (2 * 8 * (4 * 16 + 2 * 40) + 4 * 64 * 4) + 2 * 8 * (16 + 4)
    generator = 2 * 8 * 6 * 2 + (2 * 8 * (4 * 4 + 2 * 16) + 4 * 64 * 2) + 2 * 2 * 6 * (2 + 50)
    assert training_flops(config, 50, 8) == 3 * (discriminator + generator)


def test_operations_agree_with_the_compiler():
    """libtpu counts 848 GFLOP for 16 examples of the small model (docs/preflight.md)."""
    config = model_config({"model_size": "small"})
    assert 16 * training_flops(config, 50_000, 512) == pytest.approx(848e9, rel=0.1)


def warned(watch: HealthWatch, step: int, **metrics) -> str:
    return "".join(watch.warnings(step, {**METRICS, **metrics}))


@pytest.mark.parametrize("name, metrics", [
    ("discriminator collapse", dict(disc_recall=0.001)),
    ("generator too strong", dict(replaced_share=0.001, disc_recall=0.0)),
    ("generator collapse", dict(masked_lm_accuracy=0.1)),
])
def test_collapse_is_said_once_after_three_reports(name, metrics):
    watch = HealthWatch(PretrainingConfig(num_train_steps=10_000, warmup_steps=1_000))
    assert not warned(watch, 1_900)
    assert not warned(watch, 2_000, **metrics)
    assert not warned(watch, 2_100, **metrics)
    assert warned(watch, 2_200, **metrics).startswith(f"warning: {name} at step 2200: ")
    assert not warned(watch, 2_300, **metrics)
    assert not warned(watch, 2_400)  # over, so that the next time is said again
    assert not warned(watch, 2_500, **metrics) and not warned(watch, 2_600, **metrics)
    assert name in warned(watch, 2_700, **metrics)


MLM = {name: value for name, value in METRICS.items()
       if name in ("loss", "masked_lm_loss", "masked_lm_accuracy", "learning_rate", "gradient_norm")}
UNIFORM = {name: value for name, value in METRICS.items() if "masked_lm" not in name}


def test_lines_show_only_the_towers_that_there_are(tmp_path, capsys):
    log = ProgressLog(str(tmp_path), run_config())
    for metrics in (MLM, UNIFORM):
        log.train(20, metrics)
        log.evaluation(20, metrics)
    assert capsys.readouterr().out.splitlines() == [
        "step 20/60  loss 24.500  mlm 4.250 acc 0.300  lr 1.00e-03",
        "evaluation at step 20: loss 24.500  mlm acc 0.300",
        "step 20/60  loss 24.500  disc acc 0.870 prec 0.600 rec 0.500  lr 1.00e-03",
        "evaluation at step 20: loss 24.500  disc acc 0.870 prec 0.600 rec 0.500"]


def test_the_line_of_an_evaluation_has_the_floor_beside_each_figure(tmp_path, capsys):
    log = ProgressLog(str(tmp_path), run_config())
    log.evaluation(20, {**METRICS, "disc_auc": 0.69, "floor_masked_lm_loss": 5.5, "floor_disc_auc": 0.7,
                        "disc_auc_above_floor": -0.01, "floor_disc_accuracy": 0.88,
                        "disc_accuracy_above_floor": -0.01})
    log.evaluation(20, {**MLM, "floor_masked_lm_loss": 5.5})
    assert capsys.readouterr().out.splitlines() == [
        "evaluation at step 20: loss 24.500  mlm 4.250 (floor 5.500)  mlm acc 0.300  disc acc 0.870 "
        "(floor 0.880) prec 0.600 rec 0.500 AUC 0.6900 (floor 0.7000, -0.0100)",
        "evaluation at step 20: loss 24.500  mlm 4.250 (floor 5.500)  mlm acc 0.300"]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["floor_disc_auc"] == 0.7


def test_the_same_evaluation_is_written_once(tmp_path):
    """Up to the last digits; another step or other figures are another evaluation."""
    log = ProgressLog(str(tmp_path), run_config())
    assert [log.evaluation(step, {**METRICS, "disc_recall": recall}) for step, recall in [
        (20, 0.5), (20, 0.5), (20, 0.5 + 1e-9), (20, 0.51), (30, 0.51)]] == [
            True, False, False, True, True]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [20, 20, 30]


def test_health_of_models_with_one_tower_only():
    for metrics, name in ((MLM, "collapse"), (UNIFORM, "discriminator collapse")):
        watch = HealthWatch(PretrainingConfig(num_train_steps=10_000, warmup_steps=1_000))
        assert not watch.warnings(2_000, metrics)
        bad = {**metrics, **({"masked_lm_accuracy": 0.1} if metrics is MLM else {"disc_recall": 0.0})}
        warnings = [watch.warnings(step, bad) for step in range(2_100, 2_500, 100)]
        assert [len(lines) for lines in warnings] == [0, 0, 1, 0]
        assert warnings[2][0].startswith(f"warning: {name} at step 2300")
        assert metrics is MLM or "masked_lm_accuracy" not in warnings[2][0]


FLOOR = dict(disc_auc=0.8, floor_disc_auc=0.7, floor_masked_lm_loss=5.0)


def test_a_model_below_its_floor_is_said_once_when_well_under_way():
    watch = HealthWatch(PretrainingConfig(num_train_steps=400, warmup_steps=20))
    below = {**METRICS, **FLOOR, "disc_auc": 0.69, "masked_lm_loss": 5.1}
    assert not watch.evaluation_warnings(99, below)
    assert not watch.evaluation_warnings(100, {**METRICS, **FLOOR})
    assert not watch.evaluation_warnings(101, METRICS)  # no floor is known
    found = watch.evaluation_warnings(120, below)
    assert [line.split(": ")[1] for line in found] == [
        "discriminator below its floor at step 120", "generator below its floor at step 120"]
    assert "AUC is 0.6900" in found[0] and "gives 0.7000" in found[0] and "gives 5.000" in found[1]
    assert not watch.evaluation_warnings(140, below)
    only = {name: value for name, value in below.items() if name in MLM or name.startswith("floor_m")}
    line, = HealthWatch(PretrainingConfig(num_train_steps=400)).evaluation_warnings(400, only)
    assert line.startswith("warning: below its floor at step 400: its loss is 5.100")


def test_held_out_loss_that_rises_while_training_loss_falls_is_said_once():
    def warnings(*evaluations: tuple[float, float]) -> list[int]:
        """Numbers of the evaluations with a warning; each follows two reports of a mean training loss."""
        watch, found = HealthWatch(PretrainingConfig(num_train_steps=10_000)), []
        for number, (training, held_out) in enumerate(evaluations):
            for loss in (training - 0.3, training + 0.3):
                watch.warnings(number, {**METRICS, "loss": loss})
            lines = watch.evaluation_warnings(number, {**METRICS, "loss": held_out})
            assert all("held-out loss rises" in line for line in lines)
            found += [number] * len(lines)
        return found

    assert warnings((20, 21), (19, 20), (18, 20.2), (17, 20.4), (16, 20.6)) == [3]
    assert warnings((20, 20), (19, 20.2), (18, 19.9), (17, 20.1), (16, 19.8)) == []  # comes back
    assert warnings((20, 20), (21, 21), (22, 22), (23, 23)) == []  # both rise
    assert warnings((20, 20), (19, 20.05), (18, 20.09), (17, 20.05)) == []  # by less than 0.5 %
    watch = HealthWatch(PretrainingConfig())
    assert not watch.evaluation_warnings(7, METRICS)  # without a report before it
    watch.warnings(9, {**METRICS, "loss": 19.0})
    watch.warnings(9, {**METRICS, "loss": 18.0})
    assert not watch.evaluation_warnings(9, {**METRICS, "loss": 20.0})


def test_no_recall_is_normal_in_the_beginning():
    watch = HealthWatch(PretrainingConfig(num_train_steps=10_000, warmup_steps=1_000))
    assert not any(warned(watch, step, disc_recall=0.0) for step in range(100, 2_000, 100))


def test_sample_markdown():
    sample = [SampleToken("pan", "pan", 0.1), SampleToken("con", "sin", 0.7),
              SampleToken("tomate", "tomate", 0.6)]
    assert sample_markdown(sample) == "pan ~~con~~ **sin** `0.70` tomate `0.60`"


@pytest.mark.parametrize("tokenizer, pieces, expected", [
    ("wordpiece", ["[CLS]", "to", "##ma", "##te", ".", "##", "[SEP]"],
     [("[CLS]", False), ("to", True), ("ma", False), ("te", False), (".", True), ("##", True),
      ("[SEP]", True)]),
    ("sentencepiece", ["[CLS]", "to", "mate", "▁y", "##", "▁"],
     [("[CLS]", False), ("to", True), ("mate", False), ("y", True), ("##", False), ("▁", True)]),
])
def test_pieces_are_joined_to_words(tokenizer, pieces, expected):
    found = readable([SampleToken(piece, piece, 0.0) for piece in pieces], tokenizer)
    assert [(piece.shown, piece.follows_space) for piece in found] == expected


def test_another_piece_with_the_same_letters_is_a_replacement():
    sample = [SampleToken("pan", "pan", 0.1), SampleToken("##es", "es", 0.2)]
    assert sample_markdown(sample) == "pan ~~es~~ **es** `0.20`"


@pytest.fixture
def model_dir(tmp_path):
    """A run that was killed after step 30, with half a line, and repeated steps 20 and 30."""
    lines = [json.dumps({"kind": "train", "step": step, **METRICS, "loss": loss,
                         "steps_per_second": 2.0})
             for step, loss in [(10, 9), (20, 8), (30, 7)]]
    lines.append('{"kind": "train", "ste')
    lines += [json.dumps({"kind": "train", "step": step, **METRICS, "loss": loss,
                          "steps_per_second": 2.0}) for step, loss in [(20, 6), (30, 5)]]
    lines.append(json.dumps({"kind": "evaluation", "step": 30, **METRICS, "disc_auc": 0.9125}))
    run = tmp_path / "un <run>"
    run.mkdir()
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (run / "samples.jsonl").write_text(json.dumps(
        {"step": 30, "samples": [[["pan", "pan", 0.1], ["con", "<sin>", 0.7]]]}) + "\n")
    (run / "config.json").write_text(to_json(
        text=TextConfig(), model=ModelConfig(), pretraining=PretrainingConfig()))
    return run


def test_of_repeated_steps_the_last_counts(model_dir):
    training = [(line["step"], line["loss"]) for line in read_log(str(model_dir)).training]
    assert training == [(10, 9), (20, 6), (30, 5)]


def test_report_is_one_file_with_what_matters(model_dir, tmp_path):
    output = tmp_path / "report.html"
    write_report([str(model_dir)], str(output))
    page = output.read_text()
    assert "un &lt;run&gt;" in page and "<b>0.912</b>" in page and "<b>15s</b>" in page
    assert '<span class="replaced" style="background:rgba(194,65,59,0.52)"' in page
    assert "&lt;sin&gt;" in page and "<sin>" not in page
    assert page.count("<svg") == len(charts.PANELS) - 1  # no speed is in these lines
    assert 'src="' not in page and "<script" not in page
    write_report([str(model_dir)], str(tmp_path / "report.png"))
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_report_of_nothing(model_dir, tmp_path):
    with pytest.raises(UsageError, match=r"--output=report.pdf: expected a name in .html or .png"):
        write_report([str(model_dir)], "report.pdf")
    (model_dir / "metrics.jsonl").unlink()
    with pytest.raises(UsageError, match="metrics.jsonl: expected at least one progress line"):
        write_report([str(model_dir)], str(tmp_path / "report.html"))


# ---- The log of a run.

def test_a_half_line_is_passed_over_and_the_next_one_begins_after_it(tmp_path):
    """A half line may end within a character; and text may hold what Python treats as a line end."""
    append_metrics(str(tmp_path), "train", 3, {"note": "uno\u2028dos\x85"})
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write('{"kind": "train", "step": 6, "note": "ñ'.encode()[:-1])
    assert [line["note"] for line in read_log(str(tmp_path)).training] == ["uno\u2028dos\x85"]
    append_metrics(str(tmp_path), "train", 9, {})
    assert [line["step"] for line in read_log(str(tmp_path)).training] == [3, 9]
    tidy(str(tmp_path))
    whole = (tmp_path / "metrics.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line)["step"] for line in whole[:-1]] == [3, 9]


def test_time_and_tokens_by_hand(tmp_path):
    """10 + 10 steps at 2/s (the first line has no speed), 20 at 4/s, and 5 at the last speed known."""
    for step, values in [(10, dict(steps=10, tokens=70)), (20, dict(steps_per_second=2.0)),
                         (40, dict(steps_per_second=4.0, steps=5, tokens=40)), (45, {})]:
        append_metrics(str(tmp_path), "train", step, values)
    log = read_log(str(tmp_path))
    assert log.training_seconds() == 10 + 5 + 1.25
    assert log.tokens() == 10 * 7 + 35 * 8
    assert log.up_to(10).training_seconds() is None and log.up_to(10).tokens() == 70
    assert read_log(str(tmp_path / "nothing")).tokens() is None


def test_a_start_removes_what_it_is_about_to_repeat(tmp_path):
    for step in (10, 20):
        append_metrics(str(tmp_path), "train", step, {})
        append_metrics(str(tmp_path), "evaluation", step, {"loss": step})
    tidy(str(tmp_path), 20)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == {"step": 20, "loss": 20}
    tidy(str(tmp_path), 19)
    log = read_log(str(tmp_path))
    assert [line["step"] for line in log.training + log.evaluations] == [10, 10]
    assert not (tmp_path / "evaluation.json").exists()
    (tmp_path / "evaluation.json").write_text("{")
    tidy(str(tmp_path), 19)
    assert not (tmp_path / "evaluation.json").exists()


# ---- A real run, killed once.

def test_log_of_a_killed_run(real_run):
    """Every step up to the last is reported once, although some were repeated."""
    log = read_log(str(real_run.model_dir))
    assert [line["step"] for line in log.training] == list(range(3, STEPS + 1, 3))
    assert [line["step"] for line in log.evaluations] == [20, 40]
    first, second = log.starts
    assert first["step"] == 0 and second["step"] % 6 == 0 and second["step"] >= 12
    assert f"; step {second['step']} of {STEPS}" in real_run.printed
    without_speed = [line["step"] for line in log.training if "steps_per_second" not in line]
    assert without_speed == []  # the loop that compiles has one step, and the line more
    assert "TensorFlow" in first["devices"] and first["data"] == second["data"]
    assert first["data"]["documents"] > 0 and first["data"]["settings"]["dedup"] == "exact"


def test_tokens_of_a_run_are_those_of_its_examples(real_run):
    info = load_records_info(real_run.data.data_dir)
    config = run_config()
    shards = usable_shards(real_run.data.data_dir, info, False)
    batches = training_dataset(shards, info, config, first_example=0, host=0, num_hosts=1,
                               batch_size=config.train_batch_size).take(STEPS)
    expected = sum(int(tf.reduce_sum(batch.input_mask)) for batch in batches)
    assert read_log(str(real_run.model_dir)).tokens() == pytest.approx(expected)


def events(real_run, name: str) -> EventAccumulator:
    """As TensorBoard reads them. Its older `event_accumulator`, which nothing of it uses for this, keeps
    tensors of steps that were repeated."""
    folder = real_run.model_dir / "summaries" / name
    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def test_tensorboard_shows_no_step_twice_and_the_same_tags(real_run):
    train, validation = events(real_run, "train"), events(real_run, "validation")
    assert [event.step for event in train.Tensors("loss")] == list(range(3, STEPS + 1, 3))
    assert [event.step for event in validation.Tensors("loss")] == [20, 40]
    only_validation = set(validation.Tags()["tensors"]) - set(train.Tags()["tensors"])
    assert only_validation == {"disc_auc", "samples"}


def test_tensorboard_draws_the_floor_with_what_it_belongs_to(real_run):
    """As a run of its own with the same tags."""
    floor, validation = events(real_run, "floor"), events(real_run, "validation")
    tags = {"masked_lm_loss", "disc_auc", "disc_accuracy"}
    assert set(floor.Tags()["tensors"]) == tags | {"disc_auc_above_floor", "disc_accuracy_above_floor"}
    assert tags < set(validation.Tags()["tensors"])
    lines = read_log(str(real_run.model_dir)).evaluations
    found = [float(tf.make_ndarray(event.tensor_proto)) for event in floor.Tensors("disc_auc")]
    assert found == pytest.approx([line["floor_disc_auc"] for line in lines])


@pytest.mark.parametrize("count", [1, 2])
def test_the_floor_is_a_dashed_line(real_run, count):
    log = read_log(str(real_run.model_dir))
    drawn = [charts.DrawnRun(dataclasses.replace(log, evaluations=log.evaluations[:count]), ())]
    panels = {panel.title: panel for panel in charts.panels_of(drawn)}
    for title, metric in (("Discriminator: AUC (validation)", "floor_disc_auc"),
                          ("Generator: loss", "floor_masked_lm_loss")):
        figure, axes = charts.plt.subplots()
        charts._draw(axes, panels[title], drawn)
        floor, = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
        expected = [line[metric] for line in log.evaluations[:count]]
        assert set(floor.get_ydata()) == set(expected)
        assert "counting tokens" in [text.get_text() for text in axes.get_legend().get_texts()]
        charts.plt.close(figure)


def test_tensorboard_compares_runs_by_their_settings(real_run):
    tag = "_hparams_/session_start_info"
    metadata = events(real_run, "").SummaryMetadata(tag)
    values = HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info.hparams
    assert values["hidden_size"].number_value == 24 and values["learning_rate"].number_value == 1e-2
    assert values["restart_steps"].string_value == "(40,)" and "log_every" not in values


def run_command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "electra_es.monitoring", *arguments],
                          capture_output=True, text=True)


def test_the_command_says_what_it_wrote(real_run, tmp_path):
    output = tmp_path / "report.html"
    result = run_command(f"--model_dir={real_run.model_dir}", f"--output={output}")
    assert result.stdout == f"{output}: 60 steps, 1 run\n", result.stderr
    page = output.read_text()
    assert "<title>electra debug · runs/real</title>" in page
    assert 'name="viewport"' in page and "Speed (examples per second)" in page
    assert page.count("<svg") == len(charts.PANELS) and "Discriminator: AUC" in page
    assert "AUC of counting tokens" in page
    sha = load_runs([str(real_run.model_dir)])[0].run.text.vocab_sha256
    assert f'<span title="{sha}">{sha[:12]}…</span>' in page and page.count(sha) == 1
    assert not re.search(r">##\w", page), "pieces are not joined"


def test_report_of_one_line(real_run, tmp_path):
    run = tmp_path / "one"
    shutil.copytree(real_run.model_dir, run)
    tidy(str(run), 3)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:  # as of a run with log_every=1, whose first line has no speed
        for name in ("steps_per_second", "examples_per_second", "tokens_per_second"):
            line.pop(name, None)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert write_report([str(run)], str(tmp_path / "one.html")).endswith(": 3 steps, 1 run")
    page = (tmp_path / "one.html").read_text()
    assert "<b>–</b><span class=\"faint\">training time" in page
    assert "Speed" not in page and "AUC" not in page  # nothing to show
    drawn = [charts.DrawnRun(read_log(str(run)), ())]
    for panel in charts.panels_of(drawn):
        figure, axes = charts.plt.subplots()
        charts._draw(axes, panel, drawn)
        figure.canvas.draw()
        assert [text.get_text() for text in axes.get_xticklabels()][:4] == ["0", "1", "2", "3"]
        labels = [text.get_text() for text in axes.get_yticklabels()]
        assert len(set(labels)) == len(labels) > 3
        charts.plt.close(figure)


def test_two_runs_in_one_report(real_run, tmp_path):
    other = tmp_path / "otro <run>"
    shutil.copytree(real_run.model_dir, other)
    tidy(str(other), 30)
    config = json.loads((other / "config.json").read_text())
    config["pretraining"]["learning_rate"] = 0.0625
    (other / "config.json").write_text(json.dumps(config))
    output = tmp_path / "both.html"
    line = write_report([str(real_run.model_dir), str(other)], str(output))
    assert line == f"{output}: 60 steps, 2 runs"
    page = output.read_text()
    differ = page[page.index("Settings that differ"):page.index("Curves")]
    assert re.findall(r"<td.*?>(.*?)</td>", differ) == ["learning_rate", "0.01", "0.0625"]
    same = page[page.index("Settings that are the same"):]
    assert "hidden_size" in same and "learning_rate" not in same
    assert "otro &lt;run&gt;" in page and "otro <run>" not in page
    loss = re.findall(r"<svg.*?</svg>", page, re.DOTALL)[0]
    assert all(f"stroke: {colour}" in loss for colour in charts.RUN_COLOURS[:2])
    write_report([str(real_run.model_dir), str(other)], str(tmp_path / "both.png"))


def test_names_tell_runs_apart(tmp_path):
    assert run_names(["/a/runs/small/model"]) == ["small/model"]
    assert run_names(["/a/runs/x/model", "/b/runs/x/model"]) == ["a/runs/x/model", "b/runs/x/model"]
    assert run_names(["gs://b/one/", "gs://b/two"]) == ["b/one", "b/two"]
    with pytest.raises(UsageError, match="--model_dir=/a/./b: named twice"):
        run_names(["/a/b", "/a/./b"])


def test_report_that_cannot_be_written(real_run, tmp_path):
    for ending in ("html", "png"):
        with pytest.raises(UsageError, match="cannot be written"):
            write_report([str(real_run.model_dir)], str(tmp_path / "nowhere" / f"report.{ending}"))
