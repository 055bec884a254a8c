"""Fixtures for many tests. All toy sizes differ, so that a swapped axis is noticed."""

import os

from paths import GOLDEN, ROOT

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
import pathlib
import signal

import builder_helpers
import numpy as np
import pytest
import tensorflow as tf

from data_prep.build import tasks as pipeline_tasks
from electra_es.config import ModelConfig
from electra_es.model.batches import Inputs, MaskedInputs, VocabularyFacts
from electra_es.model.pretrainer import build_pretrainer
from electra_es.model.variables import set_weights

TINY = dict(embedding_size=12, hidden_size=24, num_layers=3, num_heads=3, intermediate_size=40,
            max_position_embeddings=17, generator_width=1 / 3, generator_heads=2)


# A shell starts a command with "&" so that it and its children ignore Ctrl-C. Some tests send that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser) -> None:
    parser.addoption("--walk", action="store_true", help="walk every variant of the road (make walk)")


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """Real data outside the repository; a user's checkout does not have it."""
    path = pathlib.Path(os.environ.get("ELECTRA_ES_SHARED", ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no shared data at {path}")
    return path


@pytest.fixture(scope="session")
def vocab_facts() -> VocabularyFacts:
    """[PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, and 56 pieces; every third continues a word."""
    return VocabularyFacts(size=61, pad_id=0, cls_id=2, sep_id=3, mask_id=4,
                           word_starts=np.arange(61) % 3 != 2)


@pytest.fixture(scope="session")
def tiny_config():
    """`tiny_config(setting=value, ...)`: the golden model's configuration with other settings."""
    def make(**settings) -> ModelConfig:
        return ModelConfig(**{**TINY, **settings})

    return make


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Numbers of the original implementation (tests/golden/README.md)."""
    with np.load(GOLDEN / "electra_tiny.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def golden_weights(golden) -> dict[str, np.ndarray]:
    """Canonical name -> initial value, in the original's order of creation."""
    names = json.loads(str(golden["config_json"]))["variable_names"]
    return {name: golden[f"init/{name}"] for name in names}


@pytest.fixture(scope="session")
def golden_batch(golden) -> tuple[Inputs, MaskedInputs, tf.Tensor]:
    """The golden inputs, their masked tokens, and the generator's fixed samples."""
    fields = {name.removeprefix("inputs/"): tf.constant(array)
             for name, array in golden.items() if name.startswith("inputs/")}
    inputs = Inputs(fields["input_ids"], fields["input_mask"], fields["segment_ids"],
                    tf.range(3, dtype=tf.int64))
    masked = MaskedInputs(fields["masked_input_ids"], fields["masked_lm_positions"],
                          fields["masked_lm_ids"], fields["masked_lm_weights"])
    return inputs, masked, fields["sampled_token_ids"]


@pytest.fixture(scope="session")
def golden_model(tiny_config, vocab_facts, golden_weights):
    """`golden_model(setting=value, ...)`: a fresh model with the golden initial weights."""
    def make(**settings):
        model = build_pretrainer(tiny_config(**settings), vocab_facts)
        set_weights(model, golden_weights, "golden")
        return model

    return make


# For the tests of the builder; modules with a smaller vocabulary of their own override it.

@pytest.fixture(scope="session")
def vocab_dir(tmp_path_factory) -> str:
    return builder_helpers.make_vocabulary(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> pathlib.Path:
    return builder_helpers.make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def real_run(tmp_path_factory, corpus, vocab_dir):
    """A real run; tests must not write into its directory."""
    from real_run import make_real_run
    return make_real_run(tmp_path_factory.mktemp("real"), corpus, vocab_dir)


@pytest.fixture
def small_tasks(monkeypatch):
    monkeypatch.setattr(pipeline_tasks, "TASK_BYTES", builder_helpers.TASK_BYTES)
