"""Configuration: one owner per setting, the table of sizes, and one clear line for what is wrong."""

import dataclasses
import json

import pytest

from electra_es.config import (
    CONFIG_CLASSES,
    MODEL_SIZES,
    ModelConfig,
    PretrainingConfig,
    TextConfig,
    from_dict,
    model_config,
    owner_of,
    parse_value,
    to_json,
)
from electra_es.errors import UsageError


def test_every_setting_has_one_owner_and_a_help_text():
    owners = [(field.name, cls) for cls in CONFIG_CLASSES for field in dataclasses.fields(cls)]
    assert len({name for name, _ in owners}) == len(owners)
    for name, cls in owners:
        assert owner_of(name) is cls
        assert cls.__dataclass_fields__[name].metadata["help"].endswith(".")


@pytest.mark.parametrize("size, shape, generator", [
    # layers, H, heads, feed-forward, E; generator's width, heads, feed-forward
    ("small", (12, 256, 4, 1024, 256), (64, 1, 256)),  # SELECTRA's model card
    ("medium", (12, 384, 6, 1536, 384), (96, 1, 384)),
    ("base", (12, 768, 12, 3072, 768), (256, 4, 1024)),  # paper, table 6
    ("large", (24, 1024, 16, 4096, 1024), (256, 4, 1024)),
])
def test_published_sizes(size, shape, generator):
    c = model_config({"model_size": size})
    assert (c.num_layers, c.hidden_size, c.num_heads, c.intermediate_size, c.embedding_size) == shape
    assert (c.generator_hidden_size, c.generator_num_heads,
            c.generator_intermediate_size) == generator
    assert c.generator_num_layers == c.num_layers
    assert c.max_position_embeddings == 512
    assert set(MODEL_SIZES) == {"debug", "small", "medium", "base", "large"}


def test_defaults_are_the_recipes():
    """Original: `configure_pretraining.PretrainingConfig`, paper table 6."""
    m, p = ModelConfig(), PretrainingConfig()
    assert (m.mask_prob, m.replace_prob, m.generator_weight, m.discriminator_weight) == (
        0.15, 0.85, 1.0, 50.0)
    assert (m.hidden_dropout, m.attention_dropout, m.initializer_range, m.layer_norm_epsilon) == (
        0.1, 0.1, 0.02, 1e-12)
    assert (m.temperature, m.disallow_correct, m.objective, m.embedding_sharing) == (
        1.0, False, "electra", "tied")
    assert (p.adam_beta1, p.adam_beta2, p.adam_epsilon, p.weight_decay, p.clip_norm) == (
        0.9, 0.999, 1e-6, 0.01, 1.0)
    assert (p.learning_rate, p.lr_decay_power, p.lr_schedule) == (5e-4, 1.0, "linear")


def test_overrides_come_on_top_of_the_size():
    c = model_config({"model_size": "small", "embedding_size": 128})
    assert (c.embedding_size, c.hidden_size) == (128, 256)


