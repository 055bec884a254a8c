"""Serialised examples -> padded batches, with checks for values that the model cannot take.

TensorFlow does not always refuse an id beyond the vocabulary: a GPU or TPU reads zeros for it.

Shapes: B batch, L length, V vocabulary.
"""

from collections.abc import Callable

import tensorflow as tf

from electra_es.data.records import RecordsInfo
from electra_es.model.batches import Inputs

Parser = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Inputs]


def make_parser(info: RecordsInfo, length: int, vocab_size: int = 0) -> Parser:
    """Returns (serialised [B], path of the shard [B], example_index [B]) -> `Inputs` of [B, L].

    Args:
      info: of the records directory; says which layout it has.
      length: L.
      vocab_size: V; 0: the size that the records state; where they state none, any id is allowed.

    The function, part of a tf.data pipeline, raises InvalidArgumentError for an id that is negative
    or not below V, for an example that is longer than `info` says, and for a mask or segment that
    is neither 0 nor 1. The message ends with a sentence in brackets; the sentence begins with the path.
    """
    limit = vocab_size or info.vocab_size or tf.int32.max
    return (_google_parser if info.kind == "google" else _own_parser)(info, length, limit)


def _own_parser(info: RecordsInfo, length: int, limit: int) -> Parser:
    features = {
        "input_ids": tf.io.RaggedFeature(tf.int64),
        "second_segment_start": tf.io.FixedLenFeature([], tf.int64),
    }

    @tf.autograph.experimental.do_not_convert
    def parse(records: tf.Tensor, paths: tf.Tensor, index: tf.Tensor) -> Inputs:
        parsed = tf.io.parse_example(records, features)
        ids, lengths = parsed["input_ids"], parsed["input_ids"].row_lengths()
        checks = [
            _check_ids(ids.flat_values, tf.gather(paths, ids.value_rowids()), limit),
            require(lengths <= info.max_seq_length, paths, lengths,
                    " tokens in an example", f"at most {info.max_seq_length}, as info.json says"),
        ]
        with tf.control_dependencies(checks):
            padded = tf.cast(ids.to_tensor(shape=[None, length]), tf.int32)
        mask = tf.sequence_mask(lengths, length, tf.int32)
        place = tf.range(length, dtype=tf.int64)[tf.newaxis, :]
        second = tf.cast(place >= parsed["second_segment_start"][:, tf.newaxis], tf.int32)
        return Inputs(padded, mask, second * mask, index)

    return parse


def _google_parser(info: RecordsInfo, length: int, limit: int) -> Parser:
    built = info.max_seq_length
    fixed = tf.io.FixedLenFeature([built], tf.int64)
    features = {"input_ids": fixed, "input_mask": fixed, "segment_ids": fixed}

    @tf.autograph.experimental.do_not_convert
    def parse(records: tf.Tensor, paths: tf.Tensor, index: tf.Tensor) -> Inputs:
        parsed = tf.io.parse_example(records, features)
        each = tf.repeat(paths, built)
        flat = {name: tf.reshape(values, [-1]) for name, values in parsed.items()}
        checks = [_check_ids(flat["input_ids"], each, limit)]
        checks += [require((flat[name] == 0) | (flat[name] == 1), each, flat[name], f" in {name}",
                           "0 or 1") for name in ("input_mask", "segment_ids")]
        with tf.control_dependencies(checks):
            ids, mask, segments = (
                tf.pad(tf.cast(parsed[name], tf.int32), [[0, 0], [0, length - built]])
                for name in features)
        return Inputs(ids, mask, segments, index)

    return parse


def _check_ids(ids: tf.Tensor, paths: tf.Tensor, limit: int) -> tf.Operation:
    return require((ids >= 0) & (ids < limit), paths, ids, " as a token id",
                   f"0 or more and below V={limit}, the size of the vocabulary")


def require(holds: tf.Tensor, paths: tf.Tensor, values: tf.Tensor, what: str,
            expected: str | tf.Tensor) -> tf.Operation:
    """Fails, in a pipeline, with "PATH: VALUE WHAT: expected EXPECTED" for the first entry of bool
    `holds` [n] that is false; `paths` and `values` have the same shape."""
    wrong = tf.where(~holds)[:, 0]

    def sentence() -> tf.Tensor:
        first = wrong[0]
        return tf.strings.join([paths[first], ": ", tf.strings.as_string(values[first]),
                                what, ": expected ", expected])

    text = tf.cond(tf.size(wrong) > 0, sentence, lambda: tf.constant(""))
    return tf.debugging.Assert(tf.equal(tf.size(wrong), 0), [text])
