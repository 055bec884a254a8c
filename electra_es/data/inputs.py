"""Records -> batches, with the position in the data as a plain number.

An epoch is all N examples of the training split, each once: the shards in an order derived from
(seed, epoch), the examples of each in a permutation derived from (seed, epoch, shard). It is cut into
S streams of equal length, give or take one example. Example i of the run is number j = i mod N of epoch
i // N, which is number j // S of stream j mod S. So after k epochs each example has been seen k times,
whatever the sizes of the shards; the position in the data is one number; resuming reads only one shard
per stream.

Lane l of S holds the examples i with i mod S = l: those of one stream in each epoch. Hosts share the
lanes, so the examples of a step do not depend on how many hosts there are.

Shapes: B batch, L length.
"""

import math

import numpy as np
import tensorflow as tf

from electra_es.config import ModelConfig, PretrainingConfig, TextConfig
from electra_es.data.parsing import make_parser, require
from electra_es.data.records import RecordsInfo, check_vocabulary
from electra_es.data.shards import Shards, usable_shards
from electra_es.errors import UsageError, warn
from electra_es.model.batches import Inputs
from electra_es.model.randomness import derive_key, fold_in, stateless_seed


def check_records(info: RecordsInfo, config: PretrainingConfig, model_config: ModelConfig,
                  text: TextConfig, data_dir: str, split: str = "train") -> None:
    """Raises UsageError where the records do not fit the run, where its lengths do not fit each other,
    or where `split` has no example."""
    check_vocabulary(info, data_dir, text, "the run")
    if info.max_seq_length > config.max_seq_length:
        raise UsageError(
            f"max_seq_length={config.max_seq_length}: {data_dir} has examples of up to "
            f"{info.max_seq_length} tokens: expected at least that, or records built shorter")
    if info.max_seq_length < config.max_seq_length:
        padding = 1 - info.max_seq_length / config.max_seq_length
        warn(f"max_seq_length={config.max_seq_length}: {data_dir} has examples of up to "
             f"{info.max_seq_length} tokens, so {padding:.0%} or more of every batch is padding: "
             "expected records of the same length")
    if config.max_seq_length > model_config.max_position_embeddings:
        raise UsageError(
            f"max_seq_length={config.max_seq_length}: expected at most "
            f"max_position_embeddings={model_config.max_position_embeddings}")
    if not info.num_examples(split):
        raise UsageError(f"{data_dir}: no {'training' if split == 'train' else split} examples: "
                         "expected at least one")


def num_streams(config: PretrainingConfig, num_shards: int, num_hosts: int) -> int:
    """S: the largest divisor of `data_streams` and of the batch that the shards suffice for.

    Raises:
      UsageError: the hosts cannot share that number of streams evenly.
    """
    divisor = math.gcd(config.data_streams, config.train_batch_size)
    streams = max(s for s in range(1, divisor + 1) if divisor % s == 0 and s <= num_shards)
    if streams % num_hosts:
        raise UsageError(
            f"data_streams={config.data_streams}: {streams} streams (from {num_shards} shards and "
            f"train_batch_size={config.train_batch_size}) cannot be shared by {num_hosts} hosts: "
            "expected a multiple of the number of hosts")
    return streams


