"""Words and texts to pieces: tagging, classification and regression.

A word's label stands at its first piece. A sentence that does not fit is cut into windows that
overlap; each word is trained and scored in one of them only, the one with most context around it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from electra_es.finetuning.examples import TaggingExample, TextExample
from electra_es.finetuning.features import NONE, Features
from electra_es.text.tokenizer import Tokenizer

# Share of a window that the next one repeats.
OVERLAP = 4
_WORDS_A_CALL = 50_000
_TEXTS_A_CALL = 2_000


def tagging_features(tokenizer: Tokenizer, examples: Sequence[TaggingExample],
                     label_ids: Mapping[str, int], max_length: int) -> list[Features]:
    """Features of sentences, one or more each, in order.

    A word that the normalisation leaves empty (a zero-width space, say) is [UNK]. Of a word with
    more pieces than a window holds, the first pieces are read.

    Args:
      tokenizer: of the model.
      examples: sentences; every label is a key of `label_ids`.
      max_length: L.
    """
    pieces = _pieces_of_words(tokenizer, examples)
    features = []
    for number, example in enumerate(examples):
        words = [pieces[word][:max_length - 2] for word in example.words]
        labels = np.array([label_ids[label] for label in example.labels], np.int32)
        for first, end, own_first, own_end in word_windows([len(w) for w in words], max_length - 2):
            ids, label_row, word_row = [tokenizer.cls_id], [NONE], [NONE]
            for i in range(first, end):
                rest = [NONE] * (len(words[i]) - 1)
                own = own_first <= i < own_end
                ids += words[i].tolist()
                label_row += [int(labels[i]) if own else NONE, *rest]
                word_row += [i if own else NONE, *rest]
            ids, label_row, word_row = [*ids, tokenizer.sep_id], [*label_row, NONE], [*word_row, NONE]
            features.append(Features(
                np.array(ids, np.int32), np.zeros(len(ids), np.int32), number,
                np.array(label_row, np.int32), words=np.array(word_row, np.int32)))
    return features


def word_windows(lengths: Sequence[int], budget: int) -> list[tuple[int, int, int, int]]:
    """Cuts a sentence into windows of whole words.

    Args:
      lengths: pieces of each word, each from 1 to `budget`.
      budget: most pieces of a window.

    Returns:
      (first word, end, first own word, end) of each window; the own words of all windows are the
      sentence, each word once.
    """
    ends = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    windows: list[tuple[int, int]] = []
    first = 0
    while not windows or windows[-1][1] < len(lengths):
        end = first
        while end < len(lengths) and ends[end + 1] - ends[first] <= budget:
            end += 1
        windows.append((first, end))
        if end < len(lengths):
            # As much of this window as the overlap allows, so that a word beyond it fits too.
            while ends[end] - ends[first] > budget // OVERLAP or ends[end + 1] - ends[first] > budget:
                first += 1
    found, own = [], 0
    for i, (first, end) in enumerate(windows):
        own_end = end
        if i + 1 < len(windows):
            # Where the next window has seen as much as this one has yet to see.
            start = windows[i + 1][0]
            own_end = next((w for w in range(start, end)
                            if ends[w] - ends[start] >= ends[end] - ends[w + 1]), end)
        own_end = max(own, own_end)
        if own_end > own:
            found.append((first, end, own, own_end))
        own = own_end
    return found


def collect_words(examples: Sequence[TaggingExample], features: Sequence[Features],
                  values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Puts predictions at pieces together to predictions for words.

    Args:
      examples: sentences.
      features: those of `tagging_features`, in any order.
      values: [n or more, ...] for each feature: classes, logits or probabilities at its pieces.

    Returns:
      [number of words, ...] for each example.

    Raises:
      ValueError: a word without a prediction, or with two.
    """
    counts = [np.zeros(len(example.words), np.int32) for example in examples]
    collected: list[np.ndarray | None] = [None] * len(examples)
    for feature, value in zip(features, values, strict=True):
        assert feature.words is not None
        places = np.flatnonzero(feature.words != NONE)
        words = feature.words[places]
        target = collected[feature.example]
        if target is None:
            target = np.zeros((len(examples[feature.example].words), *value.shape[1:]), value.dtype)
            collected[feature.example] = target
        target[words] = value[places]
        counts[feature.example][words] += 1
    for number, count in enumerate(counts):
        if not np.all(count == 1):
            raise ValueError(f"example {number}: word {int(np.argmax(count != 1))} has "
                             f"{int(count[np.argmax(count != 1)])} predictions: expected one")
    return [value for value in collected if value is not None]


def text_features(tokenizer: Tokenizer, examples: Sequence[TextExample],
                  label_ids: Mapping[str, int] | None, max_length: int) -> list[Features]:
    """`[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`, one feature an example, in order.

    Where a pair is too long, the longer text loses its end, piece by piece. A text of which the
    normalisation leaves nothing is [UNK].

    Args:
      tokenizer: of the model.
      examples: all with one text, or all with two.
      label_ids: of the classes; None: labels are scores (regression).
      max_length: L.
    """
    features = []
    for start in range(0, len(examples), _TEXTS_A_CALL):
        some = examples[start:start + _TEXTS_A_CALL]
        encoded = iter(tokenizer.encode_batch([text for e in some for text in e.texts]))
        for number, example in enumerate(some, start):
            texts = [_or_unknown(tokenizer, next(encoded)) for _ in example.texts]
            sizes = truncated([len(text) for text in texts], max_length - 1 - len(texts))
            ids, segments = [np.array([tokenizer.cls_id])], [np.zeros(1)]
            for segment, (text, size) in enumerate(zip(texts, sizes, strict=True)):
                ids += [text[:size], np.array([tokenizer.sep_id])]
                segments.append(np.full(size + 1, segment))
            features.append(Features(
                np.concatenate(ids).astype(np.int32), np.concatenate(segments).astype(np.int32),
                number, np.array(example.label, np.float32) if label_ids is None
                else np.array(label_ids[str(example.label)], np.int32)))
    return features


def truncated(lengths: Sequence[int], budget: int) -> list[int]:
    """Shortens the longest (of two equal ones the last) until the sum is at most `budget`."""
    sizes = list(lengths)
    while sum(sizes) > budget:
        longest = max(range(len(sizes)), key=lambda i: (sizes[i], i))
        sizes[longest] -= 1
    return sizes


def _pieces_of_words(tokenizer: Tokenizer, examples: Sequence[TaggingExample]
                     ) -> dict[str, np.ndarray]:
    words = list(dict.fromkeys(word for example in examples for word in example.words))
    pieces: dict[str, np.ndarray] = {}
    for start in range(0, len(words), _WORDS_A_CALL):
        some = words[start:start + _WORDS_A_CALL]
        pieces |= {word: _or_unknown(tokenizer, ids)
                   for word, ids in zip(some, tokenizer.encode_batch(some), strict=True)}
    return pieces


def _or_unknown(tokenizer: Tokenizer, ids: np.ndarray) -> np.ndarray:
    return ids if len(ids) else np.array([tokenizer.unk_id], np.int32)
