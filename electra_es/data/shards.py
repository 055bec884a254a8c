"""Which shards a run reads, and which shard is damaged when reading fails."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator

import tensorflow as tf

from electra_es import files
from electra_es.data.parsing import make_parser
from electra_es.data.records import RecordsInfo, shard_paths
from electra_es.data.tfrecord import read_records
from electra_es.errors import UsageError, reason

Shards = list[tuple[str, int]]  # path, examples

# What tf.data raises for a shard that is cut off, changed or gone.
_INPUT_ERRORS = (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError,
                 tf.errors.OutOfRangeError)
# Only a pipeline's messages have these; the model raises InvalidArgumentError too.
_OF_PIPELINE = re.compile(r"\{\{(function_)?node [^}]*GetNext|Iterator::")
_ASSERTION = re.compile(r"assertion failed: \[(.+)\]")


def usable_shards(data_dir: str, info: RecordsInfo, skip_corrupt: bool, vocab_size: int = 0,
                  split: str = "train") -> Shards:
    """The shards of `split` that are not empty.

    With `skip_corrupt` every shard is read once and checked. So the shards that are left out are
    known and named before the first step, and positions stay exact.
    """
    shards = [(path, count) for path, count in zip(
        shard_paths(data_dir, info, split), info.examples.get(split, []), strict=True) if count]
    if not skip_corrupt:
        return shards
    faults = dict(shard_faults(shards, info, vocab_size))
    is_training = split == "train"
    for fault in faults.values():
        print(f"warning: left out{'' if is_training else ' of evaluations'}: {fault}", flush=True)
    if faults and len(faults) == len(shards):
        raise UsageError(f"{data_dir}: no {'' if is_training else f'{split} '}shard can be read: "
                         "expected at least one")
    return [(path, count) for path, count in shards if path not in faults]


def check_validation(data_dir: str, info: RecordsInfo, skip_corrupt: bool, vocab_size: int
                     ) -> RecordsInfo:
    """Reads every validation shard once, before a run that would evaluate at its end only.

    Returns:
      `info`, where shards that are left out have no example.

    Raises:
      UsageError: a shard is damaged and not to be left out, or all are damaged.
    """
    shards = dict(usable_shards(data_dir, info, skip_corrupt, vocab_size, split="validation"))
    if not skip_corrupt:
        for _, fault in shard_faults(list(shards.items()), info, vocab_size):
            raise UsageError(f"{fault}; --skip_corrupt_shards leaves it out")
        return info
    counts = [shards.get(path, 0) for path in shard_paths(data_dir, info, "validation")]
    return dataclasses.replace(info, examples={**info.examples, "validation": counts})


def shard_faults(shards: Shards, info: RecordsInfo, vocab_size: int = 0
                 ) -> Iterator[tuple[str, str]]:
    """(path, one line on what is wrong with it) for each shard with a fault, in order.

    Every example is read, and parsed as in training.
    """
    parse = make_parser(info, info.max_seq_length, vocab_size)

    @tf.function(autograph=False)
    def count_examples(records: tf.Tensor, path: tf.Tensor) -> tf.Tensor:
        size = tf.size(records)
        inputs = parse(records, tf.fill([size], path), tf.zeros([size], tf.int64))
        return tf.shape(inputs.input_ids)[0]

    for path, count in shards:
        found, fault = 0, ""
        try:
            for records in tf.data.TFRecordDataset(path).batch(256):
                found += int(count_examples(records, path))
        except tf.errors.OpError as error:
            fault = _framing_fault(path) or _assertion(error) or f"{path}: {reason(error)}"
        if not fault and found != count:  # TensorFlow treats half a header as the end of the file
            fault = _framing_fault(path) or f"{path}: {found} examples, expected {count}"
        if fault:
            yield path, fault


def _framing_fault(path: str) -> str:
    """What is wrong with the bytes of a shard. TensorFlow's own message does not name the file."""
    try:
        with files.open_read(path) as file:
            for _ in read_records(file, path):
                pass
    except UsageError as error:
        return str(error)
    except (OSError, tf.errors.OpError) as error:
        return f"{path}: cannot be read ({reason(error)})"
    return ""


def _assertion(error: Exception) -> str:
    """The sentence of a failed assertion of `parsing.require`, which names the shard; else empty."""
    match = _ASSERTION.search(str(error))
    return match[1] if match else ""


@contextlib.contextmanager
def bad_shard_named(shards: Shards, info: RecordsInfo, vocab_size: int = 0, advice: str = ""
                    ) -> Iterator[None]:
    """Turns an error of an input pipeline over `shards` into one that names the shard.

    An assertion names the shard. Otherwise shards are read until a damaged one is found. An error that
    does not come from a pipeline is raised as it is.

    Raises:
      UsageError: a shard is cut off, changed, gone, or holds what the model cannot take.
    """
    try:
        yield
    except _INPUT_ERRORS as error:
        if not _OF_PIPELINE.search(str(error)):
            raise
        fault = _assertion(error) or next((
            fault for _, fault in shard_faults(shards, info, vocab_size)), "")
        if not fault:
            raise
        raise UsageError(fault + advice) from None
