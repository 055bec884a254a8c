"""From a corpus to a vocabulary and training records; uses electra_es, never the other way round."""
