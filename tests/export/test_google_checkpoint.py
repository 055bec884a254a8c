"""The table of canonical names, and the import of TF1 checkpoints on top of it."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from electra_es.config import SPECIAL_TOKENS, TextConfig
from electra_es.errors import UsageError
from electra_es.export.google_checkpoint import (
    import_google_checkpoint,
    infer_model_config,
    read_checkpoint,
)
from electra_es.model.encoder import Embeddings
from electra_es.model.pretrainer import build_pretrainer
from electra_es.model.variables import (
    get_resolved_weights,
    get_weights,
    named_variables,
    set_weights,
)
from electra_es.training.run_dir import load_model

HEADS = dict(num_heads=3, generator_heads=2)


def write_tf1_checkpoint(prefix, arrays):
    """What TF1's Saver writes: names and values, no objects."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, array in arrays.items():
            tf.compat.v1.get_variable(name, initializer=array, use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(prefix), write_meta_graph=False)


@pytest.fixture(scope="module")
def vocab_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    pieces = [*SPECIAL_TOKENS, *(chr(ord("a") + i) for i in range(26)),
              *(f"##{chr(ord('a') + i)}" for i in range(26)), "á", "é", "í", "ñ"]
    assert len(pieces) == 61
    path.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, golden_weights):
    """The golden variables as after training, with moments and a step."""
    arrays = {name: np.array(array) for name, array in golden_weights.items()}
    for name in golden_weights:
        arrays[f"{name}/adam_m"] = arrays[f"{name}/adam_v"] = np.ones(3, np.float32)
    arrays["global_step"] = np.int64(1234)
    arrays["generator_predictions/temperature"] = np.float32(1.0)
    prefix = tmp_path_factory.mktemp("tf1") / "model.ckpt-1234"
    write_tf1_checkpoint(prefix, arrays)
    return str(prefix)


@pytest.fixture(scope="module")
def imported(tmp_path_factory, checkpoint, vocab_file):
    output = str(tmp_path_factory.mktemp("import") / "model")
    import_google_checkpoint(checkpoint, vocab_file, output,
                             text=TextConfig(lower_case=True), overrides=HEADS)
    return output


def test_imported_weights_and_configuration(imported, golden_weights):
    model, tokenizer, run, step = load_model(imported)
    weights = get_weights(model)
    assert set(weights) == set(golden_weights)
    for name, array in golden_weights.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)
    assert step == 1234
    assert tokenizer.config.lower_case and tokenizer.config.vocab_size == 61
    shape = (run.model.embedding_size, run.model.hidden_size, run.model.num_layers,
             run.model.intermediate_size, run.model.max_position_embeddings)
    assert shape == (12, 24, 3, 40, 17)
    assert run.model.generator_hidden_size == 8


def test_imported_model_computes_the_originals_outputs(imported, golden, golden_batch):
    model, *_ = load_model(imported)
    inputs, masked, sampled_ids = golden_batch
    outputs = model(inputs, masked, sampled_ids=sampled_ids)
    np.testing.assert_allclose(outputs.discriminator_logits, golden["out/disc_logits"], atol=3e-6)
    np.testing.assert_allclose(outputs.mlm_logits, golden["out/mlm_logits"], atol=3e-6)


def test_an_existing_directory_is_kept(imported, checkpoint, vocab_file):
    before = os.stat(os.path.join(imported, "config.json")).st_mtime_ns
    with pytest.raises(UsageError, match="exists already"):
        import_google_checkpoint(checkpoint, vocab_file, imported, text=TextConfig(),
                                 overrides=HEADS)
    assert os.stat(os.path.join(imported, "config.json")).st_mtime_ns == before


