"""From a corpus to a vocabulary and training records; uses electra_es, never the other way round."""

import electra_es  # noqa: F401  TensorFlow's environment, before its import.
