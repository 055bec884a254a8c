"""The processes of one run, which have to do the same at the same step."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from electra_es.errors import UsageError
from electra_es.training.devices import worker_index


class Workers:
    """What the workers of a multi-worker strategy tell each other; any other run is one worker.

    A worker that went its own way would leave the others waiting for its gradients, or train on
    other weights without a word. So each asks here before it goes.

    Attributes:
      index: number of this process; 0, the chief, is the one that writes.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None):
        self.index = 0 if strategy is None else worker_index(strategy)
        self._is_shared = False
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return
        self._is_shared = True

        @tf.function(autograph=False)
        def gather(numbers: tf.Tensor) -> tf.Tensor:
            def gather_replica() -> tf.Tensor:
                context = tf.distribute.get_replica_context()
                return context.all_gather(tf.identity(numbers), axis=0)

            return strategy.experimental_local_results(strategy.run(gather_replica))[0]

        self._gather = gather

    def gather(self, *numbers: int) -> list[tuple[int, ...]]:
        """The numbers of every replica, in one order everywhere; all workers have to call it."""
        if not self._is_shared:
            return [numbers]
        rows = self._gather(tf.constant([numbers], tf.int64)).numpy()
        return [tuple(row) for row in rows.tolist()]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What one worker refuses with a UsageError inside, the others do not go on with either."""
        try:
            yield
        except UsageError:
            self.gather(1)
            raise
        failed = sum(number for (number,) in self.gather(0))
        if failed:
            raise UsageError(f"{failed} other worker(s) cannot go on: expected none; their own "
                             "messages say why")

    def check_same(self, settings: Mapping[str, Any]) -> None:
        """Raises UsageError, on every worker, where one has another value of a setting."""
        digests = [int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:7], "big")
                   for value in settings.values()]
        rows = self.gather(*digests)
        for name, *values in zip(settings, *rows, strict=True):
            if len(set(values)) > 1:
                raise UsageError(f"{name}={settings[name]!r} is not what every worker has: expected "
                                 "the same command on each")
