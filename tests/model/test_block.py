"""The block's written gradients against derived ones, and the rate of dropout."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from electra_es.config import ModelConfig
from electra_es.model.attention import attention, attention_probabilities
from electra_es.model.block import layer_norm
from electra_es.model.dropout import Draws, Dropout, dropout_seed, kept_entries
from electra_es.model.fused import fusing
from electra_es.model.gelu import gelu, gelu_and_derivative, gelu_of_sum
from electra_es.model.kept import kept_as, with_kept_derivative
from electra_es.model.products import positions_first, positions_last, product
from electra_es.model.sampling import cross_entropy, softmax_of

B, N, D, L = 2, 3, 4, 5


DRAWS = Draws(tf.random.stateless_uniform([1, N, L, L], [10, 7], None, None, tf.uint32),
              tf.range(80, 80 + L))  # about a third is dropped


def normal(seed: int, *shape: int) -> tf.Tensor:
    return tf.random.stateless_normal(shape, [seed, 7])


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_gradient_of_attention(rate):
    """Equal to what TensorFlow derives from the formula with the same mask."""
    query, key, value, upstream = (normal(i, B, N, D, L) for i in range(4))
    bias = tf.constant([[0.0] * L, [0.0] * (L - 1) + [-1e9]])[:, tf.newaxis, tf.newaxis]
    draws, scale = DRAWS if rate else None, 1 / (1 - rate)

    def by_formula():
        probabilities = attention_probabilities(query, key, bias)
        if draws is not None:
            probabilities *= tf.cast(kept_entries(draws, B), tf.float32) * scale
        return tf.einsum("bnqk,bndk->bndq", probabilities, value)

    with tf.GradientTape(persistent=True) as tape:
        tape.watch([query, key, value])
        found, expected = attention(query, key, value, bias, draws, scale), by_formula()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for x in (query, key, value):
        np.testing.assert_allclose(tape.gradient(found, x, upstream),
                                   tape.gradient(expected, x, upstream), atol=2e-6)


@pytest.mark.parametrize("epsilon", [1e-12, 0.3])
def test_layer_norm_and_its_gradient(epsilon):
    """In training equal to Keras' layer and what TensorFlow derives of it."""
    layer = layer_norm(ModelConfig(layer_norm_epsilon=min(epsilon, 0.1)), "norm")
    layer.build([B, L, 6])
    layer.epsilon = epsilon
    layer.gamma.assign(normal(1, 6))
    layer.beta.assign(normal(2, 6))
    x, upstream = 3 * normal(3, B, L, 6) + 2, normal(4, B, L, 6)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        found, expected = layer(x, training=True), layer(x)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    for source in (x, layer.gamma, layer.beta):
        np.testing.assert_allclose(tape.gradient(found, source, upstream),
                                   tape.gradient(expected, source, upstream), atol=1e-5)


def test_gradient_of_dropout_has_its_mask():
    layer, x, upstream = Dropout(0.4, 3), normal(1, 6, 50) + 3, normal(2, 6, 50)
    with dropout_seed(tf.constant([5, 6])), tf.GradientTape() as tape:
        tape.watch(x)
        found = layer(x, training=True)
    factor = np.where(found.numpy() != 0, np.float32(layer.scale), 0)
    np.testing.assert_allclose(found, x * factor)
    np.testing.assert_allclose(tape.gradient(found, x, upstream), upstream * factor)
    assert 0 < (factor == 0).sum() < factor.size


@pytest.mark.parametrize(("kept_type", "tolerance"), [(tf.float32, 3e-6), (tf.bfloat16, 0.03)])
def test_attention_and_gelu_with_kept_arrays(kept_type, tolerance):
    """What an accelerator computes, with XLA, equals what is computed without kept arrays."""
    query, key, value, upstream = (normal(i, B, N, D, L) for i in range(4))
    bias = tf.constant([[0.0] * L, [0.0] * (L - 1) + [-1e9]])[:, tf.newaxis, tf.newaxis]
    # The mask is transposed where arrays are kept: draws that are symmetric.
    rows = DRAWS.bits[..., :1]
    draws = Draws(tf.bitwise.bitwise_xor(rows, tf.linalg.matrix_transpose(rows)), tf.fill([L], 80))

    def run(dtype, activation) -> list[tf.Tensor]:
        with tf.GradientTape() as tape, kept_as(dtype):
            tape.watch([query, key, value])
            found = activation(attention(query, key, value, bias, draws, 1.6))
        return [found, *tape.gradient(found, [query, key, value], upstream)]

    gelu_with_derivative = with_kept_derivative(gelu_and_derivative)
    found = tf.function(lambda: run(kept_type, gelu_with_derivative), jit_compile=True,
                        autograph=False)()
    assert found[0].dtype == kept_type  # so that it really was kept
    for one, other in zip(found, run(None, gelu), strict=True):
        np.testing.assert_allclose(tf.cast(one, tf.float32), other, atol=tolerance)


def with_gradients(of: str, function, sources, upstream, on: bool) -> list[tf.Tensor]:
    """Value and gradients in a compiled function, with fused work or without."""
    def run() -> list[tf.Tensor]:
        with fusing(on), tf.GradientTape() as tape:
            tape.watch(sources)
            found = function(*sources)
            return [found, *tape.gradient(found, sources, upstream)]

    compiled = tf.function(run, autograph=False).get_concrete_function()
    names = compiled.graph.as_graph_def().library.function
    if of not in ("positions last", "product"):
        assert any("_XlaMustCompile" in f.attr for f in names) == on  # so that it was really fused
    return compiled()


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("dtype, tolerance", [(tf.float32, 1e-6), (tf.bfloat16, 0.03)])
@pytest.mark.parametrize("of", [
    "attention", "gelu", "norm", "positions last", "product", "vocabulary"])
