"""Pretrain, check and publish Spanish ELECTRA language models."""

import os

from electra_es.hardware import do_without_tpu, may_have_tpu

# TensorFlow's libraries call it an error when there is no GPU, and when a processor lacks an
# instruction; what stops a run comes as a Python exception all the same. 0 shows everything.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# tf.keras is then the Keras that Model Garden is built on. With Keras 3, which this project never
# uses, `import tensorflow` takes a second longer.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
if not may_have_tpu():
    do_without_tpu()

__version__ = "0.1.0"
