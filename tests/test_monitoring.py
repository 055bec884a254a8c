"""Lines, warnings, operations per example, and the report drawn of a run's files."""

import json

import pytest
from engine_helpers import run_config

from electra_es.config import ModelConfig, PretrainingConfig, TextConfig, model_config, to_json
from electra_es.durations import format_duration
from electra_es.errors import UsageError
from electra_es.monitoring import progress
from electra_es.monitoring.health import HealthWatch
from electra_es.monitoring.progress import ProgressLog, SampleToken, sample_markdown
from electra_es.monitoring.report import load_lines, write_report
from electra_es.training.flops import training_flops

METRICS = dict(loss=24.5, masked_lm_loss=4.25, masked_lm_accuracy=0.3, disc_loss=0.4,
               sampled_masked_lm_accuracy=0.2, disc_accuracy=0.87, disc_precision=0.6,
               disc_recall=0.5, replaced_share=0.12, learning_rate=1e-3, gradient_norm=2.0)


@pytest.mark.parametrize("seconds, text", [(12.4, "12s"), (185, "3m05s"), (3720, "1h02m")])
def test_format_duration(seconds, text):
    assert format_duration(seconds) == text


def test_speed_and_utilisation(tmp_path, monkeypatch, capsys):
    """10 steps of 4 examples in 5 s: 8 examples/s, 104 tokens/s; 8 * 50 of 1000 FLOP/s."""
    clock = iter([100.0, 105.0, 105.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    log = ProgressLog(str(tmp_path), run_config(), flops_per_example=50.0, peak_flops=1000.0)
    log.count_from(20)
    log.train(30, METRICS)
    line = capsys.readouterr().out
    assert "step 30/60  loss 24.500" in line
    assert "8.0 ex/s  104 tok/s  MFU 40.0 %  ETA 15s" in line
    written = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (written["steps_per_second"], written["flop_utilisation"]) == (2.0, 0.4)


def test_first_line_has_no_speed(tmp_path, capsys):
    """It would be that of compiling."""
    log = ProgressLog(str(tmp_path), run_config())
    log.count_from(20)
    log.train(20, METRICS)
    assert "ex/s" not in capsys.readouterr().out


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
        said = [watch.warnings(step, bad) for step in range(2_100, 2_500, 100)]
        assert [len(lines) for lines in said] == [0, 0, 1, 0]
        assert said[2][0].startswith(f"warning: {name} at step 2300")
        assert metrics is MLM or "masked_lm_accuracy" not in said[2][0]


def test_no_recall_is_normal_in_the_beginning():
    watch = HealthWatch(PretrainingConfig(num_train_steps=10_000, warmup_steps=1_000))
    assert not any(warned(watch, step, disc_recall=0.0) for step in range(100, 2_000, 100))


def test_sample_markdown():
    sample = [SampleToken("pan", "pan", 0.1), SampleToken("con", "sin", 0.7),
              SampleToken("tomate", "tomate", 0.6)]
    assert sample_markdown(sample) == "pan ~~con~~ **sin** `0.70` tomate `0.60`"


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
    lines = load_lines(str(model_dir / "metrics.jsonl"))
    training = [(line["step"], line["loss"]) for line in lines if line["kind"] == "train"]
    assert training == [(10, 9), (20, 6), (30, 5)]


def test_report_is_one_file_with_what_matters(model_dir, tmp_path):
    output = tmp_path / "report.html"
    write_report(str(model_dir), str(output))
    page = output.read_text()
    assert "un &lt;run&gt;" in page and "<b>0.912</b>" in page and "<b>15s</b>" in page
    assert '<span class="replaced" style="background:rgba(194,65,59,0.52)"' in page
    assert "&lt;sin&gt;" in page and "<sin>" not in page
    assert page.count("<svg") == 1 and 'src="' not in page and "<script" not in page
    write_report(str(model_dir), str(tmp_path / "report.png"))
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_report_of_nothing(model_dir, tmp_path):
    with pytest.raises(UsageError, match=r"--output=report.pdf: expected a name in .html or .png"):
        write_report(str(model_dir), "report.pdf")
    (model_dir / "metrics.jsonl").unlink()
    with pytest.raises(UsageError, match="metrics.jsonl: expected at least one progress line"):
        write_report(str(model_dir), str(tmp_path / "report.html"))
