"""Pretrain, check and publish Spanish ELECTRA language models."""

import os

# TensorFlow reports what it did not find (CUDA, plug-ins) unless told before its import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# tf.keras is then the Keras that Model Garden is built on. With Keras 3, which this project never
# uses, `import tensorflow` takes a second longer.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

__version__ = "0.1.0"
