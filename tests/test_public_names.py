"""What people import: `from electra_es import ...`, cheap to name, with examples that run."""

import doctest
import os
import subprocess
import sys

import pytest
from paths import ROOT

import electra_es

NAMES = ["export_huggingface", "load_detector", "load_model", "load_tokenizer", "train"]


@pytest.fixture(scope="module")
def after_the_demo(tmp_path_factory):
    """A folder in which the demo has run, for fewer steps than a user's."""
    folder = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(
        [sys.executable, "-m", "electra_es.cli", "pretrain", "--num_train_steps=4"], cwd=folder,
        text=True, capture_output=True, timeout=400, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return folder


def test_names():
    assert electra_es.__all__ == NAMES and set(NAMES) < set(dir(electra_es))
    for name in NAMES:
        assert getattr(electra_es, name).__name__ == name


@pytest.mark.parametrize("name", NAMES)
def test_examples_of_the_docstrings(name, after_the_demo, monkeypatch):
    monkeypatch.chdir(after_the_demo)
    found = doctest.DocTestFinder(recurse=False).find(getattr(electra_es, name), name, globs={})
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(found[0]).attempted > 2
    assert runner.failures == 0


def test_another_name_is_not_there():
    with pytest.raises(ImportError, match="cannot import name 'load_modell'"):
        from electra_es import load_modell  # noqa: F401
    assert not hasattr(electra_es, "load_modell")


@pytest.mark.parametrize("module", ["electra_es", "electra_es.cli", "electra_es.config",
                                    "electra_es.flags"])
def test_import_is_cheap(module):
    program = f"import sys, {module}; sys.exit('numpy' in sys.modules)"  # TensorFlow needs it
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60).returncode == 0
