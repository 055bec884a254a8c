"""The step compiles for a TPU that this machine does not have. Skipped if libtpu is not installed."""

import re
import subprocess
import sys

import pytest
from engine_helpers import MODEL
from paths import ROOT


def preflight(*flags: str) -> subprocess.CompletedProcess:
    """In a separate process, because libtpu changes signal handlers and other settings."""
    return subprocess.run([sys.executable, "-m", "electra_es.preflight", *flags], cwd=ROOT,
                          capture_output=True, text=True, timeout=300)


def test_debug_size_fits_on_v2():
    pytest.importorskip("libtpu", reason="libtpu is not installed (requirements-preflight.txt)")
    shape = [f"--{name}={value}" for name, value in MODEL.items()]
    done = preflight("--topology=v2-8", "--train_batch_size=24", "--max_seq_length=13",
                     "--vocab_size=61", *shape)
    assert done.returncode == 0, done.stderr
    assert "24 x 13 tokens, 3 examples per device, 8 devices" in done.stdout
    assert "it fits" in done.stdout
    peak = float(re.search(r"memory per device +([\d.]+) GB of 8 GB", done.stdout)[1])
    assert 0 < peak < 1


def test_unknown_topology():
    done = preflight("--topology=v2-9")
    assert done.returncode == 2
    assert '--topology=v2-9: expected one of v2-8, ' in done.stderr
    assert 'did you mean "v2-8"?' in done.stderr and "Traceback" not in done.stderr
