"""Parsing of the command line, shared by the data tools."""

import logging
import os
import sys

from electra_es import flags
from electra_es.errors import UsageError
from electra_es.settings import Range

# Ranges that several of the tools share.
WORKERS = Range(low=0, high=1_024, why="more processes than one machine can use")
SAMPLED = Range(above=0, high=1, why="1 takes every document")
OCCURRENCES = Range(low=1, high=2**40, why="more words than any corpus has")


def parse_flags(argv: list[str] | None = None) -> list[str]:
    """Parses absl flags; returns the arguments after "--".

    Raises:
      UsageError: an unknown flag (absl names the nearest), a value of the wrong type, or an
        argument that is not a flag.
    """
    argv = sys.argv if argv is None else argv
    ours, rest = argv, []
    if "--" in argv:
        ours, rest = argv[:argv.index("--")], argv[argv.index("--") + 1:]
    # No GPU is needed here, and each process would take its whole memory.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if positional := flags.parse_flags(ours):
        raise UsageError(f"{positional[0]}: expected only flags, such as --input=...")
    return rest
