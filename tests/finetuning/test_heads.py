"""Heads, losses and rates: each kind can be learnt, and the layers move at the original's rates."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from finetuning_helpers import (
    KINDS,
    NO_DROPOUT,
    QUICK,
    examples_of,
    make_finetuner,
    make_model_dir,
    task_data,
    task_of,
)
from paths import GOLDEN

from electra_es.finetuning.batches import (
    Batch,
    lengths_of,
    make_batch,
    scoring_plan,
    training_plan,
)
from electra_es.finetuning.finetuner import TrialKeys
from electra_es.finetuning.heads import Head, losses
from electra_es.finetuning.scores import score_split
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.steps import FinetuningStep, make_train_step
from electra_es.training.compilation import Compilation


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> str:
    return make_model_dir(tmp_path_factory.mktemp("heads"), **NO_DROPOUT)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_learns_eight_examples(model_dir, kind):
    config = FinetuningConfig(**{
        **QUICK, "train_batch_size": 8, "learning_rate": 3e-3, "warmup_fraction": 0.1,
        "layer_decay": 1.0, "head_dropout": 0.0, "max_question_length": 4, "stride": 4})
    task = task_of(kind)
    data = task_data(task, model_dir, config, dev=examples_of(task))
    rows = data.features["dev"]
    finetuner = make_finetuner(model_dir, task, config, 300)
    finetuner.begin(TrialKeys(1, 1))
    planned = training_plan(lengths_of(rows), len(rows), TrialKeys(1, 1).order(1))
    assert len(planned) == 1
    batch = make_batch(rows, planned[0], len(rows), task)
    first = score_split(data, "dev", finetuner.forward, config).metrics
    for _ in range(300):
        sums = finetuner.train(batch, TrialKeys(1, 1).dropout)
    assert float(sums["loss"] / sums["weight"]) < 0.02
    found = score_split(data, "dev", finetuner.forward, config).metrics
    assert next(iter(found)) == f"dev/{task.metric}" and first[f"dev/{task.metric}"] < 0.9
    for metric, value in found.items():
        assert value > 0.99 if kind == "regression" else value == 1.0, metric


def test_updates_have_the_layers_rates_of_the_original(tmp_path):
    """The first update of Adam is rate * 0.1 / sqrt(0.001) where the gradient is well above epsilon."""
    original = json.loads((GOLDEN / "layer_lrs.json").read_text())
    layers = original["n_layers"]
    model_dir = make_model_dir(tmp_path, **NO_DROPOUT, num_layers=layers)
    config = FinetuningConfig(**{
        **QUICK, "learning_rate": original["learning_rate"], "layer_decay": original["layer_decay"],
        "lr_schedule": "constant", "warmup_fraction": 0.0, "weight_decay": 0.0, "clip_norm": 0.0,
        "adam_epsilon": 1e-12})
    task = task_of("tagging")
    data = task_data(task, model_dir, config, train=examples_of(task))
    finetuner = make_finetuner(model_dir, task, config, 10)
    finetuner.begin(TrialKeys(1, 1))
    depths = finetuner.model.variables_by_depth()
    before = [[v.numpy() for v in variables] for variables in depths]
    batch = make_batch(data.features["train"], training_plan(
        lengths_of(data.features["train"]), 8, TrialKeys(1, 1).order(1))[0], 8, task)
    finetuner.train(batch, TrialKeys(1, 1).dropout)
    rates = original["layer_lrs"]
    names = ["/embeddings/", *(f"encoder/layer_{i}/" for i in range(layers)), "task_specific/"]
    assert len(depths) == len(names) and rates["/embeddings_project/"] == rates["/embeddings/"]
    for name, variables, old in zip(names, depths, before, strict=True):
        steps = [np.max(np.abs(v.numpy() - o)) for v, o in zip(variables, old, strict=True)]
        expected = rates[name] * 0.1 / np.sqrt(0.001)
        np.testing.assert_allclose(max(steps), expected, rtol=2e-2, err_msg=name)


def test_every_variable_of_encoder_and_head_is_trained_once(model_dir):
    task = task_of("tagging")
    model = make_finetuner(model_dir, task, FinetuningConfig(**QUICK), 1).model
    rated = [variable.ref() for variable, _ in model.rate_multipliers(0.8)]
    assert len(rated) == len(set(rated)) and set(rated) == {
        variable.ref() for variable in model.trainable_variables}


def test_trials_begin_with_other_heads_and_the_same_encoder(model_dir):
    finetuner = make_finetuner(model_dir, task_of("tagging"), FinetuningConfig(**QUICK), 10)
    seen = []
    for trial in (1, 2, 1):
        finetuner.model.embeddings.word_embeddings.assign_add(
            tf.ones_like(finetuner.model.embeddings.word_embeddings))
        finetuner.optimizer.iterations.assign(7)
        finetuner.begin(TrialKeys(3, trial))
        assert finetuner.optimizer.iterations.numpy() == 0
        seen.append([v.numpy() for v in finetuner.model.variables_by_depth()[0]]
                    + [finetuner.model.head.dense.kernel.numpy()])
    first, second, again = seen
    for a, b in zip(first[:-1], second[:-1], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first[-1], again[-1])
    assert np.abs(first[-1] - second[-1]).max() > 0.1


def test_classification_drops_before_its_dense_layer_and_tagging_does_not():
    sequence = tf.random.stateless_normal([5, 7, 64], [1, 2])
    for kind, drops in (("classification", True), ("regression", True), ("tagging", False),
                        ("question_answering", False)):
        head = Head(kind, 3, 0.5)
        still, dropped = head(sequence), head(sequence, tf.constant([3, 4]))
        assert (np.abs(still - dropped).max() > 1e-3) == drops
        np.testing.assert_array_equal(dropped, head(sequence, tf.constant([3, 4])))


def test_the_loss_of_a_question_is_over_its_tokens():
    logits = tf.random.stateless_normal([1, 6, 2], [1, 2])
    mask = np.array([[1, 1, 1, 1, 0, 0]], np.int32)
    batch = Batch(None, mask, None, np.array([[1, 3]], np.int32), None)
    log_softmax = np.log(np.exp(logits[0, :4]) / np.exp(logits[0, :4]).sum(axis=0))
    np.testing.assert_allclose(losses("question_answering", logits, batch),
                               [-(log_softmax[1, 0] + log_softmax[3, 1]) / 2], rtol=1e-5)


def test_settings_for_training_are_those_of_finetuning():
    config = FinetuningConfig(learning_rate=2e-5, weight_decay=0.1, warmup_fraction=0.25, seed=9)
    engine = config.for_training(40)
    assert (engine.num_train_steps, engine.warmup_steps) == (40, 10)
    shared = set(dataclasses.asdict(config)) & set(dataclasses.asdict(engine))
    assert {"learning_rate", "weight_decay", "clip_norm", "adam_epsilon", "seed"} <= shared
    for name in shared:
        assert getattr(engine, name) == getattr(config, name)


@pytest.mark.parametrize("kind", ("tagging", "classification"))
def test_one_program_for_all_lengths_trains_as_those_of_few_lengths(kind, tmp_path):
    """Without XLA one program takes batches of any length; with it or fused work they are padded."""
    model_dir = make_model_dir(tmp_path, **NO_DROPOUT)
    # Epsilon: where a gradient is nothing but rounding, Adam would make an update of its sign.
    config = FinetuningConfig(**{**QUICK, "head_dropout": 0.0, "max_question_length": 4, "stride": 4,
                                 "adam_epsilon": 1e-4})
    task = task_of(kind)
    rows = task_data(task, model_dir, config, train=examples_of(task)).features["train"]
    finetuner = make_finetuner(model_dir, task, config, 10)
    strategy = tf.distribute.OneDeviceStrategy("device:CPU:0")
    variables = [v for depth in finetuner.model.variables_by_depth() for v in depth]
    plan = scoring_plan(lengths_of(rows), 3)
    assert len({planned.length for planned in plan}) > 1
    found = []
    for few_lengths, compilation in ((False, Compilation()), (True, Compilation()),
                                     (False, Compilation(fused=True))):
        finetuner.begin(TrialKeys(1, 1))
        step = FinetuningStep(
            finetuner.model, finetuner.optimizer, variables, finetuner.engine, compilation)
        train = make_train_step(step, strategy, config.max_seq_length, few_lengths=few_lengths)
        sums = []
        for planned in plan:
            sums.append(train(make_batch(rows, planned, 3, task), TrialKeys(1, 1).dropout))
        found.append(([{name: float(value) for name, value in one.items()} for one in sums],
                      [v.numpy() for v in finetuner.model.variables]))
    sums, weights = found[0]
    for other_sums, other_weights in found[1:]:
        for one, other in zip(sums, other_sums, strict=True):
            assert one == pytest.approx(other, rel=1e-5)
        for value, other in zip(weights, other_weights, strict=True):
            np.testing.assert_allclose(value, other, atol=2e-6)
