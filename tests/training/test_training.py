"""A whole run: the order of its actions, its initial weights, its evaluation."""

import dataclasses
import functools
import json
import pathlib
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
from engine_helpers import Data, make_data, model_config, run_config

from electra_es.data.inputs import synthetic_batch
from electra_es.data.records import load_records_info, read_id_counts
from electra_es.errors import UsageError
from electra_es.export.initial_weights import load_initial_weights
from electra_es.training import evaluation
from electra_es.training.checkpoints import Checkpoints
from electra_es.training.evaluation import evaluate_run
from electra_es.training.optimization import Adam, schedule_for
from electra_es.training.pace import is_due, steps_until_due
from electra_es.training.run_dir import load_model, settings_of_run, store_id_counts
from electra_es.training.steps import TrainStep
from electra_es.training.train import train, vocabulary_line


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Data:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run of 6 steps with an evaluation in the middle and one at the end."""
    model_dir = str(tmp_path_factory.mktemp("trained") / "run")
    result = train(model_config(), run(eval_every=3), model_dir=model_dir, **data._asdict())
    return model_dir, result


def weights_of(source: str):
    return functools.partial(load_initial_weights, source=source)


def run(**settings):
    return run_config(deterministic=False, num_train_steps=6, restart_steps=(), **settings)


def weights(model_dir: str) -> list[np.ndarray]:
    return [variable.numpy() for variable in load_model(model_dir)[0].trainable_variables]


@pytest.mark.parametrize("step, expected", [(0, 7), (7, 3), (10, 7), (17, 3), (20, 5), (25, 5),
                                            (56, 2)])
def test_stretches_end_where_something_is_due(step, expected):
    config = run_config(num_train_steps=58, steps_per_loop=7, log_every=10, save_every=25,
                        restart_steps=(), eval_every=0)
    assert steps_until_due(step, config) == expected


def test_everything_is_due_at_the_last_step():
    config = run_config(stop_at_step=13)
    assert [step for step in range(1, 14) if is_due(step, 5, config)] == [5, 10, 13]


def test_evaluations_are_reported_and_the_last_one_is_returned(trained):
    model_dir, result = trained
    assert (result.step, result.stopped_by_signal) == (6, False)
    with open(f"{model_dir}/metrics.jsonl") as file:
        lines = [json.loads(line) for line in file]
    assert [line["step"] for line in lines if line["kind"] == "evaluation"] == [3, 6]
    with open(f"{model_dir}/evaluation.json") as file:
        assert json.load(file) == {"step": 6, **result.evaluation}


def test_evaluating_again_gives_the_same_numbers(data, trained):
    model_dir, result = trained
    again = evaluate_run(model_config(), run(), model_dir=model_dir, **data._asdict())
    assert again == pytest.approx(result.evaluation, rel=1e-6)


def lines_of(model_dir: str, name: str) -> list[dict]:
    with open(f"{model_dir}/{name}") as file:
        return [json.loads(line) for line in file]


def test_evaluating_again_writes_nothing_twice(data, trained):
    """By evaluation alone, with `model_dir` as the vocabulary, and by the command that trained."""
    model_dir, result = trained
    before = [lines_of(model_dir, name) for name in ("metrics.jsonl", "samples.jsonl")]
    evaluate_run(*settings_of_run(model_dir, {}), data_dir=data.data_dir, vocab_dir=model_dir,
                 model_dir=model_dir)
    again = train(model_config(), run(), model_dir=model_dir, **data._asdict())
    assert again.evaluation == pytest.approx(result.evaluation, rel=1e-6)
    assert [lines_of(model_dir, name) for name in ("metrics.jsonl", "samples.jsonl")] == before


def test_an_evaluation_has_the_settings_of_its_run(data, trained):
    model_dir, _ = trained
    assert settings_of_run(model_dir, {}) == (model_config(), run(eval_every=3))
    overrides = {"eval_examples": 3, "precision": "bfloat16", "lower_case": False, "hidden_size": 24}
    assert settings_of_run(model_dir, overrides) == (
        model_config(), run(eval_every=3, eval_examples=3, precision="bfloat16"))
    for contradiction in ({"seed": 4}, {"hidden_size": 48}, {"max_seq_length": 16}):
        with pytest.raises(UsageError, match=f"holds a run with {next(iter(contradiction))}="):
            settings_of_run(model_dir, contradiction)
    for setting, value in (("seed", 4), ("max_seq_length", 16)):
        with pytest.raises(UsageError, match=f"holds a run with {setting}=.*, this one has {setting}="):
            evaluate_run(model_config(), run(**{setting: value}), model_dir=model_dir,
                         **data._asdict())


def test_evaluations_are_compiled_once(data, trained, monkeypatch):
    """The first call compiles; the data of the samples is read once."""
    datasets = []
    validation_dataset = evaluation.validation_dataset
    monkeypatch.setattr(evaluation, "validation_dataset",
                        lambda *args, **more: datasets.append(1) or validation_dataset(*args, **more))
    steps = []
    for name in ("make_eval_step", "make_show_step"):
        make = getattr(evaluation, name)
        monkeypatch.setattr(evaluation, name, lambda *args, make=make: steps.append(make(*args))
                            or steps[-1])
    model, tokenizer, _, _ = load_model(trained[0])
    evaluate = evaluation.make_evaluation(
        model, tokenizer, model_config(), run(), tf.distribute.get_strategy(), data.data_dir,
        load_records_info(data.data_dir))
    first, again = evaluate(), evaluate()
    assert first == again and len(first.samples) == 4
    assert [step.experimental_get_tracing_count() for step in steps] == [1, 1]
    assert len(datasets) == 2
    assert evaluate(lambda: True) is None
    told: list[str] = []
    assert evaluate(tell=told.append) == first
    assert told == ["evaluation: 1 of 2 batches", "evaluation: 2 of 2 batches"]


def test_a_signal_in_the_last_evaluation(data, trained, monkeypatch, capsys):
    restore = Checkpoints.restore_latest

    def restore_and_signal(self):
        signal.raise_signal(signal.SIGTERM)
        return restore(self)

    monkeypatch.setattr(Checkpoints, "restore_latest", restore_and_signal)
    result = train(model_config(), run(), model_dir=trained[0], **data._asdict())
    assert result == (6, {}, True)
    assert "stopped by a signal in the evaluation at step 6" in capsys.readouterr().out


def test_a_signal_in_an_exam(data, trained, monkeypatch, capsys):
    """The exam ends with the batch that is under way, and reports nothing."""
    asked = iter([False, False, False, True])
    monkeypatch.setattr("electra_es.training.interruption.StopSignal.requested",
                        lambda self: next(asked))
    result = train(model_config(), run(exam_every=6), model_dir=trained[0], **data._asdict())
    assert result == (6, {}, True) and not list(asked)
    printed = capsys.readouterr().out
    assert "stopped by a signal in the exam at step 6" in printed and "exam at step 6:" not in printed
    assert not [line for line in lines_of(trained[0], "metrics.jsonl") if line["kind"] == "exam"]


def test_a_stop_before_where_the_run_is(data, trained):
    with pytest.raises(UsageError, match="--stop_at_step=5: .* is at step 6 already: expected a later"):
        train(model_config(), run(stop_at_step=5), model_dir=trained[0], **data._asdict())


def test_other_records_than_those_of_the_checkpoints(data, trained, tmp_path):
    """A shard with fewer examples, and the same numbers built of other text."""
    for change, reason in ((dict(examples={"train": [7, 6, 5, 4, 8], "validation": [3, 2]}),
                            "train-00004-of-00005.tfrecord has 8 examples, had 9"),
                           (dict(fingerprint="other"), "built of other text or settings")):
        records = pathlib.Path(shutil.copytree(data.data_dir, tmp_path / reason[:5]))
        info = dataclasses.replace(load_records_info(data.data_dir), **change)
        (records / "info.json").write_text(info.to_json())
        with pytest.raises(UsageError, match=f"not the records that .* was trained on .{reason}"):
            train(model_config(), run(), data_dir=str(records), vocab_dir=data.vocab_dir,
                  model_dir=trained[0])


def test_the_masked_lm_objective_has_nothing_of_a_discriminator(data, tmp_path, capsys):
    """No figures in lines or files, and no samples drawn in its step."""
    model_dir = str(tmp_path / "run")
    train(model_config(objective="mlm"), run(log_every=2, steps_per_loop=2), model_dir=model_dir,
          **data._asdict())
    printed = capsys.readouterr().out
    assert "disc" not in printed and "model: " in printed
    for line in lines_of(model_dir, "metrics.jsonl"):
        assert not [name for name in line if "disc" in name or "sampled" in name
                    or name == "replaced_share"]
    model = load_model(model_dir)[0]
    step = TrainStep(model, Adam(model.trainable_variables, schedule_for(run()), run()),
                     model_config(objective="mlm"), run())
    graph = tf.function(step, autograph=False).get_concrete_function(
        synthetic_batch(4, 13, 61)).graph.as_graph_def()
    nodes = [node for function in graph.library.function for node in function.node_def]
    operations = {node.op for node in nodes}
    assert any("vocabulary_softmax/" in node.name for node in nodes)
    assert not any("sampling/" in node.name for node in nodes)
    assert not operations & {"SegmentSumV2", "Sigmoid", "Softplus"}


def test_samples_show_replacements(trained):
    with open(f"{trained[0]}/samples.jsonl") as file:
        samples = json.loads(file.read().splitlines()[-1])["samples"]
    assert len(samples) == 4
    for sample in samples:
        assert (sample[0][0], sample[-1][0]) == ("[CLS]", "[SEP]")
        assert all(0 < probability < 1 for _, _, probability in sample)
    assert any(original != shown for sample in samples for original, shown, _ in sample)


def test_initial_weights_of_another_run(data, trained, tmp_path):
    """Weights are used; the step, and so schedule and data, start at 0. With a tiny rate the weights
    hardly change."""
    result = train(model_config(), run(stop_at_step=1, learning_rate=1e-10), evaluate_at_end=False,
                   model_dir=str(tmp_path / "new"), initial_weights=weights_of(trained[0]),
                   **data._asdict())
    assert result.step == 1
    for before, after in zip(weights(trained[0]), weights(str(tmp_path / "new")), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-7)


@pytest.mark.parametrize("shape, letters, message", [
    (dict(hidden_size=48), None, "has shape .*: expected"),
    ({}, "opqrstuvwxyzáé", "56 of them differ: expected the same vocabulary"),
])
def test_initial_weights_that_do_not_fit(data, trained, tmp_path, shape, letters, message):
    if letters:
        data = make_data(tmp_path / "other", vocab_letters=letters)
    with pytest.raises(UsageError, match=message):
        train(model_config(**shape), run(), model_dir=str(tmp_path / "new"),
              initial_weights=weights_of(trained[0]), **data._asdict())


def test_initial_weights_of_nothing(data, tmp_path):
    with pytest.raises(UsageError, match="--init_checkpoint=nowhere: expected a model directory"):
        train(model_config(), run(), model_dir=str(tmp_path / "new"),
              initial_weights=weights_of("nowhere"),
              **data._asdict())


def test_vocabulary_line_counts_what_the_records_never_use(data, tmp_path):
    from electra_es.text.tokenizer import load_tokenizer

    counts = np.ones(61, np.int64)
    counts[[7, 9]] = 0
    np.save(tmp_path / "id_counts.npy", counts)
    line = vocabulary_line(load_tokenizer(data.vocab_dir), str(tmp_path))
    assert line.startswith("vocabulary of 61: ") and "2 never seen" in line


def test_a_run_keeps_the_counts_of_its_records(data, tmp_path):
    """A start on other records, before the first checkpoint, leaves none."""
    counts = np.arange(61, dtype=np.int64)
    with_counts = shutil.copytree(data.data_dir, tmp_path / "records")
    np.save(with_counts / "id_counts.npy", counts)
    model_dir = tmp_path / "run"
    model_dir.mkdir()
    store_id_counts(str(model_dir), str(with_counts), 61)
    np.testing.assert_array_equal(read_id_counts(str(model_dir), 61), counts)
    store_id_counts(str(model_dir), data.data_dir, 61)
    assert read_id_counts(str(model_dir), 61) is None
    with pytest.raises(UsageError, match=r"id_counts.npy: counts of shape \(61,\)"):
        store_id_counts(str(model_dir), str(with_counts), 60)
