"""What the server imports that workers are forked from; see `workers`."""

import gc

import data_prep.build.tasks  # noqa: F401

# The collector leaves alone what is there now. Otherwise its marks would make every worker copy
# the pages that it shares with the others.
gc.freeze()
