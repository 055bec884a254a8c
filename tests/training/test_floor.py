"""What counting reaches: by hand, for each kind of model, and on what real evaluations really scored."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from engine_helpers import TrainingProcess, make_data
from sklearn.metrics import roc_auc_score
from test_distribution import MODEL, start_workers

from electra_es.data.inputs import synthetic_batch, validation_dataset
from electra_es.data.records import load_records_info, read_id_counts
from electra_es.model.masking import mask_tokens
from electra_es.model.pretrainer import build_pretrainer
from electra_es.model.randomness import derive_key
from electra_es.training.evaluation import evaluate_run
from electra_es.training.floor import floor_metrics, id_histograms, unigram_log_probabilities
from electra_es.training.metrics import auc_histograms, metric_sums, summarise
from electra_es.training.run_dir import load_model, settings_of_run
from electra_es.training.steps import evaluation_forward

DISCRIMINATOR = {"floor_disc_auc", "floor_disc_accuracy", "disc_auc_above_floor",
                 "disc_accuracy_above_floor"}


def test_floor_by_hand(vocab_facts):
    """Ids 5 to 8 are counted 9, 4, 4 and 0 times; special tokens are never masked."""
    counts = np.zeros(61, np.int64)
    counts[[1, 2, 3, 5, 6, 7]] = 3, 50, 50, 9, 4, 4
    original, replaced, targets = np.zeros(61), np.zeros(61), np.zeros(61)
    original[[2, 5, 6]] = 1, 2, 1
    replaced[[5, 7, 8]] = 1, 2, 1
    targets[[5, 8]] = 3, 1
    found = floor_metrics(
        {"original_ids": original, "replaced_ids": replaced, "target_ids": targets, "mlm_weight": 5},
        {"replaced_share": 0.5, "disc_auc": 0.9, "disc_accuracy": 0.75}, counts, vocab_facts)
    # Of 16 pairs 5 over 2: 1, 5 over 5: 2 ties; 7 over 2, 5, 5: 3, 7 over 6: a tie, twice; 8: 4.
    auc = (1 + 2 * 0.5 + 2 * (3 + 0.5) + 4) / 16
    total = 3 + 9 + 4 + 4 + 61 - 4  # each id but [PAD], [CLS], [SEP] and [MASK] is counted once more
    assert found == pytest.approx({
        "floor_disc_auc": auc, "disc_auc_above_floor": 0.9 - auc, "floor_disc_accuracy": 0.5,
        "disc_accuracy_above_floor": 0.25,
        "floor_masked_lm_loss": -(3 * np.log(10 / total) + np.log(1 / total)) / 5})
    probabilities = np.exp(unigram_log_probabilities(counts, vocab_facts))
    assert probabilities.sum() == pytest.approx(1) and not probabilities[[0, 2, 3, 4]].any()


@pytest.mark.parametrize("settings, names", [
    (dict(), DISCRIMINATOR | {"floor_masked_lm_loss"}),
    (dict(objective="mlm"), {"floor_masked_lm_loss"}),
    (dict(generator_kind="uniform"), DISCRIMINATOR),
    (dict(generator_kind="shared"), DISCRIMINATOR | {"floor_masked_lm_loss"}),
    (dict(objective="electric", generator_kind="two_tower"), DISCRIMINATOR | {"floor_masked_lm_loss"}),
], ids=["electra", "mlm", "uniform", "shared", "electric"])
def test_floor_of_each_kind_of_model(tiny_config, vocab_facts, settings, names):
    """What is predicted and what is scored is the model's own: the two towers predict every token."""
    config = tiny_config(num_layers=1, **settings)
    model = build_pretrainer(config, vocab_facts)
    inputs = synthetic_batch(3, 13, 61)._replace(
        input_mask=tf.sequence_mask([13, 7, 4], 13, tf.int32))
    masked = mask_tokens(inputs, config, vocab_facts, derive_key(1, "masking"))
    outputs = model(inputs, masked, tf.fill([3, 2], 0.5))
    sums = {name: value.numpy().astype(np.float64) for name, value in {
        **metric_sums(outputs, masked, config), **auc_histograms(outputs),
        **id_histograms(outputs, inputs, masked, config, vocab_facts)}.items()}
    counts = np.random.default_rng(2).integers(0, 30, 61)
    found = floor_metrics(sums, summarise(sums, 1.0, 50.0), counts, vocab_facts)
    assert found.keys() == names
    if "floor_disc_auc" in names:
        assert found["floor_disc_auc"] == pytest.approx(roc_auc_score(
            outputs.labels.numpy().ravel(), -np.log(counts[outputs.corrupted_ids.numpy()] + 1.0).ravel(),
            sample_weight=outputs.discriminator_weights.numpy().ravel()), abs=1e-12)
    if "floor_masked_lm_loss" in names:
        ids = inputs.input_ids if config.generator_kind == "two_tower" else masked.original_ids
        used = outputs.mlm_weights.numpy() > 0
        assert used.sum() == (24 if config.generator_kind == "two_tower" else 4)
        log_p = unigram_log_probabilities(counts, vocab_facts)
        losses = -log_p[ids.numpy()[used]]
        if config.generator_kind != "two_tower":  # what was left as it was can be copied
            shown = np.take_along_axis(masked.input_ids.numpy(), masked.positions.numpy(), 1)[used]
            assert (shown == vocab_facts.mask_id).any()
            losses[shown != vocab_facts.mask_id] = 0
        assert found["floor_masked_lm_loss"] == pytest.approx(losses.mean())


