"""Worker processes of one machine, and the line that shows their progress.

Workers are forked from a server that has imported TensorFlow and not used it. Spawned processes
would each import it again, which takes two seconds of a core, and would not share its memory. And a
process cannot be forked after its TensorFlow has run an operation.
"""

import logging
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from electra_es.durations import format_duration
from electra_es.errors import UsageError

ResultT = TypeVar("ResultT")

PROGRESS_SECONDS = 10
# multiprocessing adds "/pymp-12345678/listener-12345678".
_LONGEST_TMPDIR = 107 - 40

_CONTEXT = multiprocessing.get_context("forkserver")


class RunAll(Protocol):
    """Calls a function with each of many argument lists; see `pool`."""

    def __call__(self, label: str, function: Callable[..., ResultT], arguments: Sequence[tuple],
                 sizes: Sequence[int]) -> Iterator[tuple[int, ResultT]]:
        """Yields (number of the argument list, result) in order of completion; must be read to its end.

        Args:
          label: name of the work, for messages.
          function: a function of a module's top level.
          arguments: one tuple per call.
          sizes: bytes of input of each call; the largest are started first.

        Raises:
          UsageError: a call raised it, or a worker died.
        """


def start_server() -> None:
    """Starts the server; called early, it imports TensorFlow while this process does."""
    _CONTEXT.set_forkserver_preload(["data_prep.build.preload"])
    _use_short_sockets()
    # The server inherits the signal mask. Without it, Ctrl-C would reach the server too and end its
    # import with a traceback. The tracker is started first, because starting it resets the mask.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _use_short_sockets() -> None:
    """Lets multiprocessing make its sockets in a folder with a short path: the system allows 107 bytes,
    and a TMPDIR of a batch system may be longer."""
    before = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_TMPDIR and os.access("/tmp", os.W_OK):
        tempfile.tempdir = "/tmp"
    try:
        multiprocessing.util.get_temp_dir()  # makes it, and keeps to it
    finally:
        tempfile.tempdir = before


@contextmanager
def pool(workers: int) -> Iterator[RunAll]:
    """Yields a `RunAll` over `workers` processes; one worker is this process itself."""
    if workers <= 1:
        yield _run_all_here
        return
    start_server()
    # Waits until the server is ready. Workers requested earlier would start after a Ctrl-C and would
    # not get their data from this process.
    ready = _CONTEXT.Process(target=int)
    ready.start()
    ready.join()
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, _CONTEXT, _start_worker) as executor:

        def run_all(label: str, function: Callable[..., ResultT], arguments: Sequence[tuple],
                    sizes: Sequence[int]) -> Iterator[tuple[int, ResultT]]:
            progress = _Progress(label, sizes)
            try:
                number_of = {executor.submit(function, *arguments[i]): i
                             for i in sorted(range(len(arguments)), key=lambda i: -sizes[i])}
                for future in as_completed(list(number_of)):
                    number = number_of.pop(future)  # So the result is freed after its use.
                    yield number, future.result()
                    progress.add(sizes[number])
            except BrokenProcessPool:
                raise UsageError(
                    f"a worker died while {label} were worked on, perhaps out of memory: the same "
                    f"command with fewer than --workers={workers} goes on from what is done"
                ) from None
            except BaseException:
                executor.shutdown(wait=False, cancel_futures=True)
                for process in set(multiprocessing.active_children()) - others:
                    process.terminate()
                raise

        yield run_all


def _run_all_here(label: str, function: Callable[..., ResultT], arguments: Sequence[tuple],
                  sizes: Sequence[int]) -> Iterator[tuple[int, ResultT]]:
    progress = _Progress(label, sizes)
    for number, (values, size) in enumerate(zip(arguments, sizes, strict=True)):
        yield number, function(*values)
        progress.add(size)


def _start_worker() -> None:
    # Ctrl-C reaches the whole process group, but the parent ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # No GPU, because each process would take its whole memory. One thread per process: the tokeniser
    # cannot use more, and other workers use the other cores.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import tensorflow as tf
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _end_with_parent() -> None:
    """Ends this worker when its parent has ended; otherwise it would wait for work for ever."""
    parent: Any = multiprocessing.parent_process()
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


class _Progress:
    """Logs from time to time `shards: 12 of 24, 0.8 of 1.5 GB, 35.1 MB/s, ETA 20s`."""

    def __init__(self, label: str, sizes: Sequence[int]) -> None:
        self._label = label
        self._number, self._size = len(sizes), sum(sizes)
        self._done = self._done_size = 0
        self._start = self._last_shown = time.monotonic()

    def add(self, size: int) -> None:
        self._done += 1
        self._done_size += size
        now = time.monotonic()
        if now - self._last_shown < PROGRESS_SECONDS:
            return
        self._last_shown = now
        rate = max(self._done_size, 1) / (now - self._start)
        logging.info("%s: %d of %d, %.2f of %.2f GB, %.1f MB/s, ETA %s", self._label, self._done,
                     self._number, self._done_size / 1e9, self._size / 1e9, rate / 1e6,
                     format_duration((self._size - self._done_size) / rate))
