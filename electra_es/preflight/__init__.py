"""Compiles the training step for a TPU that is not there."""
