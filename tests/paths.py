"""Where things are, whatever the folder of the test."""

import pathlib

ROOT = pathlib.Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
HPARAMS = ROOT / "hparams"
SAMPLE = ROOT / "electra_es" / "sample"
