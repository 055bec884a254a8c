"""Threefry against its published vectors, and what is derived from it."""

import numpy as np
import pytest
import tensorflow as tf

from electra_es.model.batches import Inputs, MaskedInputs
from electra_es.model.dropout import Dropout, dropout_seed
from electra_es.model.pretrainer import build_pretrainer
from electra_es.model.randomness import Key, derive_key, fold_in, stateless_seed, threefry2x32, uniform


def u32(value):
    return tf.constant(value, tf.uint32)


@pytest.mark.parametrize("key, counter, expected", [
    # Known-answer vectors of the Random123 distribution, threefry2x32 with 20 rounds.
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
])
@pytest.mark.parametrize("compiled", [False, True])
def test_known_answers(key, counter, expected, compiled):
    function = tf.function(threefry2x32, jit_compile=True) if compiled else threefry2x32
    x, y = function(Key(u32(key[0]), u32(key[1])), u32(counter[0]), u32(counter[1]))
    assert (int(x), int(y)) == expected


def test_keys_are_pinned():
    """A run that a later version continues must draw the same masks."""
    assert derive_key(42, "masking") == Key(0x1C8B7565, 0x2911F608)  # printf 42/masking | sha256sum
    assert len({derive_key(seed, purpose) for seed in range(5) for purpose in "ab"}) == 10


def test_numbers_depend_on_the_example_alone():
    key = derive_key(42, "masking")
    together = uniform(fold_in(key, tf.constant([7, 8, 9], tf.int64)), 13).numpy()
    alone = uniform(fold_in(key, tf.constant([9], tf.int64)), 13).numpy()
    longer = uniform(fold_in(key, tf.constant([9], tf.int64)), 29).numpy()
    np.testing.assert_array_equal(together[2], alone[0])
    np.testing.assert_array_equal(longer[0, :13], alone[0])
    assert len(np.unique(together)) == 39


def test_all_64_bits_of_a_number_count():
    numbers = tf.constant([5, 5 + 2**32, 5 + 2**40, 2**62 + 5], tf.int64)
    folded = fold_in(derive_key(1, "x"), numbers)
    assert len(set(zip(folded.high.numpy(), folded.low.numpy(), strict=True))) == 4


def test_uniform_numbers_are_uniform():
    draws = uniform(fold_in(derive_key(3, "x"), tf.range(200, dtype=tf.int64)), 500).numpy()
    assert draws.min() >= 0 and draws.max() < 1
    assert (draws * 2.0**24 == np.floor(draws * 2.0**24)).all()
    counts = np.histogram(draws, bins=50, range=(0, 1))[0]
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_square < 85.4  # 0.1 % of 49 degrees of freedom
    # Neighbours within a row, and the same place in neighbouring rows, are not correlated.
    assert abs(np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.01


def test_dropout_is_a_function_of_the_seed(tiny_config, vocab_facts):
    model = build_pretrainer(tiny_config(), vocab_facts)
    ids = tf.constant([[2, *range(5, 16), 3]] * 3)
    inputs = Inputs(ids, tf.ones_like(ids), tf.zeros_like(ids), tf.range(3, dtype=tf.int64))
    masked = MaskedInputs(ids, ids[:, :4] * 0 + 1, ids[:, 1:5], tf.ones([3, 4]))

    def logits(number):
        seed = stateless_seed(derive_key(42, "dropout"), tf.constant(number, tf.int64))
        with dropout_seed(seed):
            outputs = model(inputs, masked, sampled_ids=ids[:, 1:5], training=True)
        return outputs.discriminator_logits.numpy()

    np.testing.assert_array_equal(logits(1), logits(1))
    assert np.abs(logits(1) - logits(2)).max() > 1e-3
    # Rows are equal, so only dropout can make their logits differ.
    assert np.abs(logits(1)[0] - logits(1)[1]).max() > 1e-3
    quiet = model(inputs, masked, sampled_ids=ids[:, 1:5]).discriminator_logits.numpy()
    np.testing.assert_allclose(quiet[0], quiet[1], atol=1e-6)


def test_dropout_masks():
    """Zeros at the rate, the rest scaled up, other masks in other layers and rows."""
    seed = stateless_seed(derive_key(42, "dropout"), tf.constant(3, tf.int64))
    with dropout_seed(seed):
        masks = [Dropout(0.1, layer)(tf.ones([100, 300]), training=True).numpy()
                 for layer in (0, 1, 2)]
    for mask in masks:
        np.testing.assert_allclose(np.unique(mask), [0, 1 / 0.9], rtol=1e-6)
        assert (mask == 0).mean() == pytest.approx(0.1, abs=0.006)
    dropped = np.stack([mask.ravel() == 0 for mask in masks]).astype(float)
    assert np.abs(np.corrcoef(dropped) - np.eye(3)).max() < 0.02
    assert np.abs(np.corrcoef(masks[0]) - np.eye(100)).mean() < 0.1
    with pytest.raises(RuntimeError, match="outside `dropout_seed`"):
        Dropout(0.1, 0)(tf.ones([2, 3]), training=True)