@pytest.mark.parametrize("values, message", [
    (dict(mask_prob=0.0), "mask_prob=0.0: expected a share above 0"),
    (dict(mask_prob=float("nan")), "mask_prob=nan: expected a number"),
    (dict(hidden_size=25), "hidden_size=25: expected a multiple of num_heads=2"),
    (dict(num_layers=0), "num_layers=0: expected a positive number"),
    (dict(num_layers=3.0), "num_layers=3.0: expected a value of type int"),
    (dict(num_layers=True), "num_layers=True: expected a value of type int"),
    (dict(hidden_dropout=1.0), "hidden_dropout=1.0: expected a share from 0 to below 1"),
    (dict(temperature=0.0), "temperature=0.0: expected a positive number"),
    (dict(max_predictions=-1), "max_predictions=-1: expected 0 or more"),
    (dict(generator_heads=5), "generator_heads=5: expected a divisor of the generator's"),
    (dict(objective="electrc"), r'expected one of .*electric; did you mean "electric"\?'),
    (dict(objective="electric"), "generator_kind='masked_lm': expected two_tower"),
    (dict(objective="mlm", generator_kind="uniform"), "generator_kind='uniform': expected masked_lm"),
    (dict(objective="electric", generator_kind="two_tower", mask_prob=1.0),
     "mask_prob=1.0: expected below 1 with objective"),
    (dict(masking="whole_words"), 'did you mean "whole_word"'),
    (dict(hiden_size=24), 'unknown setting "hiden_size" of ModelConfig; did you mean "hidden_size"'),
])
def test_what_is_wrong_with_a_model_is_one_line(values, message):
    with pytest.raises(UsageError, match=message) as error:
        from_dict(ModelConfig, values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("values, message", [
    (dict(train_batch_size=0), "train_batch_size=0: expected a positive number"),
    (dict(train_batch_size=32, accumulation_steps=5), "a multiple of accumulation_steps=5"),
    (dict(learning_rate=-1.0), "learning_rate=-1.0: expected a positive number"),
    (dict(learning_rate=float("inf")), "learning_rate=inf: expected a number"),
    (dict(adam_beta2=1.0), "adam_beta2=1.0: expected a share"),
    (dict(restart_steps=[5, 5]), r"restart_steps=\(5, 5\): expected increasing steps"),
    (dict(restart_steps=[1000]), r"between 0 and num_train_steps=1000"),
    (dict(restart_steps=[1.5]), r"restart_steps=\(1.5,\): expected whole numbers"),
    (dict(max_seq_length=7), "max_seq_length=7: expected at least 8"),
    (dict(precision="float16"), "precision='float16': expected one of float32, bfloat16"),
])
def test_what_is_wrong_with_a_run_is_one_line(values, message):
    with pytest.raises(UsageError, match=message):
        from_dict(PretrainingConfig, values)


def test_wrong_text_settings_and_sizes():
    with pytest.raises(UsageError, match="vocab_size=5: expected more than 5"):
        TextConfig(vocab_size=5)
    with pytest.raises(UsageError, match='model_size="smal": .*did you mean "small"'):
        model_config({"model_size": "smal"})


def test_json_there_and_back():
    model = ModelConfig(generator_width=1 / 3, embedding_sharing="untied")
    run = PretrainingConfig(restart_steps=(10, 20), learning_rate=1e-3)
    text = to_json(model=model, pretraining=run)
    values = json.loads(text)
    assert from_dict(ModelConfig, values["model"]) == model
    assert from_dict(PretrainingConfig, values["pretraining"]) == run
    assert text == to_json(model=model, pretraining=run) and text.endswith("}\n")


@pytest.mark.parametrize("key, text, expected", [
    ("num_layers", "7", 7), ("mask_prob", "0.2", 0.2), ("learning_rate", "3e-4", 3e-4),
    ("lower_case", "True", True), ("lower_case", "0", False), ("objective", "mlm", "mlm"),
    ("restart_steps", "150_000,200000", (150_000, 200_000)), ("restart_steps", "", ()),
])
def test_values_from_text(key, text, expected):
    found = parse_value(key, text)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize("key, text, message", [
    ("num_layers", "7.5", "num_layers=7.5: expected a whole number"),
    ("mask_prob", "viel", "mask_prob=viel: expected a number"),
    ("lower_case", "yes", "lower_case=yes: expected true or false"),
    ("restart_steps", "1,x", "restart_steps=1,x: expected comma-separated whole numbers"),
    ("learning_rat", "1", 'unknown setting "learning_rat"; did you mean "learning_rate"'),
])
def test_wrong_values_from_text(key, text, message):
    with pytest.raises(UsageError, match=message):
        parse_value(key, text)


@pytest.mark.parametrize("steps, stop, last", [(100, 0, 100), (100, 40, 40), (100, 400, 100)])
def test_last_step(steps, stop, last):
    assert PretrainingConfig(num_train_steps=steps, stop_at_step=stop).last_step == last
