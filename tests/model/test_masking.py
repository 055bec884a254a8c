"""Selection of tokens, [MASK], and the sampled replacements."""

import math

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_es.config import ModelConfig
from electra_es.model.batches import Inputs, VocabularyFacts
from electra_es.model.masking import choose_positions, count_predictions, mask_tokens, scatter_update
from electra_es.model.randomness import derive_key, fold_in, uniform
from electra_es.model.sampling import sample_from_softmax

VOCAB = VocabularyFacts(size=61, pad_id=0, cls_id=2, sep_id=3, mask_id=4,
                        word_starts=np.arange(61) % 3 != 2)
SPECIAL = (0, 2, 3, 4)
KEY = derive_key(42, "masking")


def config(**changes):
    return ModelConfig(**{**TINY, **changes})


def make_inputs(rows):
    """Rows of ids, padded with 0 to the longest."""
    ids = tf.ragged.constant(rows, dtype=tf.int32)
    dense = ids.to_tensor(0)
    valid = tf.sequence_mask(ids.row_lengths(), dense.shape[1], tf.int32)
    return Inputs(dense, valid, tf.zeros_like(dense), tf.range(len(rows), dtype=tf.int64))


def full_rows(batch, length):
    """[CLS] words [SEP]."""
    ids = np.random.default_rng(0).integers(5, 61, (batch, length)).astype(np.int32)
    ids[:, 0], ids[:, -1] = 2, 3
    return make_inputs(ids.tolist())


def chosen_positions(masked):
    """The positions of each row's used slots."""
    return [positions[weights > 0].tolist() for positions, weights in
            zip(masked.positions.numpy(), masked.weights.numpy(), strict=True)]


# [CLS] first, as position 0 stands for "no update"; specials may occur anywhere else.
row = st.lists(st.one_of(st.integers(5, 60), st.sampled_from((1, 3, 4))), min_size=1, max_size=22).map(
    lambda ids: [2, *ids])


