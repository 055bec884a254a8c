"""Parts of a batch: together they are the batch, its dropout masks and its gradients."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY
from paths import ROOT

from electra_es.config import ModelConfig, PretrainingConfig
from electra_es.model import parts
from electra_es.model.batches import Inputs, VocabularyFacts
from electra_es.model.dropout import Dropout, dropout_seed
from electra_es.model.masking import mask_tokens
from electra_es.model.parts import Part, divides_between, joined_parts, sum_of_parts
from electra_es.model.pretrainer import build_pretrainer
from electra_es.training.compilation import Compilation
from electra_es.training.optimization import Adam, schedule_for
from electra_es.training.steps import TrainStep, make_eval_step

SEED = tf.constant([3, 5])
L, V = 13, 61
VOCAB = VocabularyFacts(V, 0, 2, 3, 4, np.ones(V, bool))
MODEL = ModelConfig(**{**TINY, "hidden_dropout": 0.3, "attention_dropout": 0.2})


@pytest.fixture(params=[1, 2, 3])
def cores(request, monkeypatch):
    """Parts as on a machine with so many cores."""
    monkeypatch.setattr(parts, "cores_for_parts", lambda: request.param)
    return request.param


@pytest.mark.parametrize("inner", [(2, 7, 7), (3, 4), (5,), (1,)])
@pytest.mark.parametrize(("rows", "of"), [(8, 2), (24, 2), (24, 3), (24, 6)])
def test_masks_of_the_parts_are_those_of_the_batch(rows, of, inner):
    dropout = Dropout(0.3, number=4)
    with dropout_seed(SEED):
        whole = dropout.kept([rows, *inner])
    assert 0.4 < np.mean(whole) < 1 and whole.shape == (rows, *inner)
    for number in range(of):
        with dropout_seed(SEED, Part(tf.constant(number), of)):
            kept = dropout.kept([rows // of, *inner])
        np.testing.assert_array_equal(kept, parts._rows(whole, number, of))


def test_masks_of_parts_of_unknown_length():
    dropout = Dropout(0.3, number=4)
    with dropout_seed(SEED):
        whole = dropout.kept([24, 4, 7, 7])

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32)], autograph=False)
    def kept(length):
        with dropout_seed(SEED, Part(tf.constant(2), 3)):
            return dropout.kept([8, 4, length, length])

    np.testing.assert_array_equal(kept(7), parts._rows(whole, 2, 3))


def test_rows_of_a_part_come_from_every_quarter():
    found = parts._rows(tf.range(24), 1, 3)
    np.testing.assert_array_equal(found, [2, 3, 8, 9, 14, 15, 20, 21])
    every = np.concatenate([parts._rows(tf.range(24), i, 3) for i in range(3)])
    np.testing.assert_array_equal(sorted(every), range(24))


@pytest.mark.parametrize(("rows", "number", "expected"), [
    (32, 2, True), (32, 8, True), (32, 16, False), (30, 2, False), (4, 1, False), (48, 6, True)])
def test_every_core_gets_some_rows_of_each_quarter(rows, number, expected):
    assert divides_between(rows, number) == expected


@pytest.mark.parametrize(("rows", "expected"), [
    (24, (1, 2, 3)), (16, (1, 2, 2)), (8, (1, 2, 2)), (12, (1, 1, 3)), (7, (1, 1, 1))])
def test_sums(cores, rows, expected):
    """The most parts that there are cores for and into which the batch can be divided."""
    calls = []

    @tf.function(autograph=False)
    def total(x):
        def function(batch, part):
            calls.append(part.of if part else 1)
            return {"sum": tf.reduce_sum(batch["x"], 0), "rows": tf.shape(batch["x"])[0]}
        return sum_of_parts(function, {"x": x})

    x = tf.reshape(tf.range(3 * rows), [rows, 3])
    found = total(x)
    np.testing.assert_array_equal(found["sum"], tf.reduce_sum(x, 0))
    assert found["rows"] == rows
    assert calls == [expected[cores - 1]]  # traced once for all parts


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_joined_parts_keep_the_order(cores, rows):
    x = tf.reshape(tf.range(3 * rows), [rows, 3])
    np.testing.assert_array_equal(joined_parts(lambda a, b: 10 * a + b)(x, x), 11 * x)


def batch_of(rows: int) -> Inputs:
    random = np.random.default_rng(1)
    mask = (np.arange(L) < random.integers(7, L + 1, (rows, 1))).astype(np.int32)
    return Inputs(*map(tf.constant, (random.integers(5, V, (rows, L)).astype(np.int32) * mask, mask,
                                     np.zeros((rows, L), np.int32), np.arange(rows))))


@pytest.mark.parametrize(("accumulation", "fused"), [(1, True), (1, False), (2, True)])
def test_a_step_in_parts_is_the_step(monkeypatch, accumulation, fused):
    """Gradients and sums, with dropout; and not by chance: another seed gives others."""
    config = PretrainingConfig(train_batch_size=24, accumulation_steps=accumulation)
    model = build_pretrainer(MODEL, VOCAB)
    step = TrainStep(model, Adam(model.trainable_variables, schedule_for(config), config), MODEL, config,
                     Compilation(fused=fused))

    def found(cores, seed):
        monkeypatch.setattr(parts, "cores_for_parts", lambda: cores)

        @tf.function(autograph=False)
        def gradients():
            inputs = batch_of(24)
            masked = mask_tokens(inputs, MODEL, VOCAB, step.keys.masking)
            loss, values, sums = step._local_gradients(
                inputs, masked, tf.constant([30.0, 200.0]), tf.constant([seed, 2]))
            return [loss, tf.linalg.global_norm(values), *values], sums

        return gradients()

    (whole, sums), (other, _) = found(1, 1), found(1, 2)
    assert abs(float(whole[1] / other[1]) - 1) > 1e-3
    for cores in (2, 3):
        values, sums_of_parts = found(cores, 1)
        for one, part in zip(whole, values, strict=True):
            np.testing.assert_allclose(part, one, atol=2e-6 * float(whole[1]))
        for name, value in sums.items():
            assert float(sums_of_parts[name]) == pytest.approx(float(value), rel=1e-5), name


def test_an_evaluation_in_parts_is_the_evaluation(monkeypatch):
    model = build_pretrainer(MODEL, VOCAB)
    found = []
    for cores in (1, 2):
        monkeypatch.setattr(parts, "cores_for_parts", lambda cores=cores: cores)
        step = make_eval_step(model, MODEL, 7, tf.distribute.get_strategy())
        found.append(step(batch_of(16)))
    whole, in_parts = found
    for name, value in whole.items():
        np.testing.assert_allclose(in_parts[name], value, rtol=1e-5, err_msg=name)


def threads(settings: str, **environment: str) -> list[str]:
    """Of operations, and how many operations at a time, after `set_up_devices` in a new process."""
    program = ("import electra_es.training.devices as devices, tensorflow as tf\n"
               "from electra_es.config import PretrainingConfig\n"
               "devices.usable_cores = lambda: 2\n"
               f"devices.set_up_devices(PretrainingConfig({settings}), devices.TpuAddress())\n"
               "from electra_es.model.parts import cores_for_parts\n"
               "print(tf.config.threading.get_intra_op_parallelism_threads(), cores_for_parts())\n")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          check=True, timeout=300, env={**os.environ, **environment})
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(("settings", "environment", "expected"), [
    ("train_batch_size=16, eval_batch_size=8", {}, ["1", "2"]),
    ("train_batch_size=16, eval_batch_size=8, accumulation_steps=4", {}, ["0", "1"]),
    ("train_batch_size=15, eval_batch_size=8", {}, ["0", "1"]),
    ("train_batch_size=16, eval_batch_size=9", {}, ["0", "1"]),
    ("train_batch_size=16, eval_batch_size=8, jit_compile='on'", {}, ["0", "1"]),
    ("train_batch_size=16, eval_batch_size=8", {"TF_NUM_INTRAOP_THREADS": "2"}, ["0", "1"])])
def test_when_a_run_divides_its_batches(settings, environment, expected):
    assert threads(settings, **environment) == expected
