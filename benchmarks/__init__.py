"""Measurements, each with another program in the same run; see the docstrings for the commands."""