# ---- Real evaluations.

@pytest.fixture(scope="module")
def evaluated(real_run, tmp_path_factory):
    """The metrics of an evaluation of the real run, and what it scored: of each token of the corrupted
    text id, label and logit; the ids that were predicted."""
    model_dir = str(tmp_path_factory.mktemp("evaluated") / "run")
    shutil.copytree(real_run.model_dir, model_dir)
    metrics = evaluate_run(*settings_of_run(model_dir, {}), data_dir=real_run.data.data_dir,
                           vocab_dir=model_dir, model_dir=model_dir)
    model, _, run, _ = load_model(model_dir)
    forward = evaluation_forward(model, run.model, run.pretraining.seed)
    dumped: dict[str, list] = {name: [] for name in ("ids", "labels", "logits", "targets", "shown")}
    for inputs in validation_dataset(
            real_run.data.data_dir, load_records_info(real_run.data.data_dir), run.pretraining,
            batch_size=4, global_batch_size=4):
        masked, outputs = forward(inputs)
        tokens = outputs.discriminator_weights.numpy() > 0
        for name, values in (("ids", outputs.corrupted_ids), ("labels", outputs.labels),
                             ("logits", outputs.discriminator_logits)):
            dumped[name].append(values.numpy()[tokens])
        used = masked.weights.numpy() > 0
        dumped["targets"].append(masked.original_ids.numpy()[used])
        dumped["shown"].append(
            np.take_along_axis(masked.input_ids.numpy(), masked.positions.numpy(), 1)[used])
    return model_dir, metrics, {name: np.concatenate(parts) for name, parts in dumped.items()}


