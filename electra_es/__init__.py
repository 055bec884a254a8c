"""Pretrain, check and publish Spanish ELECTRA language models.

    from electra_es import train               # pretrain, or go on with a run
    from electra_es import load_model          # the model of a run, its tokeniser and configuration
    from electra_es import load_tokenizer      # text to token ids, as training does it
    from electra_es import load_detector       # which tokens of a sentence look replaced
    from electra_es import export_huggingface  # folders for Hugging Face

Each of them has an example in its docstring. `import electra_es` is cheap: TensorFlow is imported
with the first of these names.
"""

import importlib
import os
from typing import TYPE_CHECKING

from electra_es.hardware import do_without_tpu, may_have_tpu

# TensorFlow's libraries print an error if there is no GPU, or if a processor lacks an instruction.
# Errors that stop a run are Python exceptions anyway. 0 shows everything.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# tf.keras is then the Keras that Model Garden needs. Keras 3, which this project does not use, would
# make `import tensorflow` a second longer.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
if not may_have_tpu():
    do_without_tpu()

__version__ = "0.1.0"

__all__ = ["export_huggingface", "load_detector", "load_model", "load_tokenizer", "train"]

if TYPE_CHECKING:
    from electra_es.detect.scoring import load_detector
    from electra_es.export.huggingface.write import export_huggingface
    from electra_es.text.tokenizer import load_tokenizer
    from electra_es.training.run_dir import load_model
    from electra_es.training.train import train
else:
    _HOMES = {
        "export_huggingface": "electra_es.export.huggingface.write",
        "load_detector": "electra_es.detect.scoring",
        "load_model": "electra_es.training.run_dir",
        "load_tokenizer": "electra_es.text.tokenizer",
        "train": "electra_es.training.train",
    }

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
