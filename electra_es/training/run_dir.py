"""The model directory: what makes a run, and a finished model, complete in one place.

    model_dir/
      config.json        resolved configuration, written before step 1
      text.json, vocab.txt (or spm.model)    copied in: the model never parts from its text rules
      checkpoints/       see checkpoints.py
      summaries/, metrics.jsonl, samples.jsonl, evaluation.json
"""

import dataclasses
import os
from typing import Any

import tensorflow as tf

from electra_es.config import ModelConfig, PretrainingConfig, TextConfig, to_json
from electra_es.errors import UsageError
from electra_es.model.batches import VocabularyFacts
from electra_es.model.pretrainer import ElectraPretrainer, build_pretrainer
from electra_es.run_config import CONFIG_FILE, Run, load_run
from electra_es.text.tokenizer import Tokenizer, load_tokenizer, save_text_config, vocab_path
from electra_es.training.checkpoints import restore_weights


def vocabulary_facts(tokenizer: Tokenizer) -> VocabularyFacts:
    return VocabularyFacts(
        size=len(tokenizer.vocab), pad_id=tokenizer.pad_id, cls_id=tokenizer.cls_id,
        sep_id=tokenizer.sep_id, mask_id=tokenizer.mask_id, word_starts=tokenizer.word_starts)


def load_model(model_dir: str) -> tuple[ElectraPretrainer, Tokenizer, Run, int]:
    """Rebuilds the model of `model_dir` with the weights of its latest checkpoint.

    Returns:
      the model (float32), its tokeniser, its configuration and the step of the weights.

    Raises:
      UsageError: not a model directory, or one without a whole checkpoint.
    """
    run = load_run(model_dir)
    tokenizer = load_tokenizer(model_dir)
    model = build_pretrainer(run.model, vocabulary_facts(tokenizer))
    return model, tokenizer, run, restore_weights(model_dir, model)


def prepare_model_dir(model_dir: str, tokenizer: Tokenizer, vocab_dir: str,
                      model: ModelConfig, pretraining: PretrainingConfig) -> bool:
    """Writes configuration and vocabulary, or checks that those of an earlier start are the same.

    Returns:
      whether the directory held a run already.

    Raises:
      UsageError: the directory holds another run, or cannot be written.
    """
    path = os.path.join(model_dir, CONFIG_FILE)
    run = Run(tokenizer.config, model, pretraining)
    if tf.io.gfile.exists(path):
        _check_same(model_dir, load_run(model_dir), run)
        return True
    try:
        tf.io.gfile.makedirs(model_dir)
        tf.io.gfile.copy(vocab_path(vocab_dir, tokenizer.config),
                         vocab_path(model_dir, tokenizer.config), overwrite=True)
        save_text_config(model_dir, tokenizer.config)
        with tf.io.gfile.GFile(path + ".writing", "w") as file:
            file.write(to_json(**run._asdict()))
        tf.io.gfile.rename(path + ".writing", path)
    except (tf.errors.OpError, OSError) as error:
        raise UsageError(f"{model_dir}: cannot be written ({str(error).splitlines()[0]})") from None
    return False


def check_same_model(model_dir: str, text: TextConfig, model: ModelConfig) -> None:
    """Raises UsageError where `model_dir` holds another model, or the same for other text."""
    run = load_run(model_dir)
    _check_same(model_dir, run, run._replace(text=text, model=model))


def _check_same(model_dir: str, old: Run, new: Run) -> None:
    parts: list[tuple[Any, Any]] = list(zip(old, new, strict=True))
    for old_part, new_part in parts:
        for field in dataclasses.fields(new_part):
            before, now = getattr(old_part, field.name), getattr(new_part, field.name)
            if before != now and not field.metadata["may_change"]:
                raise UsageError(
                    f"{model_dir}: holds a run with {field.name}={before!r}, this one has "
                    f"{field.name}={now!r}: expected the same, or another --model_dir")