def test_floor_equals_scikit_learns_on_the_scores(evaluated, real_run):
    model_dir, metrics, dumped = evaluated
    vocab = load_model(model_dir)[0].vocab
    counts = read_id_counts(real_run.data.data_dir, vocab.size)
    scores = -np.log(counts[dumped["ids"]] + 1.0)
    assert 0 < dumped["labels"].sum() < len(scores) and len(np.unique(scores)) > 10
    expected = roc_auc_score(dumped["labels"], scores)
    assert metrics["floor_disc_auc"] == pytest.approx(expected, abs=1e-9)
    assert metrics["disc_auc"] == pytest.approx(
        roc_auc_score(dumped["labels"], dumped["logits"]), abs=1e-3)
    assert metrics["disc_auc_above_floor"] == pytest.approx(metrics["disc_auc"] - expected)
    assert metrics["floor_disc_accuracy"] == pytest.approx(1 - dumped["labels"].mean())
    losses = -unigram_log_probabilities(counts, vocab)[dumped["targets"]]
    copied = dumped["shown"] == dumped["targets"]
    assert 0.05 < copied.mean() < 0.3  # 15 % of the selected tokens are left as they were
    assert metrics["floor_masked_lm_loss"] == pytest.approx(losses[~copied].sum() / len(losses))


def test_other_records_are_compared_with_the_counts_of_training(evaluated, real_run, tmp_path):
    """Those of the records that are evaluated do not matter, and no others are needed."""
    model_dir, metrics, _ = evaluated
    records = shutil.copytree(real_run.data.data_dir, tmp_path / "records")
    (records / "id_counts.npy").unlink()
    found = evaluate_run(*settings_of_run(model_dir, {}), data_dir=str(records), vocab_dir=model_dir,
                         model_dir=model_dir)
    assert found == pytest.approx(metrics, rel=1e-6)


def test_a_run_without_counts_says_so_and_has_no_floor(evaluated, real_run, tmp_path, capsys):
    model_dir = shutil.copytree(evaluated[0], tmp_path / "run")
    (model_dir / "id_counts.npy").unlink()
    found = evaluate_run(*settings_of_run(str(model_dir), {}), data_dir=real_run.data.data_dir,
                         vocab_dir=str(model_dir), model_dir=str(model_dir))
    assert not [name for name in found if "floor" in name] and "disc_auc" in found
    lines = [line for line in capsys.readouterr().out.splitlines() if "floor" in line]
    assert lines == [f"{model_dir}: no id_counts.npy, the counts of the training records: evaluations "
                     "leave out the floor, what counting tokens reaches"]


# ---- Several replicas and processes.

RUN = dict(num_train_steps=4, restart_steps=(), learning_rate=1e-3, eval_every=2, save_every=4)


@pytest.fixture(scope="module")
def counted_data(tmp_path_factory):
    data = make_data(tmp_path_factory.mktemp("data"))
    np.save(f"{data.data_dir}/id_counts.npy", np.arange(61) ** 2)
    return data


def evaluation_of(model_dir) -> dict:
    lines = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    found, = (line for line in lines if line["kind"] == "evaluation")
    return {name: value for name, value in found.items() if name != "time"}


def test_replicas_and_workers_have_the_floor_of_one(counted_data, tmp_path):
    TrainingProcess(counted_data, tmp_path / "one", MODEL, **RUN).wait()
    TrainingProcess(counted_data, tmp_path / "replicas", MODEL, **RUN, cpu_replicas=2).wait()
    for worker in start_workers(counted_data, [tmp_path / "workers"] * 2, settings=(RUN, RUN)):
        worker.wait()
    expected = evaluation_of(tmp_path / "one")
    assert DISCRIMINATOR | {"floor_masked_lm_loss"} <= expected.keys()
    for name in ("replicas", "workers"):
        found = evaluation_of(tmp_path / name)
        assert {key: value for key, value in found.items() if key.startswith("floor_")} == pytest.approx(
            {key: value for key, value in expected.items() if key.startswith("floor_")}, rel=1e-9), name
        assert found["disc_auc_above_floor"] == found["disc_auc"] - found["floor_disc_auc"]


def test_records_without_counts_are_said_once_and_train_all_the_same(tmp_path):
    printed = TrainingProcess(make_data(tmp_path / "data"), tmp_path / "run", **RUN).wait()
    assert printed.count("no id_counts.npy") == 1
    assert "floor" not in printed.split("evaluation at step 2")[1]
