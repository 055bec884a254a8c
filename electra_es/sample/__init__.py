"""Paths of the bundled sample corpora."""

import os

_FOLDER = os.path.dirname(os.path.abspath(__file__))
TRAIN_GLOB = os.path.join(_FOLDER, "train", "*.txt")
VALIDATION_GLOB = os.path.join(_FOLDER, "validation", "*.txt")
TAGGING_DIR = os.path.join(_FOLDER, "tagging")
