"""Errors that a user sees, and how a command ends with them.

Exit codes of every command: 0 done, 1 a check did not hold, 2 wrong use or bad
input, 3 stopped by a signal after saving.
"""

import contextlib
import difflib
import gc
import importlib
import os
import re
import select
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

EXIT_CHECK_FAILED = 1
EXIT_WRONG_USE = 2
EXIT_STOPPED = 3


class UsageError(ValueError):
    """Wrong use or bad input: one line that names the thing, its value and what was expected."""


class CheckFailed(RuntimeError):
    """A check that the user asked for did not hold (an audit's threshold, a model that does not fit)."""


def import_optional(module: str, requirements: str) -> Any:
    """Imports a package that only some commands need.

    Args:
      module: its name, dots and all.
      requirements: the file that it is installed with.

    Raises:
      UsageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{error.name or module} is not installed: expected the packages of "
                         f"{requirements}: pip install -r {requirements}") from None


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """Returns `; did you mean "x"?` for the known name nearest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else ""


# Lines that TensorFlow writes before and around the sentence that says what is wrong.
_NO_REASON = re.compile(r"Graph execution error:|Detected at node|<stack traces|Node: | *File |\s*\[\[")


def reason(error: BaseException) -> str:
    """What an error says, in one line; TensorFlow's messages have up to hundreds."""
    lines = [line.strip() for line in str(error).splitlines()
             if line.strip() and not _NO_REASON.match(line)]
    text = re.sub(r"\{\{.*?\}\} ?", "", lines[0]) if lines else type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def warn(message: str) -> None:
    """Prints a warning on stderr."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Runs `main` and exits with a code of this module's docstring. Errors that a user can correct are
    shown without a traceback.

    SIGTERM ends `main` like Ctrl-C, with a KeyboardInterrupt; its text says how to continue.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = main() or 0
        sys.stdout.flush()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        code = EXIT_WRONG_USE
    except CheckFailed as error:
        print(f"check failed: {error}", file=sys.stderr)
        code = EXIT_CHECK_FAILED
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        code = EXIT_CHECK_FAILED
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        print(f"error: {' '.join(str(error).split())[:200] or type(error).__name__}: out of memory: "
              "expected a smaller model, batch or length, or a larger machine", file=sys.stderr)
        code = EXIT_WRONG_USE
    except KeyboardInterrupt as error:
        print(f"stopped by a signal{f': {error}' if str(error) else ''}", file=sys.stderr)
        code = EXIT_STOPPED
    # Otherwise the interpreter spends a second at its end on the garbage collection of TensorFlow.
    gc.freeze()
    sys.exit(code)


def _reader_is_gone() -> bool:
    """Whether nobody reads stdout any more, as with `| head`; what is left for it goes nowhere."""
    stdout = select.poll()
    stdout.register(sys.stdout.fileno(), 0)  # an error is always told
    if not stdout.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _is_out_of_memory(error: Exception) -> bool:
    # By name, because importing TensorFlow takes longer than most commands.
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"MemoryError", "ResourceExhaustedError"})


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hides what libraries write to stderr inside the `with`, unless the block fails.

    For lines of C++ code that no environment variable turns off.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        except BaseException:
            written.seek(0)
            os.write(stderr, written.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
