"""Pretrain, check and publish Spanish ELECTRA language models."""

__version__ = "0.1.0"
