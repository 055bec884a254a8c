"""Paths of the bundled sample corpus."""

import os

_FOLDER = os.path.dirname(os.path.abspath(__file__))
TRAIN_GLOB = os.path.join(_FOLDER, "train", "*.txt")
VALIDATION_GLOB = os.path.join(_FOLDER, "validation", "*.txt")
