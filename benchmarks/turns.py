"""Several actions take turns, so that a machine whose speed drifts favours none of them."""

import time
from collections.abc import Callable, Mapping

from electra_es.durations import format_duration

# Turns end after this time, so that a benchmark ends within ten minutes on a slow machine too.
SECONDS = 420.0


def timed(action: Callable[[], object]) -> float:
    """Seconds that the action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def take_turns(actions: Mapping[str, Callable[[], object]], turns: int, seconds: float = SECONDS
               ) -> dict[str, list[float]]:
    """Seconds of each action in each turn, after one turn that is not counted: it compiles.

    After the first counted turn it says how long the others take. There are fewer, but at least three,
    if all would take longer than `seconds`.
    """
    for name, action in actions.items():
        print(f"  {name}: first turn, compiling included, {timed(action):.1f} s", flush=True)
    found: dict[str, list[float]] = {name: [] for name in actions}
    left = turns
    while left:
        for name, action in actions.items():
            found[name].append(timed(action))
        left -= 1
        if left == turns - 1:
            of_turn = sum(times[0] for times in found.values())
            left = min(left, max(2, int(seconds / of_turn) - 1))
            print(f"  {left} more turns of {turns - 1}, about {format_duration(left * of_turn)}",
                  flush=True)
    return found
