"""Imports of the server from which workers are forked; see `workers`."""

import gc

import data_prep.build.tasks  # noqa: F401

# The garbage collector then ignores all present objects. Otherwise it would write to them, and every
# worker would copy the pages that it shares with the others.
gc.freeze()
