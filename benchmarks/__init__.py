"""Measurements, each against a peer in the same run; see the docstring of each for its command."""
