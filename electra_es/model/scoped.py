"""What layers find out about the step that is traced, without an argument through all of them."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any


class Scoped(threading.local):
    """A value that holds inside a `with`. Of each thread, because a strategy traces each replica in a
    thread of its own."""

    def __init__(self, outside: Any):
        """
        Args:
          outside: the value where no `with` sets another.
        """
        self.value = outside

    @contextlib.contextmanager
    def set_to(self, value: Any) -> Iterator[None]:
        before, self.value = self.value, value
        try:
            yield
        finally:
            self.value = before