@pytest.mark.parametrize("mode", ["exact", "original", "whole_word"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(rows=st.lists(row, min_size=3, max_size=3), mask_prob=st.sampled_from([0.15, 0.4, 1.0]))
def test_what_holds_of_every_mask(mode, rows, mask_prob):
    inputs = make_inputs([*rows, [2, *range(5, 27)]])  # one length only, or each would be traced
    settings_ = config(masking=mode, mask_prob=mask_prob)
    masked = mask_tokens(inputs, settings_, VOCAB, KEY)
    k = settings_.predictions_per_sequence(23)
    assert masked.positions.shape == (4, k)
    for i, ids in enumerate([*rows, [2, *range(5, 27)]]):
        positions, weights = masked.positions[i].numpy(), masked.weights[i].numpy()
        candidates = [p for p, token in enumerate(ids) if token not in SPECIAL]
        used = positions[weights > 0]
        wanted = max(1, min(k, round(len(ids) * mask_prob)))  # both round half to even
        if mode == "exact":
            assert len(used) == len(set(used)) == min(wanted, len(candidates))
        elif mode == "original":
            assert len(used) == (wanted if candidates else 0)
        else:
            assert min(1, len(candidates)) <= len(used) <= min(wanted, len(candidates))
            assert len(set(used)) == len(used)
        assert set(used) <= set(candidates)
        # Used slots come first; the others are empty in every field.
        assert (np.diff(weights) <= 0).all() and set(weights) <= {0.0, 1.0}
        assert (positions[weights == 0] == 0).all()
        np.testing.assert_array_equal(
            masked.original_ids[i].numpy(), [ids[p] if w else 0 for p, w in
                                             zip(positions, weights, strict=True)])
        # Only selected positions change, and only into [MASK].
        after, before = masked.input_ids[i].numpy()[:len(ids)], np.array(ids)
        changed = np.flatnonzero(after != before)
        assert set(changed) <= set(used) and (after[changed] == 4).all()
        assert (masked.input_ids[i].numpy()[len(ids):] == 0).all()


@pytest.mark.parametrize("tokens, mask_prob, k, expected", [
    (128, 0.15, 19, 19),  # 19.2
    (128, 0.15, 12, 12),  # K is the most
    (5, 0.15, 19, 1),  # 0.75
    (2, 0.15, 19, 1),  # 0.3: at least one
    (10, 0.25, 19, 2),  # 2.5 to even
    (14, 0.25, 19, 4),  # 3.5 to even
])
def test_count_of_the_original(tokens, mask_prob, k, expected):
    """max(1, min(K, round(tokens * mask_prob))), special tokens counted among the tokens."""
    inputs = make_inputs([[5] * tokens])
    candidates = tf.ones([1, tokens], tf.bool)
    for mode in ("exact", "original"):
        counts = count_predictions(
            inputs, candidates, config(mask_prob=mask_prob, masking=mode), k)
        assert counts.numpy().tolist() == [expected]


def test_predictions_per_sequence():
    """K = int((mask_prob + 0.005) L); the original's 19 at 128 and 79 at 512."""
    assert [config().predictions_per_sequence(n) for n in (13, 128, 512)] == [2, 19, 79]
    assert config(mask_prob=0.25).predictions_per_sequence(512) == 130
    assert config(max_predictions=7).predictions_per_sequence(128) == 7
    assert config(max_predictions=20).predictions_per_sequence(13) == 13


def test_positions_by_hand():
    """The largest draws among candidates win, or draw i takes candidate floor(u_i n)."""
    inputs = make_inputs([[2, 10, 11, 12, 3, 13, 0]])
    candidates = tf.constant([[False, True, True, True, False, True, False]])
    draws = tf.constant([[0.99, 0.30, 0.80, 0.10, 0.95, 0.60, 0.97]])
    counts = tf.constant([2])
    positions, weights = choose_positions(
        inputs, candidates, counts, draws, 3, config(), VOCAB)
    assert positions.numpy().tolist() == [[2, 5, 0]]
    assert weights.numpy().tolist() == [[1, 1, 0]]
    positions, weights = choose_positions(
        inputs, candidates, tf.constant([3]), tf.constant([[0.99, 0.30, 0.49, 0, 0, 0, 0]]), 3,
        config(masking="original"), VOCAB)
    assert positions.numpy().tolist() == [[5, 2, 2]]  # of candidates 1, 2, 3, 5; one twice
    assert weights.numpy().tolist() == [[1, 1, 1]]


WORDS = [2, 10, 11, 13, 14, 17, 20, 3, 14, 16]  # words: 10 11 | 13 14 17 20 | 14 | 16


@pytest.mark.parametrize("draws, count, expected", [
    ((0.1, 0.2, 0.3, 0.4), 6, [1, 2, 3, 4, 5, 6]),
    ((0.3, 0.4, 0.1, 0.2), 3, [8, 9]),  # the next word has two pieces and one place is left
    ((0.3, 0.4, 0.1, 0.2), 4, [8, 9, 1, 2]),
    ((0.2, 0.1, 0.3, 0.4), 3, [3, 4, 5]),  # a first word that is too long, in part
    ((0.2, 0.1, 0.3, 0.4), 4, [3, 4, 5, 6]),
])
def test_whole_words_by_hand(draws, count, expected):
    """Ids 2 modulo 3 continue a word, but 14 after [SEP] begins one."""
    inputs = make_inputs([WORDS])
    by_position = np.zeros((1, 10), np.float32)
    by_position[0, [1, 3, 8, 9]] = draws
    candidates = tf.constant([[token not in SPECIAL for token in WORDS]])
    positions, weights = choose_positions(
        inputs, candidates, tf.constant([count]), tf.constant(by_position), 6,
        config(masking="whole_word"), VOCAB)
    assert positions.numpy()[0][weights.numpy()[0] > 0].tolist() == expected


def test_whole_words_are_not_cut():
    inputs = full_rows(40, 64)
    ids = inputs.input_ids.numpy()
    cut = {}
    for mode in ("exact", "whole_word"):
        cut[mode] = 0
        masked = mask_tokens(inputs, config(masking=mode), VOCAB, KEY)
        for i, positions in enumerate(chosen_positions(masked)):
            for p in positions:
                before = p - 1 in positions or ids[i, p] % 3 != 2 or p == 1
                after = p + 1 in positions or ids[i, p + 1] % 3 != 2 or p + 1 == 63
                cut[mode] += not (before and after)
    assert cut["whole_word"] == 0 and cut["exact"] > 50


def test_rate_and_duplicates_of_the_original():
    """77 draws from 510 candidates hit 71.5 of them: 13.96 % of 512 tokens; 7.1 % of draws are
    repeats."""
    inputs = full_rows(60, 512)
    distinct = {mode: np.array([len(set(p)) for p in chosen_positions(
        mask_tokens(inputs, config(masking=mode), VOCAB, KEY))]) for mode in ("original", "exact")}
    assert (distinct["exact"] == 77).all()
    assert distinct["original"].mean() / 512 == pytest.approx(0.1396, abs=0.0012)
    assert 1 - distinct["original"].mean() / 77 == pytest.approx(0.071, abs=0.006)


@pytest.mark.parametrize("mode", ["exact", "original"])
def test_every_candidate_is_as_likely(mode):
    inputs = full_rows(1, 22)
    rows = Inputs(*(tf.repeat(x, 3000, axis=0) for x in inputs[:3]), tf.range(3000, dtype=tf.int64))
    positions = chosen_positions(mask_tokens(rows, config(masking=mode), VOCAB, KEY))
    counts = np.bincount(np.concatenate(positions), minlength=22)
    assert counts[0] == counts[21] == 0 and counts.sum() == 9000
    chi_square = ((counts[1:21] - 450) ** 2 / 450).sum()
    assert chi_square < 43.8  # 0.1 % of 19 degrees of freedom


def test_share_that_becomes_mask():
    """85 % of the selected, and none becomes another token."""
    inputs = full_rows(60, 512)
    for replace_prob in (0.85, 0.4, 1.0):
        masked = mask_tokens(inputs, config(replace_prob=replace_prob), VOCAB, KEY)
        now = tf.gather(masked.input_ids, masked.positions, batch_dims=1).numpy()
        used = masked.weights.numpy() > 0
        hidden = now[used] == 4
        assert hidden.mean() == pytest.approx(replace_prob, abs=0.02 if replace_prob < 1 else 0)
        assert (now[used][~hidden] == masked.original_ids.numpy()[used][~hidden]).all()


def test_masks_depend_on_key_and_example_alone():
    inputs = full_rows(6, 40)
    whole = mask_tokens(inputs, config(), VOCAB, KEY)
    part = mask_tokens(Inputs(*(x[4:] for x in inputs)), config(), VOCAB, KEY)
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_array_equal(a[4:], b)
    other = mask_tokens(inputs, config(), VOCAB, derive_key(43, "masking"))
    assert chosen_positions(other) != chosen_positions(whole)


def test_two_samples_at_one_position_write_a_third_token():
    """As in the original, when masking with replacement selects a position twice."""
    ids, written = scatter_update(
        tf.constant([[2, 10, 11, 3]]), tf.constant([[20, 45, 30, 50]]), tf.constant([[1, 1, 2, 0]]))
    assert ids.numpy().tolist() == [[2, 32, 30, 3]]
    assert written.numpy().tolist() == [[0, 1, 1, 0]]


def many_draws(n):
    return uniform(fold_in(derive_key(5, "sampling"), tf.range(n, dtype=tf.int64)), 1)


def test_samples_follow_the_softmax():
    """Chi-square over 60,000 draws from 61 ids whose probabilities span three decades."""
    logits = np.random.default_rng(2).normal(0, 1.2, 61).astype(np.float32)
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum()
    n = 60_000
    ids = sample_from_softmax(tf.tile(logits[None, None], [n, 1, 1]), many_draws(n)).numpy()
    counts = np.bincount(ids.ravel(), minlength=61)
    expected = n * probabilities
    assert expected.min() > 5
    assert ((counts - expected) ** 2 / expected).sum() < 99.6  # 0.1 % of 60 degrees of freedom


@pytest.mark.parametrize("vocab_size", [13, 61, 1000, 4001])
def test_samples_are_the_inverse_of_the_cumulative_distribution(vocab_size):
    """Against one search in float64; draws within rounding of a border may fall on either side."""
    logits = np.random.default_rng(vocab_size).normal(0, 2, (3, 7, vocab_size)).astype(np.float32)
    draws = uniform(fold_in(KEY, tf.range(3, dtype=tf.int64)), 7)
    weights = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    cumulative = np.cumsum(weights, -1) / weights.sum(-1, keepdims=True)
    ids = sample_from_softmax(tf.constant(logits), draws).numpy()
    upper = np.take_along_axis(cumulative, ids[..., None], -1)[..., 0]
    lower = upper - np.take_along_axis(weights, ids[..., None], -1)[..., 0] / weights.sum(-1)
    assert (draws.numpy() < upper + 2e-6).all() and (draws.numpy() > lower - 2e-6).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.one_of(st.just(-math.inf), st.floats(-40, 40, width=32)), min_size=23,
                max_size=23).filter(lambda x: max(x) > -math.inf),
       st.lists(st.one_of(st.sampled_from([0.0, 1 - 2.0**-24]), st.floats(0, 0.96875, width=32)),
                min_size=5, max_size=5))