def test_fused_work_equals_single_operations(of, dtype, tolerance, rate):
    """Values and gradients, with a batch that is no multiple of 4 and one mask of dropout. GELU and the
    norm have thousands of rows, whose gradients have a mean: their sum in bfloat16 would be wrong."""
    batch = 1025 if of in ("gelu", "norm") else B
    x, y = (tf.cast(normal(i, batch, L, 6), dtype) for i in (1, 2))
    kernel = tf.cast(normal(5, 6, 6), dtype)
    norm, dropout = layer_norm(ModelConfig(), "norm"), Dropout(rate, 3)
    norm.build(x.shape)
    norm.gamma.assign(normal(3, 6))
    bias = tf.constant([[0.0] * L, [0.0] * (L - 1) + [-1e9]])[:, tf.newaxis, tf.newaxis]

    def sum_of(x, y, bias):
        with dropout_seed(tf.constant([5, 6])):
            return norm.of_sum(x, y, bias, dropout, training=True)

    def heads(*sources):
        return attention(*sources, bias, DRAWS if rate else None, 1 / (1 - rate))

    def loss_of(logits):
        softmax = softmax_of(logits)
        return cross_entropy(logits, tf.constant([[1, 0, 5, 2, 2]] * B), softmax.log_partition)

    function, sources = {
        "attention": (heads, [tf.cast(normal(i, B, N, D, L), dtype) for i in range(3)]),
        "gelu": (gelu_of_sum, [x, y[0, 0]]), "norm": (sum_of, [x, y, y[0, 0]]),
        "positions last": (lambda *of: positions_first(positions_last(*of), of[1]), [x, kernel]),
        "product": (lambda *of: product(product(*of[:2]), of[2]), [x, kernel[:, :4], kernel[:4]]),
        "vocabulary": (loss_of, [tf.cast(x, tf.float32)])}[of]
    example = function(*sources)
    upstream = tf.cast(normal(4, *example.shape) + 0.5, example.dtype)
    in_float32 = [tf.cast(source, tf.float32) for source in sources]
    for found, expected in zip(
            with_gradients(of, function, sources, upstream, True),
            with_gradients(of, function, in_float32, tf.cast(upstream, tf.float32), False), strict=True):
        error = tf.norm(tf.cast(found, tf.float32) - expected) / tf.norm(expected)
        assert float(error) < tolerance


def test_layer_norm_for_an_accelerator():
    """Value and gradients equal Keras' layer but for cancellation, with a mean of three deviations."""
    layer = layer_norm(ModelConfig(), "norm")
    x = normal(1, B, L, 6) + tf.constant([3.0, -0.5])[:, tf.newaxis, tf.newaxis]
    upstream = normal(2, B, L, 6)
    layer.build(x.shape)
    layer.gamma.assign(normal(3, 6))

    def run(dtype) -> list[tf.Tensor]:
        with tf.GradientTape() as tape, kept_as(dtype):
            tape.watch(x)
            found = layer(x)
        return [found, *tape.gradient(found, [x, layer.gamma, layer.beta], upstream)]

    found = tf.function(lambda: run(tf.bfloat16), jit_compile=True, autograph=False)()
    for one, other in zip(found, run(None), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)


def test_cross_entropy_and_its_gradient():
    logits, upstream = 3 * normal(1, 2, 3, 11), normal(2, 2, 3)
    ids = tf.constant([[0, 10, 4], [5, 5, 1]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        found = cross_entropy(logits, ids, softmax_of(logits).log_partition)
        expected = tf.nn.sparse_softmax_cross_entropy_with_logits(ids, logits)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(found, logits, upstream),
                               tape.gradient(expected, logits, upstream), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("rate", [0.003, 0.1, 0.37, 0.9])
def test_dropout_keeps_the_share_and_the_expectation(batch, rate):
    layer = Dropout(rate, 3)
    with dropout_seed(tf.constant([5, 6])):
        found = layer(tf.ones([batch, 600, 200]), training=True).numpy()
    assert set(np.unique(found)) <= {0.0, np.float32(layer.scale)}
    share = 1 / layer.scale
    deviation = np.sqrt(share * (1 - share) / found.size)
    assert abs((found > 0).mean() - share) < 5 * deviation
    assert share == pytest.approx(1 - rate, abs=1e-5)


def test_halves_of_the_batch_have_masks_of_their_own():
    with dropout_seed(tf.constant([5, 6])):
        kept = Dropout(0.5, 3).kept([6, 40, 50]).numpy()
    first, second = kept[:3], kept[3:]
    assert 0.45 < (first == second).mean() < 0.55


def test_examples_have_masks_of_their_own():
    with dropout_seed(tf.constant([5, 6])):
        kept = Dropout(0.5, 3).kept([8, 40, 50]).numpy()
    for one, other in itertools.combinations(kept, 2):
        assert 0.45 < (one == other).mean() < 0.55


def test_every_column_is_dropped_at_some_step():
    """With a rate of less than a level, too: which columns have the higher threshold changes."""
    dropped = np.zeros(200, bool)
    for step in range(40):
        with dropout_seed(tf.constant([5, step])):
            dropped |= ~Dropout(0.002, 3).kept([4, 600, 200]).numpy().all(axis=(0, 1))
    assert dropped.all()
