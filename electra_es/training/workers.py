"""The processes of one run. They have to do the same at the same step."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from electra_es.errors import UsageError
from electra_es.training.devices import worker_index


class Workers:
    """Communication between the workers of a multi-worker strategy; any other run is one worker.

    If one worker stopped alone, the others would wait for its gradients; or it would train on other
    weights without a message. So the workers agree here before they act.

    Attributes:
      index: number of this process; number 0, the chief, writes the files.
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
        """The numbers of every replica, in the same order on each worker; all workers have to call it."""
        if not self._is_shared:
            return [numbers]
        rows = self._gather(tf.constant([numbers], tf.int64)).numpy()
        return [tuple(row) for row in rows.tolist()]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """If one worker raises a UsageError inside the `with`, the other workers raise one too."""
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
        """Raises UsageError on every worker if the value of a setting differs between them."""
        digests = [int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:7], "big")
                   for value in settings.values()]
        rows = self.gather(*digests)
        for name, *values in zip(settings, *rows, strict=True):
            if len(set(values)) > 1:
                raise UsageError(f"{name}={settings[name]!r} is not what every worker has: expected "
                                 "the same command on each")