def test_ids_of_probability_zero_are_never_drawn(logits, draws):
    ids = sample_from_softmax(tf.constant([[logits] * 5], tf.float32), tf.constant([draws]))
    assert all(0 <= i < 23 and logits[i] > -math.inf for i in ids.numpy()[0])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 22), min_size=5, max_size=5), st.integers(0, 2**20))
def test_disallowed_ids_are_never_drawn(disallowed, example):
    logits = np.zeros((1, 5, 23), np.float32)
    logits[0, range(5), disallowed] = 30.0  # or they would all but surely be drawn
    draws = uniform(fold_in(KEY, tf.constant([example], tf.int64)), 5)
    free = sample_from_softmax(tf.constant(logits), draws).numpy()[0]
    kept = sample_from_softmax(tf.constant(logits), draws, tf.constant([disallowed])).numpy()[0]
    assert free.tolist() == disallowed
    assert not (kept == disallowed).any()


def test_no_gradient_through_samples():
    logits = tf.Variable(np.random.default_rng(1).normal(size=(3, 4, 61)).astype(np.float32))
    table = tf.Variable(tf.ones([61, 12]))
    with tf.GradientTape() as tape:
        ids = sample_from_softmax(logits, tf.fill([3, 4], 0.3))
        loss = tf.reduce_sum(tf.gather(table, ids)) + tf.reduce_sum(tf.cast(ids, tf.float32))
    gradients = tape.gradient(loss, [logits, table])
    assert gradients[0] is None and gradients[1] is not None
