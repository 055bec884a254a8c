"""Pretrain, check and publish Spanish ELECTRA language models."""

import os

# TensorFlow reports what it did not find (CUDA, plug-ins) unless told before its import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

__version__ = "0.1.0"
