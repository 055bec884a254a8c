"""The rows that benchmarks of the training step print. Needs nothing but Python."""

import statistics
from collections.abc import Mapping


def speed_lines(seconds: Mapping[str, list[float]], *, steps: int, batch_size: int, flops: float,
                peak_tflops: float = 0.0) -> list[str]:
    """A row for each action, by the median of its turns.

    Args:
      seconds: of each turn of `steps` steps.
      flops: of one step.
      peak_tflops: what the device could do; 0: not known.
    """
    width = max(map(len, seconds))
    lines = []
    for name, times in seconds.items():
        step = statistics.median(times) / steps
        tflops = flops / step / 1e12
        share = f"  {tflops / peak_tflops:5.1%} of the peak" if peak_tflops else ""
        lines.append(f"{name:{width}}  {step * 1e3:9.2f} ms a step  {batch_size / step:9.1f} examples/s"
                     f"  {tflops:8.3f} TFLOP/s{share}")
    return lines
