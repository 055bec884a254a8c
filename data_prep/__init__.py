"""From a corpus to a vocabulary and training records. electra_es must not import this package."""

import electra_es  # noqa: F401  TensorFlow's environment, before its import.
