"""Values that a shard must not hold are found while reading, and the shard is named."""

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from engine_helpers import LENGTH, VOCAB_SIZE, Data, damaged, make_data, run_config

from electra_es.data import shards as shards_module
from electra_es.data import tfrecord
from electra_es.data.inputs import training_dataset, validation_dataset
from electra_es.data.records import load_records_info, shard_name
from electra_es.data.shards import (
    bad_shard_named,
    check_validation,
    shard_faults,
    usable_shards,
)
from electra_es.errors import UsageError


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Data:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def records(data, tmp_path) -> pathlib.Path:
    """A copy, which a test damages."""
    return pathlib.Path(shutil.copytree(data.data_dir, tmp_path / "records"))


def google_records(directory: pathlib.Path, **features: list[int]) -> pathlib.Path:
    """Two shards of Google's layout of one example each; `features` are those of the second."""
    directory.mkdir()
    whole = dict(input_ids=[2, 9, 3, 8, 3, 0], input_mask=[1, 1, 1, 1, 1, 0],
                 segment_ids=[0, 0, 0, 1, 1, 0])
    for shard, values in enumerate((whole, {**whole, **features})):
        example = tf.train.Example(features=tf.train.Features(feature={
            name: tf.train.Feature(int64_list=tf.train.Int64List(value=value))
            for name, value in values.items()}))
        with open(directory / f"pretrain_data.tfrecord-{shard}-of-2", "wb") as file:
            tfrecord.write_records(file, [example.SerializeToString()])
    return directory


def read(directory: pathlib.Path, vocab_size: int = VOCAB_SIZE) -> None:
    """Some steps of the training pipeline in a compiled loop, as in training."""
    info = load_records_info(str(directory))
    shards = usable_shards(str(directory), info, skip_corrupt=False)
    batches = iter(tf.distribute.get_strategy().experimental_distribute_dataset(training_dataset(
        shards, info, run_config(train_batch_size=2, data_streams=2), first_example=0, batch_size=2,
        vocab_size=vocab_size)))

    @tf.function(autograph=False)
    def loop(batches) -> tf.Tensor:
        return tf.while_loop(
            lambda i: i < 40, lambda i: (i + tf.reduce_max(batches.get_next().input_mask),), (0,))[0]

    with bad_shard_named(shards, info, vocab_size, "; advice"):
        loop(batches)


@pytest.mark.parametrize("wrong, message", [
    (dict(input_ids=[2, 9, 3, 60, 3, 0]), "60 as a token id: expected 0 or more and below V=60"),
    (dict(input_ids=[2, 9, 3, 2**32 + 5, 3, 0]), "4294967301 as a token id: expected"),
    (dict(input_ids=[2, 9, 3, -1, 3, 0]), "-1 as a token id: expected 0 or more"),
    (dict(segment_ids=[0, 0, 0, 2, 1, 0]), "2 in segment_ids: expected 0 or 1"),
    (dict(input_mask=[1, 1, 1, 1, 7, 0]), "7 in input_mask: expected 0 or 1"),
])
def test_googles_layout(tmp_path, monkeypatch, wrong, message):
    """The shard is named at once, without a search through all shards."""
    directory = google_records(tmp_path / "records", **wrong)
    monkeypatch.setattr(shards_module, "shard_faults", None)
    with pytest.raises(UsageError) as caught:
        read(directory, vocab_size=60)
    text = str(caught.value)
    assert text.startswith(f"{directory}/pretrain_data.tfrecord-1-of-2: {message}"), text
    assert text.endswith("; advice") and "\n" not in text


def test_googles_layout_of_another_length(tmp_path):
    directory = google_records(tmp_path / "records", input_ids=[2, 9, 3])
    with pytest.raises(UsageError, match="pretrain_data.tfrecord-1-of-2: .*input_ids.*; advice"):
        read(directory)


