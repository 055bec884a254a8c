"""`electra-es COMMAND`: every command of the project under one name.

Each command is a module that `python -m` runs too; this file only maps names to modules.
"""

import runpy
import sys
from typing import NamedTuple

from electra_es.errors import UsageError, nearest_hint, run_main


class Command(NamedTuple):
    """A module that runs as a command, and what it does in a line."""

    module: str
    purpose: str


COMMANDS = {
    "pretrain": Command("run_pretraining", "pretrain an ELECTRA; without flags, on the bundled sample"),
    "download-corpus": Command("data_prep.download_corpus", "download an open corpus"),
    "download-tasks": Command("data_prep.download_tasks", "download the files of a fine-tuning task"),
    "count-words": Command("data_prep.count_words", "count the words of a corpus"),
    "train-vocabulary": Command("data_prep.train_vocabulary", "train a vocabulary"),
    "build-records": Command("data_prep.build_tfrecords", "build training records from text"),
    "audit": Command("data_prep.audit_vocabulary", "check that each vocabulary entry can be trained"),
    "verify": Command("data_prep.verify_records", "check that records are made of the text they name"),
    "compare-vocabularies": Command("data_prep.compare_vocabularies",
                                    "how several vocabularies cut the words of a text"),
    "inspect": Command("data_prep.inspect_tfrecords", "show examples of a records directory"),
    "devices": Command("electra_es.devices", "say which devices TensorFlow sees, and what is wrong"),
    "preflight": Command("electra_es.preflight", "compile the training step for a TPU without one"),
    "report": Command("electra_es.monitoring", "draw the report of a run"),
    "finetune": Command("electra_es.finetuning.run", "fine-tune a pretrained model for a task"),
    "finetuning-report": Command("electra_es.finetuning.report",
                                 "set results of fine-tuning beside published ones"),
    "zero-shot": Command("electra_es.zero_shot", "classify texts by labels of any words"),
    "detect": Command("electra_es.detect", "show which tokens look replaced"),
    "exam": Command("electra_es.exam", "examine a model on Spanish minimal pairs"),
    "export-saved-model": Command("electra_es.export.saved_model", "write a SavedModel"),
    "export-huggingface": Command("electra_es.export.huggingface",
                                  "write Hugging Face folders, or import one"),
    "export-onnx": Command("electra_es.export.onnx_model", "write the discriminator as ONNX"),
    "import-google": Command("electra_es.export.google_checkpoint", "import a Google checkpoint"),
}


def usage() -> str:
    """The list of commands, for people."""
    width = max(map(len, COMMANDS))
    return "\n".join(["usage: electra-es COMMAND [FLAGS]", "",
                      *(f"  {name:{width}}  {command.purpose}" for name, command in COMMANDS.items()),
                      "", "electra-es COMMAND --help lists the flags of a command."])


def main() -> None:
    """Runs the command that the first argument names, with the remaining arguments."""
    run_main(_run)


def _run() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(usage())
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        raise UsageError(f'electra-es {name}: expected one of {", ".join(COMMANDS)}'
                         f"{nearest_hint(name, COMMANDS)}")
    sys.argv[1:] = arguments[1:]
    # As `python -m MODULE` does; the module ends the process with its own exit code.
    runpy.run_module(COMMANDS[name].module, run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    main()
