"""Runs commands in this process, with fresh flags, up to the start of their work."""

import importlib
import runpy
from collections.abc import Callable, Sequence

import pytest
from absl import flags
from paths import ROOT

COMMANDS = [
    "data_prep.audit_vocabulary", "data_prep.build_tfrecords", "data_prep.count_words",
    "data_prep.download_corpus", "data_prep.inspect_tfrecords", "data_prep.train_vocabulary",
    "electra_es.detect.__main__", "electra_es.exam.__main__", "electra_es.export.google_checkpoint",
    "electra_es.export.huggingface.__main__", "electra_es.export.onnx_model.__main__",
    "electra_es.export.saved_model.__main__", "electra_es.monitoring.__main__",
    "electra_es.preflight.__main__",
    "electra_es.zero_shot.__main__", "run_pretraining.py"]


class Accepted(Exception):
    """The command accepted its flags and would have started its work."""


def stop(*_, **__):
    raise Accepted


def fresh_flags(monkeypatch: pytest.MonkeyPatch, name: str, arguments: Sequence[str] = ()
                ) -> flags.FlagValues:
    """Makes a command define its flags again, with `arguments` on its command line."""
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    monkeypatch.setattr("sys.argv", [name, *arguments])
    return values


def main_of(name: str) -> Callable[[], int | None]:
    """`main` of one of `COMMANDS`."""
    if name.endswith(".py"):
        return runpy.run_path(str(ROOT / name), run_name="command")["main"]
    return importlib.import_module(name).main