@pytest.mark.parametrize("ids, message", [
    ([2, 7, VOCAB_SIZE, 3], f"{VOCAB_SIZE} as a token id: expected 0 or more and below "
                            f"V={VOCAB_SIZE}"),
    ([2, *[7] * LENGTH, 3], f"{LENGTH + 2} tokens in an example: expected at most {LENGTH}"),
])
def test_our_layout(records, ids, message):
    """In training, in a check of all shards, and in an evaluation."""
    bad = records / shard_name("train", 2, 5)
    bad.write_bytes(b"")
    with open(bad, "ab") as file:
        tfrecord.write_records(file, [tfrecord.encode_example(np.array(ids), len(ids))] * 5)
    with pytest.raises(UsageError, match=f"{bad}: {message}.*; advice"):
        read(records)
    info = load_records_info(str(records))
    assert str(bad) not in [path for path, _ in usable_shards(str(records), info, skip_corrupt=True)]
    validation = records / shard_name("validation", 1, 2)
    with open(validation, "wb") as file:
        tfrecord.write_records(file, [tfrecord.encode_example(np.array(ids), len(ids))] * 2)
    with pytest.raises(UsageError, match=f"{validation}: {message}"):
        evaluate(records)


def evaluate(records: pathlib.Path) -> None:
    info = load_records_info(str(records))
    shards = usable_shards(str(records), info, False, split="validation")
    with bad_shard_named(shards, info):
        list(validation_dataset(str(records), info, run_config(), batch_size=4, global_batch_size=4))


def test_validation_shards_that_are_cut_off_or_short(records):
    shard = records / shard_name("validation", 0, 2)
    with damaged(shard, keep_bytes=shard.stat().st_size - 7), pytest.raises(
            UsageError, match=f"{shard}: cut off"):
        evaluate(records)
    shutil.copy(records / shard_name("validation", 1, 2), shard)
    with pytest.raises(UsageError, match=f"{shard}: 2 examples: expected 3"):
        evaluate(records)


def test_validation_shards_are_checked_before_the_run(records, capsys):
    """They were read at its end only, and --skip_corrupt_shards did not leave them out."""
    shard = records / shard_name("validation", 0, 2)
    info = load_records_info(str(records))
    assert check_validation(str(records), info, False, VOCAB_SIZE) is info
    with damaged(shard, keep_bytes=shard.stat().st_size - 7):
        with pytest.raises(UsageError, match=f"{shard}: cut off.*; --skip_corrupt_shards leaves it out"):
            check_validation(str(records), info, False, VOCAB_SIZE)
        kept = check_validation(str(records), info, True, VOCAB_SIZE)
        assert kept.examples == {**info.examples, "validation": [0, 2]}
        assert f"warning: left out of evaluations: {shard}: cut off" in capsys.readouterr().out
        batches = list(validation_dataset(str(records), kept, run_config(), batch_size=4,
                                          global_batch_size=4))
        assert int((batches[0].input_mask.numpy().sum(axis=1) > 0).sum()) == 2
        (records / shard_name("validation", 1, 2)).write_bytes(b"none")
        with pytest.raises(UsageError, match="no validation shard can be read"):
            check_validation(str(records), info, True, VOCAB_SIZE)


def test_the_search_ends_at_the_first_bad_shard(records, monkeypatch):
    opened = []
    dataset = tf.data.TFRecordDataset
    monkeypatch.setattr(tf.data, "TFRecordDataset",
                        lambda path: opened.append(path) or dataset(path))
    for shard in (1, 3):
        (records / shard_name("train", shard, 5)).write_bytes(b"no record")
    info = load_records_info(str(records))
    _, fault = next(shard_faults(usable_shards(str(records), info, skip_corrupt=False), info))
    assert "not a TFRecord" in fault
    assert [path[-23:-18] for path in opened] == ["00000", "00001"]


def test_an_error_of_the_model_starts_no_search(monkeypatch):
    monkeypatch.setattr(shards_module, "shard_faults", None)

    @tf.function(autograph=False)
    def step(x):
        return tf.gather(tf.range(5), x)

    with pytest.raises(tf.errors.InvalidArgumentError), bad_shard_named([("x", 1)], None):
        step(tf.constant(7))
