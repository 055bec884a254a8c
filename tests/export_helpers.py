"""Small models with real vocabularies, and real sentences, for the tests of exports."""

import atexit
import functools
import pathlib
import re
import shutil
import tempfile

import numpy as np
import tensorflow as tf
from paths import SAMPLE

from data_prep.train_vocabulary import train_vocabulary
from electra_es.config import ModelConfig, PretrainingConfig, TextConfig
from electra_es.export.huggingface.write import export_huggingface
from electra_es.export.saved_model.text_model import TextModel, usable_length
from electra_es.export.saved_model.write import export_saved_model
from electra_es.model.pretrainer import ElectraPretrainer, build_pretrainer
from electra_es.model.variables import named_variables
from electra_es.run_config import Run
from electra_es.text.tokenizer import Tokenizer, load_tokenizer
from electra_es.training.checkpoints import Checkpoints
from electra_es.training.run_dir import load_model, prepare_model_dir, vocabulary_facts

MAX_LENGTH = 53
SHAPE = dict(embedding_size=12, hidden_size=24, num_layers=2, num_heads=3, intermediate_size=40,
             max_position_embeddings=59, generator_width=1 / 3, generator_depth=0.5, generator_heads=2)

# Kind of vocabulary, its trainer, and both accent settings of each kind.
VARIANTS = {
    "wordpiece": (TextConfig(vocab_size=611), "bpe"),
    "wordpiece_stripped": (TextConfig(vocab_size=611, strip_accents=True), "bpe"),
    "sentencepiece": (TextConfig(tokenizer="sentencepiece", vocab_size=611), "bpe"),
    "sentencepiece_stripped": (TextConfig(
        tokenizer="sentencepiece", vocab_size=611, strip_accents=True, lower_case=True), "unigram"),
}

_root = pathlib.Path(tempfile.mkdtemp(prefix="electra-es-tests-"))
atexit.register(shutil.rmtree, _root, ignore_errors=True)


@functools.cache
def sentences() -> list[str]:
    """200 sentences of the bundled sample, from all its files; some are longer than the models."""
    found: list[str] = []
    for path in sorted(SAMPLE.glob("*/*.txt")):
        text = " ".join(path.read_text(encoding="utf-8").split())
        found += [s for s in re.split(r"(?<=[.!?…»])\s+", text) if len(s) > 3]
    chosen = found[::len(found) // 200][:200]
    assert len(chosen) == 200 and len(set(chosen)) == 200
    return chosen


@functools.cache
def vocabulary_dir(variant: str) -> pathlib.Path:
    config, model_type = VARIANTS[variant]
    documents = [text for path in sorted(SAMPLE.glob("train/*.txt"))
                 for text in path.read_text(encoding="utf-8").split("\n\n")]
    return train_vocabulary(documents, _root / "vocabularies" / variant, config, model_type=model_type,
                            held_out=documents[:3])


def write_model_dir(target: pathlib.Path, variant: str, seed: int = 20, random: bool = True,
                    **settings) -> pathlib.Path:
    """A model directory whose weights are all random, including LayerNorm and biases, or (random=False)
    as they are when pretraining begins."""
    if not random:
        tf.random.set_seed(seed)
    tokenizer = load_tokenizer(vocabulary_dir(variant))
    config = ModelConfig(**{**SHAPE, **settings})
    pretraining = PretrainingConfig(max_seq_length=MAX_LENGTH)
    prepare_model_dir(str(target), tokenizer, str(vocabulary_dir(variant)), config, pretraining)
    model = build_pretrainer(config, vocabulary_facts(tokenizer))
    rng = np.random.default_rng(seed)
    for name, view in named_variables(model).items() if random else ():
        spread = rng.normal(0.0, 0.3, view.shape).astype(np.float32)
        view.assign(1 + spread if name.endswith("gamma") else spread)
    Checkpoints(str(target), tf.train.Checkpoint(model=model), keep=1, keep_every=0).save(7, 70)
    return target


@functools.cache
def model_dir(variant: str) -> pathlib.Path:
    """The model directory of a variant. All tests share it and must not write into it."""
    return write_model_dir(_root / "models" / variant, variant)


@functools.cache
def exports_dir() -> pathlib.Path:
    """The WordPiece model as `saved_model` and `published`. All tests share it and must not write into
    it."""
    root = _root / "exports"
    export_saved_model(str(model_dir("wordpiece")), str(root / "saved_model"))
    export_huggingface(str(model_dir("wordpiece")), str(root / "published"))
    return root


def loaded(variant: str) -> tuple[ElectraPretrainer, Tokenizer, Run]:
    """The model, tokeniser and configuration of `model_dir(variant)`; tests must not change them.

    Made anew for SentencePiece, whose models in memory do not survive `tf.random.set_seed`, which
    any other test may call.
    """
    return (_load if variant.startswith("sentencepiece") else _load_once)(variant)


def _load(variant: str) -> tuple[ElectraPretrainer, Tokenizer, Run]:
    return load_model(str(model_dir(variant)))[:3]


_load_once = functools.cache(_load)


@functools.cache
def our_scores(variant: str) -> dict[str, np.ndarray]:
    """Scores of `sentences()` from the eager model and the tokeniser of training, without the exported
    code."""
    model, tokenizer, run = loaded(variant)
    rows = [[tokenizer.cls_id, *ids[:usable_length(run) - 2], tokenizer.sep_id]
            for ids in tokenizer.encode_batch(sentences())]
    length = max(map(len, rows))
    ids = np.array([row + [tokenizer.pad_id] * (length - len(row)) for row in rows], np.int32)
    mask = np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows], np.int32)
    logits = model.discriminator_logits(tf.constant(ids), tf.constant(mask), tf.zeros_like(ids))
    assert np.std(logits.numpy()[mask > 0]) > 0.3, "logits too alike for a comparison to mean much"
    return {"token_ids": ids, "mask": mask, "logits": logits.numpy()}


def text_model(variant: str) -> TextModel:
    model, tokenizer, run = loaded(variant)
    return TextModel(model, tokenizer, usable_length(run))
