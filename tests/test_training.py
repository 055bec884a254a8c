"""The run as a whole: what is due when, where weights come from, evaluation."""

import functools
import json

import numpy as np
import pytest
from engine_helpers import Data, make_data, model_config, run_config

from electra_es.errors import UsageError
from electra_es.export.initial_weights import load_initial_weights
from electra_es.training.evaluation import evaluate_run
from electra_es.training.run_dir import load_model
from electra_es.training.train import is_due, steps_until_due, train, vocabulary_line


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


def test_samples_show_replacements(trained):
    with open(f"{trained[0]}/samples.jsonl") as file:
        samples = json.loads(file.read().splitlines()[-1])["samples"]
    assert len(samples) == 4
    for sample in samples:
        assert (sample[0][0], sample[-1][0]) == ("[CLS]", "[SEP]")
        assert all(0 < probability < 1 for _, _, probability in sample)
    assert any(original != shown for sample in samples for original, shown, _ in sample)


def test_initial_weights_of_another_run(data, trained, tmp_path):
    """Weights are taken over; the step, and so the schedule and the data, begin at 0. With a rate
    of next to nothing they stay what they were."""
    result = train(model_config(), run(stop_at_step=1, learning_rate=1e-12), evaluate_at_end=False,
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