@pytest.mark.parametrize("spoil, message", [
    (lambda w: w.pop("electra/encoder/layer_1/output/dense/bias"),
     "missing electra/encoder/layer_1/output/dense/bias: expected every"),
    (lambda w: w.update({"task_specific/kernel": np.ones(2, np.float32)}),
     "unknown task_specific/kernel: expected only"),
    (lambda w: w.update({"generator_predictions/output_bias": np.ones(60, np.float32)}),
     r"generator_predictions/output_bias has shape \[60\]: expected \[61\]"),
    (lambda w: w.update({"generator/embeddings_project/bias": np.full(8, np.nan, np.float32)}),
     "generator/embeddings_project/bias holds values of type float32, not all"),
    (lambda w: w.pop("electra/embeddings/position_embeddings"),
     "no electra/embeddings/position_embeddings: expected a checkpoint of google"),
])
def test_what_does_not_fit_is_named_and_nothing_written(
        spoil, message, golden_weights, vocab_file, tmp_path):
    arrays = dict(golden_weights)
    spoil(arrays)
    write_tf1_checkpoint(tmp_path / "ckpt", arrays)
    with pytest.raises(UsageError, match=message) as error:
        import_google_checkpoint(str(tmp_path / "ckpt"), vocab_file, str(tmp_path / "out"),
                                 text=TextConfig(), overrides=HEADS)
    assert "\n" not in str(error.value)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_unreadable_checkpoints(tmp_path, checkpoint, vocab_file):
    with pytest.raises(UsageError, match=r"--checkpoint=.*none: not a checkpoint"):
        read_checkpoint(str(tmp_path / "none"))
    for suffix in (".index", ".data-00000-of-00001"):
        data = pathlib.Path(checkpoint + suffix).read_bytes()
        (tmp_path / f"cut{suffix}").write_bytes(data[:len(data) // 2] if "data" in suffix else data)
    with pytest.raises(UsageError, match=r"--checkpoint=.*cut: not a checkpoint"):
        read_checkpoint(str(tmp_path / "cut"))


def test_vocabulary_of_another_size(tmp_path, checkpoint, vocab_file):
    short = tmp_path / "short.txt"
    short.write_text("\n".join(pathlib.Path(vocab_file).read_text("utf-8").split("\n")[:60]))
    with pytest.raises(UsageError, match=r"short.txt: 60 pieces: expected the 61 that"):
        import_google_checkpoint(checkpoint, str(short), str(tmp_path / "out"),
                                 text=TextConfig(), overrides=HEADS)
    short.write_text("[PAD]\n[UNK]\n\n")
    with pytest.raises(UsageError, match=r"short.txt:3: empty line"):
        import_google_checkpoint(checkpoint, str(short), str(tmp_path / "out"),
                                 text=TextConfig(), overrides=HEADS)


VARIANTS = [
    dict(), dict(embedding_sharing="untied"), dict(generator_kind="shared"),
    dict(generator_kind="uniform"), dict(objective="mlm", generator_kind="shared"),
    dict(objective="electric", generator_kind="two_tower"),
    dict(generator_depth=2 / 3, embedding_size=24, intermediate_size=96),
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_configuration_inferred_from_shapes_builds_the_same_variables(
        settings, tiny_config, vocab_facts):
    config = tiny_config(**settings)
    views = named_variables(build_pretrainer(config, vocab_facts))
    inferred = infer_model_config({name: view.shape for name, view in views.items()}, "x", HEADS)
    for name in ("objective", "generator_kind", "embedding_sharing", "embedding_size",
                 "hidden_size", "num_layers", "intermediate_size", "max_position_embeddings",
                 "generator_hidden_size", "generator_num_layers", "type_vocab_size"):
        if config.generator_kind == "uniform" and name.startswith("generator_"):
            continue
        assert getattr(inferred, name) == getattr(config, name), name
    rebuilt = named_variables(build_pretrainer(inferred, vocab_facts))
    assert {n: v.shape for n, v in rebuilt.items()} == {n: v.shape for n, v in views.items()}


@pytest.mark.parametrize("embedding, hidden, ffn, layers, generator, name, heads", [
    (128, 256, 1024, 12, 64, "small", 4),  # Google's small, the paper's generator
    (128, 256, 1024, 12, 256, "small", 4),  # the one that Google released
    (384, 384, 1536, 12, 96, "medium", 6),
    (768, 768, 3072, 12, 256, "base", 12),
    (1024, 1024, 4096, 24, 256, "large", 16),
])
def test_published_sizes_are_recognised(embedding, hidden, ffn, layers, generator, name, heads):
    shapes = {"electra/embeddings/word_embeddings": (30522, embedding),
              "electra/embeddings/position_embeddings": (512, embedding),
              "electra/embeddings/token_type_embeddings": (2, embedding),
              "discriminator_predictions/dense/kernel": (hidden, hidden)}
    for i in range(layers):
        shapes[f"electra/encoder/layer_{i}/intermediate/dense/kernel"] = (hidden, ffn)
        shapes[f"generator/encoder/layer_{i}/intermediate/dense/kernel"] = (
            generator, 4 * generator)
    config = infer_model_config(shapes, "x", {})
    assert (config.model_size, config.num_heads) == (name, heads)
    assert config.generator_hidden_size == generator
    assert config.generator_num_heads == max(1, generator // 64)
    assert config.generator_num_layers == layers


def test_discriminator_alone_keeps_the_generators_values(tiny_config, vocab_facts, golden_weights):
    model = build_pretrainer(tiny_config(), vocab_facts)
    before = get_weights(model)
    only = {name: array for name, array in golden_weights.items()
            if name.startswith(("electra/", "discriminator_predictions/"))}
    with pytest.raises(UsageError, match="missing generator/"):
        set_weights(model, only, "x")
    kept = set_weights(model, only, "x", require="discriminator")
    after = get_weights(model)
    assert set(kept) == set(golden_weights) - set(only) and len(kept) == 55
    for name in golden_weights:
        np.testing.assert_array_equal(after[name], before[name] if name in kept else only[name])


def test_deltas_are_resolved_to_the_tables_that_ids_are_looked_up_in(tiny_config, vocab_facts):
    config = tiny_config(embedding_sharing="gradient_disentangled")
    model = build_pretrainer(config, vocab_facts)
    random = np.random.default_rng(5)
    set_weights(model, {name: random.normal(size=view.shape).astype("f")
                        for name, view in named_variables(model).items()}, "x")
    weights = get_resolved_weights(model)
    assert not [name for name in weights if "delta" in name]
    plain = Embeddings(config, 61, 12, "plain", 0)
    ids = tf.constant([[2, 17, 60, 3]])
    segments = tf.constant([[0, 0, 1, 1]])
    plain(ids, segments)
    plain.set_weights([weights[f"electra/embeddings/{n}"] for n in (
        "word_embeddings", "token_type_embeddings", "position_embeddings", "LayerNorm/gamma",
        "LayerNorm/beta")])
    np.testing.assert_allclose(plain(ids, segments), model.embeddings(ids, segments), atol=1e-6)
