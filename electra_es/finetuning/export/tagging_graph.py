"""Tagging in a graph, with the windows of `alignment.py`.

Shapes: B sentences, W words of the longest one, C labels, M windows of all sentences.
"""

from typing import NamedTuple

import tensorflow as tf
import tensorflow_text as tf_text

from electra_es.finetuning.alignment import OVERLAP
from electra_es.finetuning.export.graph import TaskModel, Tensors, joined, strings
from electra_es.finetuning.saved import Finetuned

# A word of a text: letters and digits, with single marks inside ("EE.UU", "7:45", "3,5"); or three
# points; or one character of another kind.
_WORD = r"[\p{L}\p{M}\p{N}]+([.,:'’/\-][\p{L}\p{M}\p{N}]+)*|\.\.\.|[^\s]"


class Windows(NamedTuple):
    """Windows of sentences; int64 [M] each, words counted within their sentence."""

    sentence: tf.Tensor
    first: tf.Tensor
    end: tf.Tensor
    own_first: tf.Tensor
    own_end: tf.Tensor


class TaggingModel(TaskModel):
    """A tagger: `tag_words` takes words, `tag` takes text."""

    def __init__(self, finetuned: Finetuned):
        super().__init__(finetuned)
        self.functions["tag_words"] = tf.function(self.tag_words, input_signature=[strings("words", 2)])
        self.functions["tag"] = tf.function(self.tag, input_signature=[strings("texts")])

    def tag_words(self, words: tf.Tensor) -> Tensors:
        """Labels of words. A word without pieces is read as [UNK]; a sentence of any length is read
        in windows that overlap.

        Args:
          words: string [B, W], filled up with "" at the end.

        Returns:
          `labels` string [B, W], filled up with ""; `label_ids` int32 [B, W], filled up with -1;
          `logits` and `probabilities` float32 [B, W, C].
        """
        width = tf.shape(words)[1]
        places = tf.where(words != "", tf.range(1, width + 1), 0)
        sizes = tf.reduce_max(tf.concat([places, tf.zeros_like(words[:, :1], tf.int32)], 1), axis=1)
        return self._label(tf.RaggedTensor.from_tensor(words, tf.cast(sizes, tf.int64)), width)

    def tag(self, texts: tf.Tensor) -> Tensors:
        """Words of texts and their labels.

        Args:
          texts: string [B].

        Returns:
          as `tag_words`, and `words` string [B, W], filled up with ""; `offsets` int64 [B, W, 2]:
          bytes of the text that a word covers, end exclusive.
        """
        words, starts, ends = tf_text.regex_split_with_offsets(texts, rf"{_WORD}|\s+", r"[^\s]+")
        offsets = tf.stack([starts.to_tensor(), ends.to_tensor()], axis=-1)
        found = self._label(words, tf.shape(offsets)[1])
        return {**found, "words": words.to_tensor(""), "offsets": offsets}

    def _label(self, words: tf.RaggedTensor, width: tf.Tensor) -> Tensors:
        budget = self.max_length - 2
        pieces = self.pieces(words.values)[:, :budget]
        windows = cut(words.with_values(pieces.row_lengths()), budget)
        # Words are numbered over all sentences from here on.
        before = tf.gather(words.row_starts(), windows.sentence)
        splits = pieces.row_splits
        starts = tf.gather(splits, before + windows.first)
        inner = tf.gather(pieces.values, tf.ragged.range(starts, tf.gather(splits, before + windows.end)))
        rows, _ = joined([self.tokenizer.cls_id, inner, self.tokenizer.sep_id])
        # Own words of all windows, in order, are all words.
        own = tf.ragged.range(before + windows.own_first, before + windows.own_end)
        window = own.value_rowids()
        places = tf.gather(splits, own.values) - tf.gather(starts, window) + 1
        logits = tf.gather_nd(self.run_rows(rows)["logits"], tf.stack([window, places], axis=1))

        def filled(values: tf.Tensor, filler: object) -> tf.Tensor:
            dense = words.with_values(values).to_tensor(filler)
            rest = [[0, 0]] * (len(values.shape) - 1)
            return tf.pad(dense, [[0, 0], [0, width - tf.shape(dense)[1]], *rest],
                          constant_values=filler)

        fillers = {"labels": "", "label_ids": -1}
        return {name: filled(values, fillers.get(name, 0.0))
                for name, values in self.named(logits).items()}


def cut(lengths: tf.RaggedTensor, budget: int) -> Windows:
    """`alignment.word_windows` for sentences at once.

    Args:
      lengths: int64 [B, W], pieces of each word, each from 1 to `budget`.
      budget: most pieces of a window.
    """
    counts = lengths.row_lengths()
    # [B, W + 1] pieces before each word; constant beyond the sentence's end.
    before = tf.pad(tf.cumsum(lengths.to_tensor(), axis=1), [[0, 0], [1, 0]])
    last = tf.cast(tf.shape(before)[1], tf.int64) - 1

    def at(places: tf.Tensor) -> tf.Tensor:
        return tf.gather(before, tf.minimum(places, last), batch_dims=1)

    def window(first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The end of each sentence's window, and the first word of the next one."""
        fits = _search(before, at(first) + budget, "right") - 1
        end = tf.minimum(fits, counts)
        # As much of this window as the overlap allows, so that a word beyond it fits too.
        least = tf.maximum(at(end) - budget // OVERLAP, at(end + 1) - budget)
        following = tf.maximum(first, _search(before, least, "left"))
        return end, tf.where(end == counts, counts, following)

    def step(i: tf.Tensor, first: tf.Tensor, firsts: tf.TensorArray, ends: tf.TensorArray) -> tuple:
        end, following = window(first)
        return i + 1, following, firsts.write(i, first), ends.write(i, end)

    arrays = [tf.TensorArray(tf.int64, 0, dynamic_size=True, element_shape=[None]) for _ in range(2)]
    _, _, firsts, ends = tf.while_loop(
        lambda i, first, *_: (i == 0) | tf.reduce_any(first < counts), step,
        (0, tf.zeros_like(counts), *arrays))
    first, end = tf.transpose(firsts.stack()), tf.transpose(ends.stack())  # [B, windows]
    following = tf.concat([first[:, 1:], counts[:, tf.newaxis]], axis=1)
    # A word belongs to the next window from where that has seen as much as this one has yet to see.
    middles = before[:, :-1] + before[:, 1:]
    ranks = tf.gather(before, following, batch_dims=1) + tf.gather(before, end, batch_dims=1)
    own_end = tf.clip_by_value(tf.searchsorted(middles, ranks, out_type=tf.int64), following, end)
    own_first = tf.pad(own_end[:, :-1], [[0, 0], [1, 0]])
    sentence = tf.broadcast_to(tf.range(tf.size(counts, tf.int64))[:, tf.newaxis], tf.shape(first))
    return Windows(*(tf.boolean_mask(part, own_end > own_first)
                     for part in (sentence, first, end, own_first, own_end)))


def _search(rows: tf.Tensor, values: tf.Tensor, side: str) -> tf.Tensor:
    """Where in each of the sorted rows [B, n] a value would stand: int64 [B]."""
    return tf.searchsorted(rows, values[:, tf.newaxis], side=side, out_type=tf.int64)[:, 0]
