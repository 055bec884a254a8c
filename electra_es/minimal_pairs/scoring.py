"""How discriminator, generator and word counts judge minimal pairs.

The discriminator reads both sentences. A word is as probable as it is that none of its pieces was
replaced: log of the product of 1 - p over the pieces. For words of one piece this is the order of the
logits. A sum of logits would prefer long words, because logits of normal pieces are far below 0; a mean
would hide one strange piece among normal ones.

The generator sees the word behind masks and uncovers it from left to right: the log probability of each
piece, with the earlier pieces shown and the later ones masked, summed. This is the probability of the
word; with all pieces masked at once they would be guessed as if they had nothing to do with each other.
A two-tower generator, which knows no masks, reads the whole sentence instead.

Counting takes the sum of the logarithms of the pieces' shares of the records.

Shapes: B rows, L tokens, V vocabulary.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from electra_es.minimal_pairs.pairs import Pair, span_of_word
from electra_es.minimal_pairs.results import ExamResult, Preference, collect, summarise
from electra_es.model.masking import gather_positions
from electra_es.model.parts import joined_parts
from electra_es.model.pretrainer import ElectraPretrainer
from electra_es.text.tokenizer import Tokenizer

BATCH_SIZE = 64
_LENGTH_STEP = 8  # lengths of batches are multiples of it: each length is compiled once


class Encoded(NamedTuple):
    """A sentence as ids, [CLS] and [SEP] included, and where the word that differs stands."""

    ids: np.ndarray  # int32 [n]
    places: np.ndarray  # int64, empty if the word was cut off

    @property
    def pieces(self) -> np.ndarray:
        return self.ids[self.places]


Padding = Callable[[Sequence[np.ndarray]], Iterator["Rows"]]
Tell = Callable[[str], None]
Judge = Callable[[Tell], list["Preference"]]
Both = Sequence[tuple[Encoded, Encoded]]  # of each pair the right sentence and the wrong one


class Rows(NamedTuple):
    """A batch of one length. Its last rows repeat one, so that all batches of a length have one shape."""

    numbers: np.ndarray  # int64 [B], which rows these are
    used: int  # number of the rows that are not repetitions
    ids: np.ndarray  # int32 [B, L]
    mask: np.ndarray  # int32 [B, L]


def make_exam(model: ElectraPretrainer, tokenizer: Tokenizer, pairs: Sequence[Pair], *, max_length: int,
              id_counts: np.ndarray | None = None, has_generator: bool = True,
              strategy: tf.distribute.Strategy | None = None) -> Callable[..., ExamResult]:
    """Returns `examine(tell=…)`, which examines the model with its current weights.

    It draws nothing random and changes nothing in the model. Its first call compiles the towers.
    `tell` is called before each batch, with a line of how far the exam is; it may end it by an exception.

    Args:
      model: parts that it does not have take no part.
      tokenizer: of the model.
      pairs: see `load_pairs`.
      max_length: longer sentences are cut to this number of tokens; a word that is cut off counts half.
      id_counts: int64 [V], how often each id occurs in the records; None: counting takes no part.
      has_generator: False if the model's generator has not been trained.
      strategy: of the model's variables.
    """
    strategy = strategy or tf.distribute.get_strategy()
    both = list(zip(*(encode(sentences, pairs, tokenizer, max_length) for sentences in (
        [pair.right for pair in pairs], [pair.wrong for pair in pairs])), strict=True))
    pad = functools.partial(batches, pad_id=tokenizer.pad_id, max_length=max_length)
    frequency = None if id_counts is None else judge_by_counts(both, id_counts)
    discriminator = None if model.discriminator_head is None else _discriminator(
        model, strategy, both, pad)
    generator = None if model.mlm_head is None or not has_generator else _generator(
        model, strategy, both, pad, tokenizer.mask_id)

    def examine(tell: Tell = lambda line: None) -> ExamResult:
        return summarise(collect(
            pairs, discriminator=discriminator and discriminator(tell),
            generator=generator and generator(tell), frequency=frequency))

    return examine


def encode(sentences: Sequence[str], pairs: Sequence[Pair], tokenizer: Tokenizer, max_length: int
           ) -> list[Encoded]:
    """One sentence of each pair as ids; see `Encoded`."""
    texts = tf.constant(sentences)
    normalized = tokenizer.normalize(texts).numpy()
    ids, starts, ends = (part.to_list() for part in tokenizer.tokenize_with_offsets(texts))
    encoded = []
    for i, pair in enumerate(pairs):
        text = normalized[i].decode("utf-8")
        first, last = (len(text[:end].encode()) for end in span_of_word(text, pair.place))
        places = np.array([1 + number for number, (start, end) in enumerate(zip(
            starts[i], ends[i], strict=True)) if start < last and end > first], np.int64)
        row = [tokenizer.cls_id, *ids[i][:max_length - 2], tokenizer.sep_id]
        is_whole = places.size and places[-1] < len(row) - 1
        encoded.append(Encoded(np.array(row, np.int32), places if is_whole else places[:0]))
    return encoded


def judge_by_counts(both: Both, id_counts: np.ndarray) -> list[Preference]:
    """The floor: the rarer word is taken for the wrong one. One is added to each count, so that the
    logarithm of an id that never occurs exists."""
    logs = np.log((id_counts + 1.0) / (id_counts + 1.0).sum())
    return _preferences(both, np.array([logs[encoded.pieces].sum() for pair in both for encoded in pair]))


def original_log_probability(logits: np.ndarray | Sequence[float]) -> float:
    """log of the product of 1 - p over the pieces of a word, in float64: it is not rounded to 0."""
    return -float(np.logaddexp(0.0, np.asarray(logits, np.float64)).sum())


def _discriminator(model: ElectraPretrainer, strategy: tf.distribute.Strategy, both: Both,
                   pad: Padding) -> Judge:
    def forward(ids: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        return model.discriminator_logits(ids, mask, tf.zeros_like(ids))

    compiled = _compiled(forward, strategy)
    sentences = [encoded for pair in both for encoded in pair]
    rows = list(pad([encoded.ids for encoded in sentences]))

    def judge(tell: Tell) -> list[Preference]:
        scores = np.zeros(len(sentences))
        for done, batch in enumerate(rows):
            tell(f"exam of the discriminator: {done} of {len(rows)} batches")
            logits = compiled(batch.ids, batch.mask)
            for number, row in zip(batch.numbers[:batch.used], logits, strict=False):
                scores[number] = original_log_probability(row[sentences[number].places])
        return _preferences(both, scores)

    return judge


def _generator(model: ElectraPretrainer, strategy: tf.distribute.Strategy, both: Both,
               pad: Padding, mask_id: int) -> Judge:
    def forward(ids: tf.Tensor, mask: tf.Tensor, place: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        assert model.mlm_head is not None
        sequence = model.generator_sequence(ids, mask, tf.zeros_like(ids))
        logits = model.mlm_head(gather_positions(sequence, place[:, tf.newaxis]),
                                model.generator_embeddings.word_table)
        return tf.gather(tf.nn.log_softmax(logits[:, 0]), target, batch_dims=1)

    compiled = _compiled(forward, strategy)
    hidden = None if model.config.generator_kind == "two_tower" else mask_id
    questions = [question for i, encoded in enumerate(encoded for pair in both for encoded in pair)
                 for question in _questions(i, encoded, hidden)]
    sentence, places, targets = (np.array([question[k] for question in questions], np.int32)
                                 for k in (0, 2, 3))
    rows = list(pad([question.ids for question in questions]))

    def judge(tell: Tell) -> list[Preference]:
        scores = np.zeros(2 * len(both))
        for done, batch in enumerate(rows):
            tell(f"exam of the generator: {done} of {len(rows)} batches")
            values = compiled(batch.ids, batch.mask, places[batch.numbers], targets[batch.numbers])
            np.add.at(scores, sentence[batch.numbers[:batch.used]], values[:batch.used])
        return _preferences(both, scores)

    return judge


class _Question(NamedTuple):
    """How probable is this piece at this place?"""

    sentence: int
    ids: np.ndarray
    place: int
    piece: int


def _questions(sentence: int, encoded: Encoded, mask_id: int | None) -> list[_Question]:
    """One for each piece of the word, with the piece and those after it masked."""
    questions = []
    for place in encoded.places:
        ids = encoded.ids.copy()
        if mask_id is not None:
            ids[place:encoded.places[-1] + 1] = mask_id
        questions.append(_Question(sentence, ids, int(place), int(encoded.ids[place])))
    return questions


def _compiled(forward: Callable[..., tf.Tensor], strategy: tf.distribute.Strategy
              ) -> Callable[..., np.ndarray]:
    """Every replica computes the same, so this works with variables on any device. There is a program for
    each length, because devices that compile want fixed shapes."""
    forward = joined_parts(forward)

    @tf.function(autograph=False)
    def compiled(*arguments: tf.Tensor) -> tf.Tensor:
        return strategy.experimental_local_results(strategy.run(forward, args=arguments))[0]

    programs: dict[int, Callable[..., tf.Tensor]] = {}

    def call(*arrays: np.ndarray) -> np.ndarray:
        arguments, length = tuple(map(tf.constant, arrays)), arrays[0].shape[1]
        if length not in programs:  # calls of `compiled` would warn of how often it is traced
            programs[length] = compiled.get_concrete_function(*arguments)
        return programs[length](*arguments).numpy()

    return call


def _preferences(both: Both, scores: np.ndarray) -> list[Preference]:
    """From the scores of all sentences, a right one and its wrong one in turn.

    Where the two are the same to the model there is a tie: not even rounding may decide.
    """
    return [
        Preference(0.0, 0.0) if np.array_equal(right.ids, wrong.ids)
        or not (right.places.size and wrong.places.size) else Preference(*map(float, pair))
        for (right, wrong), pair in zip(both, scores.reshape(-1, 2), strict=True)]


def batches(rows: Sequence[np.ndarray], pad_id: int, max_length: int) -> Iterator[Rows]:
    """Rows of similar length together, padded to a multiple of `_LENGTH_STEP`, at most `max_length`."""
    lengths: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        length = min(-(-len(row) // _LENGTH_STEP) * _LENGTH_STEP, max_length)
        lengths.setdefault(length, []).append(number)
    for length, members in sorted(lengths.items()):
        for first in range(0, len(members), BATCH_SIZE):
            chosen = members[first:first + BATCH_SIZE]
            numbers = np.array(chosen + chosen[-1:] * (BATCH_SIZE - len(chosen)))
            ids = np.full([BATCH_SIZE, length], pad_id, np.int32)
            mask = np.zeros([BATCH_SIZE, length], np.int32)
            for i, number in enumerate(numbers):
                ids[i, :len(rows[number])], mask[i, :len(rows[number])] = rows[number], 1
            yield Rows(numbers, len(chosen), ids, mask)
