"""`config.json` of a model directory: the three configurations of a run."""

import os
from typing import NamedTuple

from electra_es import files
from electra_es.config import ModelConfig, PretrainingConfig, TextConfig, from_dict
from electra_es.errors import UsageError

CONFIG_FILE = "config.json"


class Run(NamedTuple):
    """The configurations in a model directory."""

    text: TextConfig
    model: ModelConfig
    pretraining: PretrainingConfig


def load_run(model_dir: str) -> Run:
    """Reads `config.json`.

    Raises:
      UsageError: no such file, or not a configuration of this project.
    """
    path = os.path.join(model_dir, CONFIG_FILE)
    if not files.exists(path):
        raise UsageError(f"{path}: expected a model directory written by run_pretraining.py")
    values = files.read_json(path)
    try:
        return Run(from_dict(TextConfig, values["text"]), from_dict(ModelConfig, values["model"]),
                   from_dict(PretrainingConfig, values["pretraining"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a configuration of this project ({error})") from None
