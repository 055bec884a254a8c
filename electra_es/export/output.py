"""Writes an exported directory under a temporary name, renames it when it is complete and checked, and
adds a file that says from what it was made."""

import contextlib
import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from electra_es import __version__, files
from electra_es.errors import UsageError
from electra_es.flags import define, parse_flags_only, required
from electra_es.run_config import CONFIG_FILE
from electra_es.settings import PATH
from electra_es.training.checkpoint_files import checkpoint_path

EXPORT_FILE = "export.json"


@dataclass(frozen=True)
class Origin:
    """What an export was made from; its `export.json` can be read without TensorFlow."""

    step: int  # of the checkpoint
    config_sha256: str  # of the model directory's config.json, or of a fine-tuned one's finetuned.json
    checkpoint_sha256: str  # of the checkpoint's index, which holds a checksum of every variable
    version: str = __version__  # of this project

    def write(self, folder: str) -> None:
        files.write_json(os.path.join(folder, EXPORT_FILE), dataclasses.asdict(self))


class Exported(NamedTuple):
    """What an export wrote, and what was compared."""

    parts: list[str]
    origin: Origin
    compared: list[str]

    def summary(self, output: str, model_dir: str, how: str) -> str:
        """What a command prints: what was written, and a line for each thing compared."""
        first = (f"{output}: {', '.join(self.parts)} of step {self.origin.step:,} written, {how} and "
                 f"equal to {model_dir} in")
        return "\n".join([first, *(f"  {line}" for line in self.compared)])


def origin_of(model_dir: str, step: int, config_file: str = CONFIG_FILE) -> Origin:
    """The origin of an export of the checkpoint of `step` in `model_dir`, whose settings are in
    `config_file`."""
    paths = (os.path.join(model_dir, config_file), checkpoint_path(model_dir, step) + ".index")
    return Origin(step, *(hashlib.sha256(files.read_bytes(path)).hexdigest() for path in paths))


def read_origin(folder: str) -> Origin | None:
    """The origin of the export in `folder`; None if it has no `export.json`."""
    try:
        values = files.read_json(os.path.join(folder, EXPORT_FILE))
        return Origin(**values) if isinstance(values["step"], int) else None
    except (UsageError, TypeError, KeyError):
        return None


def run_export(choose: Callable[[str], Callable[..., Exported]], kind: str, how: str) -> None:
    """The command of an exporter that needs no more than a model directory and a place to write.

    Args:
      choose: gives the exporter for what a model directory holds. That is called with the
        directory, the place, and `overwrite`.
      kind: what it writes.
      how: how that was checked.
    """
    model_dir = define("model_dir", str, "", "Model directory to export.", PATH)
    output = define("output", str, "", "Directory to write.", PATH)
    overwrite = define("overwrite", bool, False, f"Replace an earlier {kind} there.")
    parse_flags_only()
    source, target = required(model_dir, "a model directory"), required(output, "a directory to write")
    exported = choose(source)(source, target, overwrite=overwrite.value)
    print(exported.summary(output.value, model_dir.value, how))


@contextlib.contextmanager
def new_directory(output: str, *, overwrite: bool, recognised_by: str) -> Iterator[str]:
    """Yields an empty directory beside `output`, which replaces `output` if the block succeeds.

    Args:
      output: local path of the directory to write.
      overwrite: whether an earlier export may be replaced; it stays until the new one is complete.
      recognised_by: a file that every earlier export has; a directory without it is not replaced.

    Raises:
      UsageError: `output` exists and may not be replaced, or cannot be written.
    """
    output = os.path.abspath(output)
    if os.path.lexists(output):
        if not overwrite:
            origin = read_origin(output)
            made = f", an export of step {origin.step:,}" if origin else ""
            raise UsageError(f"--output={output}: exists already{made}: expected a new path, or "
                             "--overwrite")
        if not os.path.exists(os.path.join(output, recognised_by)):
            raise UsageError(f"--output={output}: not an export (no {recognised_by} in it): "
                             "expected a new path; --overwrite replaces earlier exports only")
    scratch = f"{output}.writing-{os.getpid()}"
    try:
        os.makedirs(scratch)
        yield scratch
        if os.path.lexists(output):
            replaced = f"{output}.replaced-{os.getpid()}"
            os.rename(output, replaced)
            os.rename(scratch, output)
            shutil.rmtree(replaced)
        else:
            os.rename(scratch, output)
    except OSError as error:
        raise UsageError(f"{output}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
