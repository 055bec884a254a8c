"""Batches: every example once an epoch, few lengths, an order that follows from seed and epoch."""

import numpy as np
import pytest

from electra_es.finetuning.batches import (
    Planned,
    bucket_of,
    make_batch,
    num_batches,
    padded_to,
    scoring_plan,
    training_plan,
)
from electra_es.finetuning.features import NONE, Features
from electra_es.finetuning.finetuner import TrialKeys
from electra_es.finetuning.tasks import Task

LENGTHS = np.random.default_rng(1).integers(3, 100, 1_003)


def test_an_epoch_has_every_row_once_in_batches_of_similar_length():
    plan = training_plan(LENGTHS, 7, TrialKeys(1, 1).order(1))
    assert len(plan) == num_batches(len(LENGTHS), 7) == 144
    assert sorted(np.concatenate([batch.rows for batch in plan])) == list(range(1_003))
    assert sorted(len(batch.rows) for batch in plan)[:2] == [2, 7]
    for batch in plan:
        assert LENGTHS[batch.rows].max() == batch.length
    buckets = [bucket_of(batch.length, 100) for batch in plan]
    assert set(buckets) <= {16, 24, 32, 48, 64, 96, 100}
    for limit, lengths in ((1.05, [batch.length for batch in plan]), (1.25, buckets)):
        padded = sum(n * len(batch.rows) for n, batch in zip(lengths, plan, strict=True))
        assert padded < limit * LENGTHS.sum()


def test_the_order_follows_from_seed_trial_and_epoch():
    def rows(keys: TrialKeys, epoch: int) -> list[int]:
        return np.concatenate([b.rows for b in training_plan(LENGTHS, 7, keys.order(epoch))]
                              ).tolist()

    first = rows(TrialKeys(1, 1), 1)
    assert rows(TrialKeys(1, 1), 1) == first
    for keys, epoch in ((TrialKeys(1, 1), 2), (TrialKeys(1, 2), 1), (TrialKeys(2, 1), 1)):
        assert rows(keys, epoch) != first


def test_scoring_goes_by_length():
    plan = scoring_plan(LENGTHS, 7)
    assert sorted(np.concatenate([batch.rows for batch in plan])) == list(range(1_003))
    lengths = [batch.length for batch in plan]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize("length, longest, expected", [
    (3, 128, 16), (16, 128, 16), (17, 128, 24), (100, 128, 128), (65, 90, 90), (3, 12, 12)])
def test_buckets(length, longest, expected):
    assert bucket_of(length, longest) == expected


def row(n: int, labels: object, number: int = 0) -> Features:
    return Features(np.arange(2, 2 + n, dtype=np.int32), np.ones(n, np.int32), number,
                    np.array(labels))


def test_a_batch_is_filled_up_with_rows_of_no_weight():
    task = Task(name="t", kind="tagging", labels=("O", "X"), metric="accuracy",
                columns={"word": 0, "label": 1})
    rows = [row(3, [NONE, 1, NONE]), row(2, [0, NONE])]
    batch = make_batch(rows, Planned(5, np.array([1, 0])), 4, task)
    np.testing.assert_array_equal(batch.input_ids[:2], [[2, 3, 0, 0, 0], [2, 3, 4, 0, 0]])
    np.testing.assert_array_equal(batch.input_mask.sum(axis=1), [2, 3, 1, 1])
    np.testing.assert_array_equal(batch.segment_ids[0], [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(batch.weights.sum(axis=1), [1, 1, 0, 0])
    assert batch.labels.min() == 0 and batch.labels[1, 1] == 1 and batch.weights[1, 1] == 1


def test_scores_of_a_regression_are_shares_of_the_range():
    task = Task(name="t", kind="regression", score_range=(1.0, 5.0), metric="pearson",
                columns={"text": 0, "score": 1})
    batch = make_batch([row(3, 1.0), row(2, 4.0)], Planned(4, np.array([0, 1])), 3, task)
    np.testing.assert_array_equal(batch.labels, [0.0, 0.75, 0.0])
    np.testing.assert_array_equal(batch.weights, [1.0, 1.0, 0.0])


def test_a_padded_batch_says_the_same():
    task = Task(name="t", kind="tagging", labels=("O", "X"), metric="accuracy",
                columns={"word": 0, "label": 1})
    rows = [row(3, [NONE, 1, NONE]), row(2, [0, NONE])]
    batch = make_batch(rows, Planned(3, np.array([0, 1])), 3, task)
    padded = padded_to(batch, 12)
    for before, after in zip(batch, padded, strict=True):
        assert after.shape == (3, 12) and after.dtype == before.dtype
        np.testing.assert_array_equal(after[:, :3], before)
        assert not after[:, 3:].any()
    pairs = batch._replace(labels=np.zeros(3, np.int32), weights=np.ones(3, np.float32))
    assert [array.shape for array in padded_to(pairs, 12)] == [(3, 12)] * 3 + [(3,)] * 2
