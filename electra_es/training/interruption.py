"""Ending a run early without losing anything: SIGTERM (preemption) and Ctrl-C.

orbit's SaveCheckpointIfPreempted saves through a CheckpointManager of its own, ends the process by
itself and leaves Ctrl-C alone. Here `train()` saves as at any other step, and returns.
"""

import signal

from electra_es.training.workers import Workers


class Interrupted(Exception):
    """A signal came in the middle of what can be done again from its beginning."""


class StopSignal:
    """Treats SIGTERM and SIGINT, inside its `with`, as a request to save and stop.

    The second signal acts as it would without this class, for users who cannot wait.
    """

    def __init__(self, workers: Workers):
        self._workers = workers
        self._received = False

    def __enter__(self) -> "StopSignal":
        self._before = {number: signal.signal(number, self._receive)
                        for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: object) -> None:
        self._received = True
        signal.signal(number, self._before[signal.Signals(number)])

    def requested(self) -> bool:
        """Whether any worker received a signal. Every worker has to call it at the same step."""
        return any(received for (received,) in self._workers.gather(int(self._received)))