def training_dataset(
    shards: Shards, info: RecordsInfo, config: PretrainingConfig, *,
    first_example: int, batch_size: int, host: int = 0, num_hosts: int = 1, vocab_size: int = 0,
) -> tf.data.Dataset:
    """The endless training batches of one host, from example number `first_example` on.

    Args:
      shards: `usable_shards`.
      info: of the records directory.
      config: seed, length and streams.
      first_example: a multiple of train_batch_size.
      batch_size: rows per batch (those of one replica).
      host, num_hosts: which of the lanes to read.
      vocab_size: V; 0: the size that the records state.

    Returns:
      a dataset of `Inputs` of [batch_size, L]; for errors see `shards.bad_shard_named`.
    """
    streams = num_streams(config, len(shards), num_hosts)
    paths = tf.constant([path for path, _ in shards])
    counts = tf.constant([count for _, count in shards], tf.int64)
    total = sum(count for _, count in shards)
    key = derive_key(config.seed, "data order")

    def stream_range(stream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """First place and end of a stream in the order of an epoch."""
        def first(stream: tf.Tensor) -> tf.Tensor:
            return stream * (total // streams) + tf.minimum(stream, total % streams)

        return first(stream), first(stream + 1)

    # Nothing here needs AutoGraph, and its analysis would take seconds.
    @tf.autograph.experimental.do_not_convert
    def lane_examples(lane: tf.Tensor) -> tf.data.Dataset:
        first_index = first_example + lane
        first_epoch = first_index // total

        def epoch_shards(epoch: tf.Tensor) -> tf.data.Dataset:
            begin, end = stream_range((lane - epoch * total) % streams)
            done = tf.where(epoch == first_epoch, first_index % total // streams, 0)
            order = _shuffled(len(shards), stateless_seed(key, epoch))
            sizes = tf.gather(counts, order)
            starts = tf.cumsum(sizes, exclusive=True)
            # The part of each shard that lies between begin and end.
            firsts = tf.clip_by_value(begin + done - starts, 0, sizes)
            ends = tf.clip_by_value(end - starts, 0, sizes)
            epochs = tf.fill(tf.shape(order), epoch)
            return tf.data.Dataset.from_tensor_slices((order, firsts, ends, epochs))

        def shuffled_records(shard: tf.Tensor, first: tf.Tensor, end: tf.Tensor, epoch: tf.Tensor
                             ) -> tuple[tf.Tensor, tf.Tensor]:
            records = _shard_records(paths[shard], counts[shard])
            order = _shuffled(counts[shard], stateless_seed(
                fold_in(key, epoch), tf.cast(shard, tf.int64) + 1))[first:end]
            return tf.gather(records, order), tf.fill(tf.shape(order), paths[shard])

        examples = tf.data.Dataset.counter(first_epoch, dtype=tf.int64).flat_map(epoch_shards)
        # Shards of which the lane reads nothing are not opened.
        examples = examples.filter(lambda shard, first, end, epoch: first < end)
        examples = examples.map(shuffled_records).prefetch(1).unbatch()
        return examples.enumerate().map(
            lambda i, example: (*example, first_index + i * streams))

    dataset = tf.data.Dataset.range(host, streams, num_hosts).interleave(
        lane_examples, cycle_length=streams // num_hosts, block_length=1)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    parse = make_parser(info, config.max_seq_length, vocab_size)
    return dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(
        tf.data.AUTOTUNE)


def validation_dataset(
    data_dir: str, info: RecordsInfo, config: PretrainingConfig, *,
    batch_size: int, global_batch_size: int, host: int = 0, num_hosts: int = 1, vocab_size: int = 0,
) -> tf.data.Dataset:
    """The validation examples of one host, once and in order.

    Empty rows (no token, so no weight in any metric) fill up the last global batch.
    """
    total = info.num_examples("validation")
    total = min(total, config.eval_examples or total)
    shards = usable_shards(data_dir, info, skip_corrupt=False, split="validation")

    @tf.autograph.experimental.do_not_convert
    def examples(path: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(
            (_shard_records(path, count), tf.fill([count], path)))

    dataset = tf.data.Dataset.from_tensor_slices(
        ([path for path, _ in shards], np.array([count for _, count in shards], np.int64)))
    dataset = dataset.flat_map(examples).take(total).enumerate().map(
        lambda i, example: (*example, i))
    parse = make_parser(info, config.max_seq_length, vocab_size)
    dataset = dataset.batch(1).map(parse, num_parallel_calls=tf.data.AUTOTUNE).unbatch()
    missing = -total % global_batch_size
    empty = tf.zeros([missing, config.max_seq_length], tf.int32)
    dataset = dataset.concatenate(tf.data.Dataset.from_tensor_slices(
        Inputs(empty, empty, empty, tf.zeros([missing], tf.int64))))
    return dataset.shard(num_hosts, host).batch(batch_size, drop_remainder=True).prefetch(
        tf.data.AUTOTUNE)


def _shard_records(path: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """string [count]: the records of a whole shard."""
    records = tf.data.TFRecordDataset(path).batch(count).get_single_element()
    found = tf.size(records, out_type=tf.int64)
    check = require((found == count)[tf.newaxis], path[tf.newaxis], found[tf.newaxis], " examples",
                    tf.strings.as_string(count))
    with tf.control_dependencies([check]):
        return tf.identity(records)


def _shuffled(n: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return tf.random.experimental.stateless_shuffle(tf.range(tf.cast(n, tf.int32)), seed)


def synthetic_batch(batch_size: int, length: int, vocab_size: int) -> Inputs:
    """A full batch of arbitrary ids without [CLS] or [SEP]: for compiling and timing a step."""
    ids = np.random.default_rng(0).integers(5, vocab_size, (batch_size, length), np.int32)
    return Inputs(tf.constant(ids), tf.ones_like(ids), tf.zeros_like(ids),
                  tf.range(batch_size, dtype=tf.int64))
