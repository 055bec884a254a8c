"""Several actions take turns, so that a machine whose speed drifts favours none of them."""

import time
from collections.abc import Callable, Mapping


def timed(action: Callable[[], object]) -> float:
    """Seconds that the action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def take_turns(actions: Mapping[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """Seconds of each action in each turn, after one turn that is not counted: it compiles."""
    for name, action in actions.items():
        print(f"  {name}: first turn, compiling included, {timed(action):.1f} s", flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(turns):
        for name, action in actions.items():
            seconds[name].append(timed(action))
    return seconds
