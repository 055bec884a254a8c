"""A lock: only one process writes in a directory."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from electra_es.errors import UsageError

LOCK_FILE = "LOCK"


@contextlib.contextmanager
def only_run_in(model_dir: str, is_chief: bool = True) -> Iterator[None]:
    """Keeps a second process out of a local directory; the kernel frees it after a crash.

    Object stores have no such lock; there, the user must avoid two runs in one directory. Only the
    chief of a run's workers takes the lock.
    """
    if "://" in model_dir or not is_chief:
        yield
        return
    try:
        os.makedirs(model_dir, exist_ok=True)
        file = open(os.path.join(model_dir, LOCK_FILE), "w")  # noqa: SIM115 closed below
    except OSError as error:
        raise UsageError(f"{model_dir}: cannot be written ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"{model_dir}: another run is writing there: expected none") from None
        yield
