"""How many steps a loop on the devices takes before the host has its turn."""

import time

from electra_es.config import PretrainingConfig
from electra_es.training.workers import Workers

# A machine that is taken back gets SIGTERM 30 seconds before. What the loop leaves of them is for saving.
LOOP_SECONDS = 10.0


class Pace:
    """Ends each loop where something is due, and early enough for a signal: after `LOOP_SECONDS`.

    The first loop compiles and the second is the first whose time says anything, so both take one step.
    The number of steps is an argument of the compiled loop. So another number compiles nothing.
    """

    def __init__(self, config: PretrainingConfig, workers: Workers):
        self._config, self._workers = config, workers
        self._most = 1
        self._has_compiled = False
        self._began = 0.0

    def begin_loop(self, step: int) -> int:
        """The number of steps of the loop that begins now, after `step`."""
        self._began = time.monotonic()
        return min(steps_until_due(step, self._config), self._most)

    def end_loop(self, num_steps: int) -> None:
        """Measures the loop of `num_steps` that ends now; every worker has to call it."""
        # The workers take the same number of steps: that of the slowest.
        milliseconds = max(number for (number,) in self._workers.gather(
            round(1000 * (time.monotonic() - self._began))))
        if self._has_compiled:
            self._most = max(1, int(1000 * LOOP_SECONDS * num_steps / max(milliseconds, 1)))
        self._has_compiled = True


def steps_until_due(step: int, config: PretrainingConfig) -> int:
    """The most steps to run before the host has something to do."""
    ends = [config.last_step, step + config.steps_per_loop]
    for every in (config.log_every, config.save_every, config.eval_every, config.exam_every):
        if every:
            ends.append((step // every + 1) * every)
    return min(ends) - step


def is_due(step: int, every: int, config: PretrainingConfig) -> bool:
    return step % every == 0 or step == config.last_step
