r"""Shows examples of a records directory as the trainer reads them.

    python -m data_prep.inspect_tfrecords --records=records --num=3

For each example: length and padding, the pieces of both segments, and one sample of what the
generator would see. Records of Google's script contain no vocabulary: use --vocab_dir.
"""

import itertools
import os
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from absl import flags

from data_prep.command_line import prepare_tool
from electra_es import files
from electra_es.config import ModelConfig
from electra_es.data import records, tfrecord
from electra_es.data.records import RecordsInfo
from electra_es.errors import UsageError, nearest_hint, run_main
from electra_es.flags import define, parse_flags_only
from electra_es.model.batches import Inputs, VocabularyFacts
from electra_es.model.masking import mask_tokens
from electra_es.model.randomness import derive_key
from electra_es.settings import NAME, PATH, Range
from electra_es.text.tokenizer import Tokenizer, load_tokenizer
from electra_es.text.vocabulary import CONTINUATION_PREFIX, WORD_START


def read_examples(directory: str, info: RecordsInfo, split: str
                  ) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (input_ids int32 [length], second_segment_start) of all shards of a split, in order."""
    for path in records.shard_paths(directory, info, split):
        with files.open_read(path) as file:
            for data in tfrecord.read_records(file, path):
                yield _google_example(data) if info.kind == "google" else (
                    tfrecord.decode_example(data))


def _google_example(data: bytes) -> tuple[np.ndarray, int]:
    feature = tf.train.Example.FromString(data).features.feature
    ids, length, segments = (np.array(feature[name].int64_list.value, np.int32)
                             for name in ("input_ids", "input_mask", "segment_ids"))
    size = int(length.sum())
    return ids[:size], size - int(segments[:size].sum())


def describe(ids: np.ndarray, second_segment_start: int, number: int, max_seq_length: int,
             tokenizer: Tokenizer | None) -> str:
    """Several lines about one example; `number` is its place in the split and the seed of the mask."""
    length, second = len(ids), len(ids) - second_segment_start
    lines = [f"example {number}: {length} of {max_seq_length} tokens "
             f"({1 - length / max_seq_length:.1%} padding), segments of {second_segment_start} "
             f"and {second} tokens"]
    if tokenizer is None:
        return "\n".join([*lines, "  ids: " + " ".join(map(str, ids))])
    masked, originals = _sample_masking(ids, second_segment_start, number, max_seq_length, tokenizer)
    lines += [f"  first:  {_as_text(ids[:second_segment_start], tokenizer)}"]
    if second:
        lines += [f"  second: {_as_text(ids[second_segment_start:], tokenizer)}"]
    lines += [f"  masked: {_as_text(masked, tokenizer)}",
              "  hidden: " + ", ".join(tokenizer.vocab[i] for i in originals)]
    return "\n".join(lines)


def _sample_masking(ids: np.ndarray, second_segment_start: int, number: int, max_seq_length: int,
                    tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """The trainer's own masking of one example: (masked ids [length], original ids of selected)."""
    places = np.arange(max_seq_length)
    inputs = Inputs(
        tf.constant(np.pad(ids, (0, max_seq_length - len(ids)))[np.newaxis], tf.int32),
        tf.constant((places < len(ids))[np.newaxis], tf.int32),
        tf.constant(((places >= second_segment_start) & (places < len(ids)))[np.newaxis], tf.int32),
        tf.constant([number], tf.int64))
    facts = VocabularyFacts(len(tokenizer.vocab), tokenizer.pad_id, tokenizer.cls_id,
                            tokenizer.sep_id, tokenizer.mask_id, tokenizer.word_starts)
    result = mask_tokens(inputs, ModelConfig(), facts, derive_key(0, "inspect"))
    used = result.weights.numpy()[0] > 0
    return result.input_ids.numpy()[0, :len(ids)], result.original_ids.numpy()[0][used]


def _as_text(ids: np.ndarray, tokenizer: Tokenizer) -> str:
    pieces = " ".join(tokenizer.vocab[i] for i in ids)
    if tokenizer.config.tokenizer == "sentencepiece":
        return pieces.replace(" ", "").replace(WORD_START, " ").strip()
    return pieces.replace(" " + CONTINUATION_PREFIX, "")


def main() -> None:
    define("records", str, None, "Records directory.", PATH)
    define("num", int, 3, "How many examples.",
           Range(low=0, high=1_000_000, why="nobody reads more of them"))
    define("split", str, "train", "train or validation.", NAME)
    define("vocab_dir", str, None, "Vocabulary of records that do not have their own.", PATH)
    prepare_tool()
    parse_flags_only()
    values = flags.FLAGS
    if not values.records:
        raise UsageError("expected --records, a records directory")
    info = records.load_records_info(values.records)
    if values.split not in info.examples:
        raise UsageError(f"split={values.split}: expected one of {', '.join(info.examples)}"
                         f"{nearest_hint(values.split, info.examples)}")
    directory = values.vocab_dir or (values.records if info.kind == "electra_es" else None)
    tokenizer = load_tokenizer(directory) if directory else None
    if tokenizer:
        records.check_vocabulary(info, values.records, tokenizer.config, f"--vocab_dir={directory}")
    for split, counts in info.examples.items():
        print(f"{split}: {sum(counts)} examples in {len(counts)} shards")
    examples = read_examples(os.fspath(values.records), info, values.split)
    for number, (ids, second) in enumerate(itertools.islice(examples, values.num)):
        print(describe(ids, second, number, info.max_seq_length, tokenizer))


if __name__ == "__main__":
    run_main(main)
