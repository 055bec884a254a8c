"""Ending a run early without losing anything: SIGTERM (preemption) and Ctrl-C."""

import signal

import tensorflow as tf


class StopSignal:
    """Takes SIGTERM and SIGINT, inside its `with`, as a wish to save and leave.

    The second signal acts as it would have without this, for who cannot wait.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self._received = False
        self._is_shared = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)

        @tf.function(autograph=False)
        def count(received: tf.Tensor) -> tf.Tensor:
            def everywhere() -> tf.Tensor:
                context = tf.distribute.get_replica_context()
                return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(received))

            return strategy.experimental_local_results(strategy.run(everywhere))[0]

        self._count = count

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
        """Whether any worker was signalled. Every worker has to call it at the same step: one
        that left by itself would leave the others waiting for its gradients."""
        if not self._is_shared:
            return self._received
        return bool(self._count(tf.constant(float(self._received))) > 0)
