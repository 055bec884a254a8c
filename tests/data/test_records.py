"""Format of a records directory: the bytes equal those of TensorFlow's writer; refused directories."""

import dataclasses
import json
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_es.config import TextConfig
from electra_es.data import records, tfrecord
from electra_es.data.records import RecordsInfo
from electra_es.errors import UsageError

INFO = RecordsInfo(
    max_seq_length=13, examples={"train": [2, 1], "validation": [1]},
    text=TextConfig(vocab_size=61, vocab_sha256="ab"), special_ids={"[PAD]": 0, "[CLS]": 2},
    packing="documents", scheme="carry_over", fingerprint="cd")


def tensorflow_example(**features: list[int]) -> bytes:
    example = tf.train.Example()
    for name, values in features.items():
        example.features.feature[name].int64_list.value.extend(values)
    return example.SerializeToString(deterministic=True)


def test_bytes_of_an_example():
    """Features (field 1) of map entries (1): name (1), Feature (2) of int64_list (3), packed (1)."""
    ids = b"\x02\x7f\x80\x01\x80\x80\x01\x03"  # Varints of 2, 127, 128, 16384, 3.
    int64_list = b"\x12\x0c\x1a\x0a\x0a\x08" + ids
    first = b"\x0a\x09input_ids" + int64_list
    second = b"\x0a\x14second_segment_start" + b"\x12\x05\x1a\x03\x0a\x01\x04"
    entries = b"\x0a" + bytes([len(first)]) + first + b"\x0a" + bytes([len(second)]) + second
    assert tfrecord.encode_example(np.array([2, 127, 128, 16_384, 3]), 4) == (
        b"\x0a" + bytes([len(entries)]) + entries)


# As many in each size of varint, and those where the size changes.
IDS = st.one_of(*(st.integers(0, 2**bits - 1) for bits in (7, 14, 21, 28, 31)),
                st.sampled_from([2**bits + d for bits in (7, 14, 21, 28) for d in (-1, 0)]))


@settings(deadline=None)
@given(st.lists(st.tuples(st.lists(IDS, min_size=1, max_size=40), st.integers(0, 40_000)), max_size=5))
def test_many_examples_are_the_bytes_of_protobuf(examples):
    ids = np.array([i for tokens, _ in examples for i in tokens], np.int32)
    ends = np.cumsum([len(tokens) for tokens, _ in examples], dtype=np.int64)
    encoded = tfrecord.encode_examples(ids, ends, [second for _, second in examples])
    assert encoded == [tensorflow_example(input_ids=tokens, second_segment_start=[second])
                       for tokens, second in examples]
    decoded = [tfrecord.decode_example(data) for data in encoded]
    assert [(tokens.tolist(), second) for tokens, second in decoded] == examples


def test_framing_equals_tensorflow_writer(tmp_path):
    data = [b"", b"x" * 3, bytes(range(256)) * 5]
    with tf.io.TFRecordWriter(str(tmp_path / "tf")) as writer:
        for record in data:
            writer.write(record)
    with open(tmp_path / "ours", "wb") as file:
        assert tfrecord.write_records(file, data) == 3
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "tf").read_bytes()
    with open(tmp_path / "ours", "rb") as file:
        assert list(tfrecord.read_records(file, "ours")) == data


@pytest.mark.parametrize("damage, message", [
    (lambda raw: raw[:-1], "cut off: the record at byte 19 needs 5 bytes"),
    (lambda raw: raw[:24], "not a TFRecord at byte 19: cut off or corrupt"),
    (lambda raw: raw[:14] + b"?" + raw[15:], "wrong checksum in the record at byte 0"),
    (lambda raw: struct.pack("<Q", 2**60) + raw[8:], "not a TFRecord at byte 0"),
])
def test_damaged_file_is_named_with_its_byte(tmp_path, damage, message):
    path = tmp_path / "shard"
    path.write_bytes(damage(tfrecord.frame(b"abc") + tfrecord.frame(b"defgh")))
    with open(path, "rb") as file, pytest.raises(UsageError, match=message):
        list(tfrecord.read_records(file, str(path)))


def write_directory(directory, info=INFO):
    for split in info.examples:
        for path, count in zip(records.shard_paths(str(directory), info, split),
                               info.examples[split], strict=True):
            with open(path, "wb") as file:
                tfrecord.write_records(file, [tfrecord.encode_example(np.arange(3), 3)] * count)
    (directory / "info.json").write_text(info.to_json())
    (directory / "COMPLETED").touch()


def test_info_there_and_back_and_names_of_shards(tmp_path):
    write_directory(tmp_path)
    info = records.load_records_info(str(tmp_path))
    assert info == INFO
    assert info.vocab_sha256 == "ab" and info.vocab_size == 61
    assert info.num_examples("train") == 3
    assert sorted(p.name for p in tmp_path.glob("*.tfrecord")) == [
        "train-00000-of-00002.tfrecord", "train-00001-of-00002.tfrecord",
        "validation-00000-of-00001.tfrecord"]


@pytest.mark.parametrize("damage, message", [
    (lambda d: (d / "COMPLETED").unlink(), "no COMPLETED"),
    (lambda d: (d / "train-00001-of-00002.tfrecord").unlink(),
     "1 of 2 shards are missing, the first is train-00001-of-00002.tfrecord"),
    (lambda d: (d / "info.json").write_text("{"), "info.json: expected the description"),
    (lambda d: (d / "info.json").write_text("[]"), "info.json: expected the description"),
    (lambda d: (d / "info.json").write_text(
        json.dumps(dataclasses.asdict(INFO) | {"version": 9})), "version 9"),
    (lambda d: (d / "info.json").unlink(), "info.json: expected the description"),
])
def test_incomplete_directory_is_refused_in_one_line(tmp_path, damage, message):
    write_directory(tmp_path)
    damage(tmp_path)
    with pytest.raises(UsageError, match=message) as error:
        records.load_records_info(str(tmp_path))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_missing_directory(tmp_path):
    with pytest.raises(UsageError, match="nowhere: expected a records directory"):
        records.load_records_info(str(tmp_path / "nowhere"))


def google_shard(path, count, length=13):
    example = tensorflow_example(
        input_ids=[2] + [7] * (length - 2) + [3], input_mask=[1] * length,
        segment_ids=[0] * length)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(count):
            writer.write(example)


def test_google_layout_is_counted(tmp_path):
    for index, count in enumerate((3, 0, 5)):
        google_shard(tmp_path / f"pretrain_data.tfrecord-{index}-of-3", count)
    info = records.load_records_info(str(tmp_path))
    assert (info.kind, info.max_seq_length, info.examples) == ("google", 13, {"train": [3, 0, 5]})
    assert records.shard_paths(str(tmp_path), info, "train")[2].endswith("tfrecord-2-of-3")
    assert records.shard_paths(str(tmp_path), info, "validation") == []


def test_google_layout_with_holes_is_refused(tmp_path):
    google_shard(tmp_path / "pretrain_data.tfrecord-1-of-2", 3)
    with pytest.raises(UsageError, match="1 of 2 shards are missing.*tfrecord-0-of-2"):
        records.load_records_info(str(tmp_path))
    google_shard(tmp_path / "pretrain_data.tfrecord-0-of-2", 3)
    path = tmp_path / "pretrain_data.tfrecord-0-of-2"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UsageError, match="tfrecord-0-of-2: cut off"):
        records.load_records_info(str(tmp_path))
    google_shard(tmp_path / "pretrain_data.tfrecord-0-of-3", 3)
    with pytest.raises(UsageError, match="shards of 2 data sets"):
        records.load_records_info(str(tmp_path))
