"""What the commands of the data tools share."""

import logging
import os

from electra_es.settings import Range

# Ranges that several of the tools share.
WORKERS = Range(low=0, high=1_024, why="more processes than one machine can use")
SAMPLED = Range(above=0, high=1, why="1 takes every document")
MOST_BAD = Range(low=0, high=1, why="of all documents, and of their bytes")
OCCURRENCES = Range(low=1, high=2**40, why="more words than any corpus has")
MAX_BAD_FRACTION = 0.05


def prepare_tool() -> None:
    """What every tool does before its work."""
    # No GPU is needed here, and each process would take its whole memory.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    logging.basicConfig(level=logging.INFO, format="%(message)s")
