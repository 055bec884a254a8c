"""From a corpus to a vocabulary and training records; uses electra_es, never the other way round."""

import os

# Before electra_es, which asks for errors too, as training should show them: these tools use no
# GPU, and TensorFlow calls it an error when there is none.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import electra_es  # noqa: F401  The rest of TensorFlow's environment, before its import.
