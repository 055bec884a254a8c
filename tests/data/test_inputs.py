"""The position in the data is a number, and it alone decides which examples follow."""

import numpy as np
import pytest
import tensorflow as tf
from engine_helpers import TRAIN_EXAMPLES, VALIDATION_EXAMPLES, make_data, model_config, run_config

from electra_es.config import TextConfig
from electra_es.data.inputs import (
    check_records,
    num_streams,
    training_dataset,
    validation_dataset,
)
from electra_es.data.records import RecordsInfo, load_records_info, shard_paths
from electra_es.data.shards import usable_shards
from electra_es.data.tfrecord import decode_example, read_records
from electra_es.errors import UsageError


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    data = make_data(tmp_path_factory.mktemp("data"))
    info = load_records_info(data.data_dir)
    return data, info, usable_shards(data.data_dir, info, skip_corrupt=False)


def read(records, number: int, first_example: int = 0, **settings) -> list[tuple[int, bytes]]:
    """(index, bytes of the ids) of `number` examples in the order of the batches."""
    _, info, shards = records
    host = {name: settings.pop(name) for name in ("host", "num_hosts") if name in settings}
    config = run_config(**settings)
    dataset = training_dataset(shards, info, config, first_example=first_example,
                               batch_size=config.train_batch_size // host.get("num_hosts", 1), **host)
    rows = []
    for batch in dataset.take(-(-number // config.train_batch_size)).as_numpy_iterator():
        rows += [(int(index), ids.tobytes())
                 for index, ids in zip(batch.example_index, batch.input_ids, strict=True)]
    return rows


def test_examples_are_numbered_from_the_start(records):
    assert [index for index, _ in read(records, 40)] == list(range(40))


@pytest.mark.parametrize("position", [4, 28, 32, 100])
def test_going_on_from_a_position(records, position):
    """28 and 32 lie on both sides of the end of the first epoch."""
    whole = read(records, position + 40)
    assert read(records, 40, first_example=position) == whole[position:]


def all_ids(records) -> list[bytes]:
    """The ids of all 31 training examples as the reader pads them."""
    data, info, _ = records
    found = []
    for path in shard_paths(data.data_dir, info, "train"):
        with open(path, "rb") as file:
            for record in read_records(file, path):
                ids, _ = decode_example(record)
                found.append(np.pad(ids, [0, 13 - len(ids)]).astype(np.int32).tobytes())
    return found


@pytest.mark.parametrize("settings", [
    dict(train_batch_size=4, data_streams=4), dict(train_batch_size=3, data_streams=3),
    dict(train_batch_size=5, data_streams=5), dict(train_batch_size=12, data_streams=12),
    dict(train_batch_size=2, data_streams=1)])
def test_every_epoch_has_each_example_once_in_an_order_of_its_own(records, settings):
    """Shards of 7, 6, 5, 4 and 9 examples, and every number of streams that they suffice for."""
    ids = [row for _, row in read(records, 31 * 12, **settings)]
    epochs = [ids[start:start + 31] for start in range(0, 31 * 12, 31)]
    expected = sorted(all_ids(records))
    assert [sorted(epoch) for epoch in epochs] == [expected] * 12
    assert len(set(map(tuple, epochs))) == 12


@pytest.mark.parametrize("position", [4 * 23, 4 * 31, 4 * 500])
def test_positions_of_any_epoch_are_exact(records, position):
    whole = read(records, position + 24)
    assert read(records, 24, first_example=position) == whole[position:]


def test_shards_that_are_left_out_leave_the_others_equally_often(records):
    data, info, shards = records
    ids = [row for _, row in read((data, info, shards[:3] + shards[4:]), 27 * 4)]
    assert [ids.count(row) for row in set(ids)] == [4] * 27


def test_another_seed_another_order(records):
    assert read(records, 16) != read(records, 16, seed=4)


def test_two_hosts_read_the_same_examples_as_one(records):
    whole = read(records, 40)
    hosts = [read(records, 40, host=host, num_hosts=2) for host in range(2)]
    assert sorted(hosts[0] + hosts[1]) == sorted(whole)
    for step in range(10):  # of every step, not only of all of them
        both = hosts[0][2 * step:2 * step + 2] + hosts[1][2 * step:2 * step + 2]
        assert sorted(both) == sorted(whole[4 * step:4 * step + 4])


def test_number_of_streams():
    config = run_config(data_streams=8, train_batch_size=12)
    assert num_streams(config, num_shards=100, num_hosts=1) == 4  # divides 8 and 12
    assert num_streams(config, num_shards=3, num_hosts=1) == 2
    with pytest.raises(UsageError, match="4 streams .* cannot be shared by 3 hosts"):
        num_streams(config, num_shards=100, num_hosts=3)


def test_padding_and_segments(records):
    data, info, _ = records
    path = shard_paths(data.data_dir, info, "validation")[0]
    with open(path, "rb") as file:
        expected = [decode_example(record) for record in read_records(file, path)]
    batch = next(iter(validation_dataset(
        data.data_dir, info, run_config(), batch_size=5, global_batch_size=5)))
    for row, (ids, second) in enumerate(expected):
        assert batch.input_ids[row].numpy().tolist() == [*ids, *[0] * (13 - len(ids))]
        assert batch.input_mask[row].numpy().tolist() == [1] * len(ids) + [0] * (13 - len(ids))
        assert batch.segment_ids[row].numpy().tolist() == (
            [0] * second + [1] * (len(ids) - second) + [0] * (13 - len(ids)))


@pytest.mark.parametrize("limit, expected", [(0, sum(VALIDATION_EXAMPLES)), (3, 3)])
def test_validation_has_every_example_once_and_empty_rows_to_fill_up(records, limit, expected):
    data, info, _ = records
    hosts = [list(validation_dataset(
        data.data_dir, info, run_config(eval_examples=limit), batch_size=2, global_batch_size=4,
        host=host, num_hosts=2)) for host in range(2)]
    assert len(hosts[0]) == len(hosts[1]) == -(-expected // 4)
    masks = np.concatenate([batch.input_mask.numpy() for host in hosts for batch in host])
    assert (masks.sum(axis=1) > 0).sum() == expected


def test_googles_layout(tmp_path):
    def feature(values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    path = str(tmp_path / "pretrain_data.tfrecord-0-of-1")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(tf.train.Example(features=tf.train.Features(feature={
            "input_ids": feature([2, 9, 3, 8, 3, 0]), "input_mask": feature([1, 1, 1, 1, 1, 0]),
            "segment_ids": feature([0, 0, 0, 1, 1, 0])})).SerializeToString())
    info = load_records_info(str(tmp_path))
    dataset = training_dataset([(path, 1)], info, run_config(train_batch_size=1, max_seq_length=8),
                               first_example=5, batch_size=1)
    batch = next(iter(dataset))
    assert batch.input_ids.numpy().tolist() == [[2, 9, 3, 8, 3, 0, 0, 0]]
    assert batch.input_mask.numpy().tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]
    assert batch.segment_ids.numpy().tolist() == [[0, 0, 0, 1, 1, 0, 0, 0]]
    assert batch.example_index.numpy().tolist() == [5]


def test_records_that_are_shorter_than_the_run_are_told(capsys):
    info = RecordsInfo(max_seq_length=4, examples={"train": [5]})
    check_records(info, run_config(max_seq_length=16), model_config(), TextConfig(), "records")
    assert capsys.readouterr().err == (
        "warning: max_seq_length=16: records has examples of up to 4 tokens, so 75% or more of every "
        "batch is padding: expected records of the same length\n")
    check_records(info, run_config(max_seq_length=8), model_config(), TextConfig(), "records")
    assert "so 50% or more" in capsys.readouterr().err


@pytest.mark.parametrize("settings, message", [
    (dict(max_seq_length=12), "max_seq_length=12: .* has examples of up to 13 tokens"),
    (dict(max_seq_length=18), "max_seq_length=18: expected at most max_position_embeddings=17"),
])
def test_lengths_that_do_not_fit(settings, message):
    info = RecordsInfo(max_seq_length=13, examples={"train": list(TRAIN_EXAMPLES)})
    with pytest.raises(UsageError, match=message):
        check_records(info, run_config(**settings), model_config(), TextConfig(), "records")
