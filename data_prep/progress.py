"""The line that shows how far a long job is."""

import logging
import time
from collections.abc import Sequence

from electra_es.durations import format_duration

PROGRESS_SECONDS = 10


class Progress:
    """Logs from time to time `shards: 12 of 24, 0.8 of 1.5 GB, 35.1 MB/s, ETA 20s`."""

    def __init__(self, label: str, sizes: Sequence[int]) -> None:
        """
        Args:
          label: name of the work.
          sizes: bytes of each of its parts.
        """
        self._label = label
        self._number, self._size = len(sizes), sum(sizes)
        self._done = self._done_size = 0
        self._start = self._last_shown = time.monotonic()

    def add(self, size: int, parts: int = 1) -> None:
        """Counts bytes that are done, and parts that end with them: 0 within a part."""
        self._done += parts
        self._done_size += size
        now = time.monotonic()
        if now - self._last_shown < PROGRESS_SECONDS:
            return
        self._last_shown = now
        rate = max(self._done_size, 1) / (now - self._start)
        logging.info("%s: %d of %d, %.2f of %.2f GB, %.1f MB/s, ETA %s", self._label, self._done,
                     self._number, self._done_size / 1e9, self._size / 1e9, rate / 1e6,
                     format_duration(max(0, self._size - self._done_size) / rate))

    def leave_out(self, size: int) -> None:
        """Takes away a part that needs no work; it does not count for the rate."""
        self._number -= 1
        self._size -= size
