"""Pretrain, check and publish Spanish ELECTRA language models."""

import os

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
