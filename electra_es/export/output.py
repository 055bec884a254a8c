"""Writing an exported directory: under a temporary name, renamed once it is whole and checked."""

import contextlib
import os
import shutil
from collections.abc import Iterator

from electra_es.errors import UsageError


@contextlib.contextmanager
def new_directory(output: str, *, overwrite: bool, recognised_by: str) -> Iterator[str]:
    """Yields an empty directory beside `output` that takes its place when the block ends well.

    Args:
      output: local path of the directory to write.
      overwrite: whether an earlier export may be replaced; it stays until the new one is whole.
      recognised_by: a file that an earlier export has, so that nothing else is ever replaced.

    Raises:
      UsageError: `output` exists and may not be replaced, or cannot be written.
    """
    output = os.path.abspath(output)
    if os.path.lexists(output):
        if not overwrite:
            raise UsageError(f"--output={output}: exists already: expected a new path, or --overwrite")
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
