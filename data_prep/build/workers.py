"""Worker processes of one machine, and how work is given to them.

Workers are forked from a server that has imported TensorFlow and not used it. Spawned processes
would each import it again, which takes two seconds of a core, and would not share its memory. And a
process cannot be forked after its TensorFlow has run an operation.
"""

import collections
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from data_prep.progress import Progress
from electra_es.errors import UsageError

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")

# Calls under way for each worker: one that it works on, one that waits, one whose result is awaited.
_BEGUN_A_WORKER = 3
# multiprocessing adds "/pymp-12345678/listener-12345678".
_LONGEST_TMPDIR = 107 - 40

_CONTEXT = multiprocessing.get_context("forkserver")


class Work(NamedTuple):
    """How the pieces of one part of the input are worked on: by this process, or shared with others.

    Attributes:
      each: calls a function with each of many arguments; yields (argument, result) in their order.
      on_read: called with the number of bytes whenever some are read from the part's file; None: not.
    """

    each: Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[tuple[Any, Any]]]
    on_read: Callable[[int], None] | None = None


def _one_after_the_other(function: Callable[[ArgumentT], ResultT], arguments: Iterable[ArgumentT]
                         ) -> Iterator[tuple[ArgumentT, ResultT]]:
    return ((argument, function(argument)) for argument in arguments)


ALONE = Work(_one_after_the_other)


class Workers:
    """Calls functions of a module's top level in other processes; see `pool`."""

    def __init__(self, number: int, executor: ProcessPoolExecutor | None = None) -> None:
        """
        Args:
          number: of processes.
          executor: their pool; None: this process calls the functions.
        """
        self.number = number
        self._executor = executor

    def __call__(self, label: str, function: Callable[..., ResultT], arguments: Sequence[tuple],
                 sizes: Sequence[int]) -> Iterator[tuple[int, ResultT]]:
        """Yields (number of the argument list, result) in order of completion; must be read to its end.

        Args:
          label: name of the work, for messages.
          function: what is called.
          arguments: one tuple per call.
          sizes: bytes of input of each call; the largest are started first.

        Raises:
          UsageError: a call raised it, or a worker died.
        """
        progress = Progress(label, sizes)
        if self._executor is None:
            for number, (values, size) in enumerate(zip(arguments, sizes, strict=True)):
                yield number, function(*values)
                progress.add(size)
            return
        with self._death_told(label):
            number_of = {self._executor.submit(function, *arguments[i]): i
                         for i in sorted(range(len(arguments)), key=lambda i: -sizes[i])}
            for future in as_completed(list(number_of)):
                number = number_of.pop(future)  # So the result is freed after its use.
                yield number, future.result()
                progress.add(sizes[number])

    def in_order(self, label: str, function: Callable[[ArgumentT], ResultT],
                 arguments: Iterable[ArgumentT]) -> Iterator[tuple[ArgumentT, ResultT]]:
        """Yields (argument, result) in the order of the arguments, which are taken as they are needed:
        a few for each worker are under way, so that memory does not grow with their number.

        Raises:
          UsageError: a call raised it, or a worker died.
        """
        if self._executor is None:
            yield from _one_after_the_other(function, arguments)
            return
        begun: collections.deque[tuple[ArgumentT, Future[ResultT]]] = collections.deque()
        with self._death_told(label):
            for argument in arguments:
                begun.append((argument, self._executor.submit(function, argument)))
                if len(begun) > _BEGUN_A_WORKER * self.number:
                    first, future = begun.popleft()
                    yield first, future.result()
            while begun:
                first, future = begun.popleft()
                yield first, future.result()

    @contextmanager
    def _death_told(self, label: str) -> Iterator[None]:
        try:
            yield
        except BrokenProcessPool:
            raise UsageError(
                f"a worker died while {label} were worked on, perhaps out of memory: the same "
                f"command with fewer than --workers={self.number} goes on from what is done") from None


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
def pool(number: int) -> Iterator[Workers]:
    """Yields `Workers` of `number` processes; one worker is this process itself."""
    if number <= 1:
        yield Workers(1)
        return
    start_server()
    # Waits until the server is ready. Workers requested earlier would start after a Ctrl-C and would
    # not get their data from this process.
    ready = _CONTEXT.Process(target=int)
    ready.start()
    ready.join()
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(number, _CONTEXT, _start_worker) as executor:
        try:
            yield Workers(number, executor)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


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
