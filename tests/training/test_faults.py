"""Faults around a run: each one ends with one clear line, and nothing is lost."""

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from engine_helpers import Data, damaged, make_data, model_config, run_config

from electra_es.config import PretrainingConfig
from electra_es.data.inputs import synthetic_batch
from electra_es.data.records import load_records_info, shard_name
from electra_es.data.shards import usable_shards
from electra_es.errors import CheckFailed, UsageError
from electra_es.files import only_run_in
from electra_es.model.batches import VocabularyFacts
from electra_es.model.pretrainer import build_pretrainer
from electra_es.text.tokenizer import load_tokenizer
from electra_es.training import steps
from electra_es.training.checkpoint_files import completed_steps
from electra_es.training.evaluation import evaluate_run
from electra_es.training.optimization import Adam, schedule_for
from electra_es.training.run_dir import prepare_model_dir
from electra_es.training.steps import TrainStep, make_train_loop
from electra_es.training.train import train


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Data:
    return make_data(tmp_path_factory.mktemp("data"))


def start(data: Data, model_dir, model=None, **settings):
    return train(model or model_config(), run_config(deterministic=False, **settings),
                 model_dir=str(model_dir), evaluate_at_end=False, **data._asdict())


def test_two_runs_in_one_model_dir(data, tmp_path):
    with only_run_in(str(tmp_path)), pytest.raises(
            UsageError, match="another run is writing there: expected none"):
        start(data, tmp_path)


def test_a_model_dir_that_cannot_be_written(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=f"{tmp_path}/file/run: cannot be written"):
        start(data, tmp_path / "file" / "run")


def test_records_of_another_vocabulary(data, tmp_path):
    other = make_data(tmp_path / "other", vocab_letters="opqrstuvwxyzáé")
    with pytest.raises(UsageError, match="was built with another vocabulary .*: expected the same"):
        start(Data(other.data_dir, data.vocab_dir), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("settings, named", [
    (dict(num_layers=2), "num_layers=1, this one has num_layers=2"),
    (dict(learning_rate=2e-3), "learning_rate=0.01, this one has learning_rate=0.002"),
])
def test_model_dir_of_another_configuration(data, tmp_path, settings, named):
    tokenizer = load_tokenizer(data.vocab_dir)
    prepare_model_dir(str(tmp_path), tokenizer, data.vocab_dir, model_config(), run_config())
    before = (tmp_path / "config.json").read_bytes()
    model = {name: value for name, value in settings.items() if name == "num_layers"}
    run = {name: value for name, value in settings.items() if name != "num_layers"}
    with pytest.raises(UsageError, match=named):
        start(data, tmp_path, model_config(**model), **run)
    assert (tmp_path / "config.json").read_bytes() == before


def test_evaluating_another_model(data, tmp_path):
    tokenizer = load_tokenizer(data.vocab_dir)
    prepare_model_dir(str(tmp_path), tokenizer, data.vocab_dir, model_config(), run_config())
    with pytest.raises(UsageError, match="hidden_size=24, this one has hidden_size=48"):
        evaluate_run(model_config(hidden_size=48), run_config(deterministic=False),
                     model_dir=str(tmp_path), **data._asdict())


def test_truncated_shard_ends_the_run_by_name(data, tmp_path):
    shard = pathlib.Path(data.data_dir) / shard_name("train", 1, 5)
    with damaged(shard, keep_bytes=shard.stat().st_size - 7), pytest.raises(
            UsageError, match=f"{shard.name}: cut off: .*--skip_corrupt_shards leaves it out"):
        start(data, tmp_path / "run")


def test_a_shard_that_is_shorter_than_info_says(data, tmp_path, capsys):
    """Complete records are missing, so no checksum is wrong."""
    copy = Data(str(shutil.copytree(data.data_dir, tmp_path / "records")), data.vocab_dir)
    shard = tmp_path / "records" / shard_name("train", 0, 5)
    shard.write_bytes((tmp_path / "records" / shard_name("train", 3, 5)).read_bytes())
    info = load_records_info(copy.data_dir)
    assert len(usable_shards(copy.data_dir, info, skip_corrupt=False)) == 5
    kept = usable_shards(copy.data_dir, info, skip_corrupt=True)
    assert [count for _, count in kept] == [6, 5, 4, 9]
    assert f"left out: {shard}: 4 examples, expected 7" in capsys.readouterr().out
    for path in (tmp_path / "records").glob("train-*"):
        path.write_bytes(b"")
    with pytest.raises(UsageError, match="no shard can be read"):
        usable_shards(copy.data_dir, info, skip_corrupt=True)


def test_steps_that_are_not_finite_are_not_applied(monkeypatch):
    """NaN in steps 3 and 4 of 5: both steps count, but do not change weights and moments."""
    config = run_config(deterministic=False)
    model = build_pretrainer(model_config(), VocabularyFacts(61, 0, 2, 3, 4, np.ones(61, bool)))
    optimizer = Adam(model.trainable_variables, schedule_for(config), config)
    loss = steps.total_loss

    def poisoned(*arguments):
        poison = (optimizer.iterations == 2) | (optimizer.iterations == 3)
        return loss(*arguments) * tf.where(poison, np.float32("nan"), 1.0)

    monkeypatch.setattr(steps, "total_loss", poisoned)
    loop = make_train_loop(TrainStep(model, optimizer, model_config(), config),
                           tf.distribute.get_strategy())
    batches = iter(tf.data.Dataset.from_tensors(synthetic_batch(4, 13, 61)).repeat())

    def run(number: int, bad_in_row: float = 0.0):
        sums = loop(batches, tf.constant(number), tf.constant(bad_in_row))
        return ({name: float(value) for name, value in sums.items()},
                [v.numpy() for v in (*model.trainable_variables, *optimizer.second_moments)])

    _, before = run(2)
    bad, after = run(2)
    assert (bad["bad"], bad["bad_in_row"], bad["last_bad_step"]) == (2, 2, 4)
    assert bad["tokens"] == 0 and bad["mlm_loss"] == 0
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    good, last = run(1, bad["bad_in_row"])
    assert (good["bad"], good["bad_in_row"], optimizer.iterations.numpy()) == (0, 0, 5)
    assert any(not np.array_equal(a, b) for a, b in zip(after, last, strict=True))


def test_too_many_bad_steps_end_the_run(data, tmp_path, capsys, monkeypatch):
    """A learning rate of 1e30, which no setting takes, makes the second step's weights useless."""
    monkeypatch.setattr("electra_es.training.train.schedule_for",
                        lambda config: lambda step: tf.constant(1e30))
    with pytest.raises(CheckFailed, match="steps in a row, up to step .* keeps its last good"):
        start(data, tmp_path / "run", max_bad_steps=4, steps_per_loop=2, save_every=1)
    assert "with a non-finite loss or gradient were not applied" in capsys.readouterr().out
    assert completed_steps(str(tmp_path / "run"))


def test_remote_tpu_with_local_paths(data, tmp_path):
    from electra_es.training.devices import TpuAddress

    with pytest.raises(UsageError, match="--data_dir=.*: expected a gs:// path"):
        train(model_config(), PretrainingConfig(), model_dir=str(tmp_path), **data._asdict(),
              tpu=TpuAddress("grpc://10.0.0.2:8470"))
