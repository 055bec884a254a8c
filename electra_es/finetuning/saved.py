"""A fine-tuned model on disk, complete: all that is needed to use it is in one directory.

    model/
      finetuned.json        task, labels by id, shape of the model, settings
      text.json, vocab.txt (or spm.model)
      checkpoints/          weights
"""

import dataclasses
import os
from typing import Any, NamedTuple

import tensorflow as tf

from electra_es.config import ModelConfig, from_dict
from electra_es.errors import UsageError
from electra_es.finetuning.model import FinetuningModel, Pretrained
from electra_es.finetuning.results import read_json, write_json
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.tasks import Task, task_from_json
from electra_es.model.pretrainer import build_pretrainer
from electra_es.text.tokenizer import Tokenizer, load_tokenizer
from electra_es.text.vocabulary import save_text_config, vocab_path
from electra_es.training.checkpoints import restore_weights
from electra_es.training.run_dir import vocabulary_facts

FINETUNED_FILE = "finetuned.json"


class Finetuned(NamedTuple):
    """A fine-tuned model, ready to use."""

    model: FinetuningModel
    tokenizer: Tokenizer
    task: Task
    config: FinetuningConfig
    model_config: ModelConfig
    step: int  # of the weights
    pretrained: str  # what was fine-tuned, such as "runs/small, step 300000"


def is_finetuned(directory: str) -> bool:
    """Whether a directory is a fine-tuned model, and not a model directory of pretraining."""
    return tf.io.gfile.exists(os.path.join(directory, FINETUNED_FILE))


def prepare_finetuned_dir(directory: str, pretrained: Pretrained, task: Task,
                          config: FinetuningConfig) -> None:
    """Writes all of the directory but the weights."""
    tf.io.gfile.makedirs(directory)
    text = pretrained.tokenizer.config
    tf.io.gfile.copy(vocab_path(pretrained.model_dir, text), vocab_path(directory, text),
                     overwrite=True)
    save_text_config(directory, text)
    write_json(os.path.join(directory, FINETUNED_FILE), {
        "id2label": id2label(task), "task": dataclasses.asdict(task),
        "model": dataclasses.asdict(pretrained.config), "finetuning": dataclasses.asdict(config),
        "pretrained": pretrained.origin})


def load_finetuned(directory: str) -> Finetuned:
    """Loads a fine-tuned model.

    Raises:
      UsageError: not such a directory, or one without whole weights.
    """
    path = os.path.join(directory, FINETUNED_FILE)
    if not is_finetuned(directory):
        raise UsageError(f"{path}: expected a fine-tuned model: the directory model/ of a trial")
    values = read_json(path)
    try:
        task = task_from_json(values["task"])
        config: Any = from_dict(FinetuningConfig, values["finetuning"])  # type: ignore[type-var]
        model_config = from_dict(ModelConfig, values["model"])
        origin = str(values["pretrained"])
    except (KeyError, TypeError, UsageError) as error:
        raise UsageError(f"{path}: not what fine-tuning wrote ({error})") from None
    tokenizer = load_tokenizer(directory)
    pretrainer = build_pretrainer(model_config, vocabulary_facts(tokenizer))
    model = FinetuningModel(pretrainer, task.kind, len(task.labels), config.head_dropout)
    step = restore_weights(directory, model)
    return Finetuned(model, tokenizer, task, config, model_config, step, origin)


def id2label(task: Task) -> dict[str, str]:
    """The labels by id, in the order of the task file."""
    return {str(i): label for i, label in enumerate(task.labels)}
