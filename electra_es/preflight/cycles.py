"""The compiler's estimate of cycles, read from the optimised program, by part of the step.

libtpu writes `"estimated_cycles"` into the backend configuration of most instructions. Some have none:
random bits, sorting, and what it takes for negligible. The sum is therefore an estimate from below,
and the report says which instructions are not in it.
"""

import collections
import re
from typing import NamedTuple

# A part of the step and a pattern in the name of TensorFlow's operation; the first match counts. A fusion
# has the name of its last operation, so an operation at the border of two parts can count for the other.
PARTS = (
    ("attention", r"attention/|attention_gradient"),
    ("feed-forward", r"feed_forward/|Gelu"),
    ("MLM head and sampling", r"generator_predictions|vocabulary_softmax|sampling"),
    ("optimiser", r"optimizer"),
    ("masks and input", r"masks|/add/Sum|one_hot"),
    ("normalisation, dropout, embeddings", r"layer_norm|LayerNorm|dropout|embeddings"),
    ("discriminator's head", r"discriminator_predictions"),
)
_OTHER = "the rest"
# Opcodes that take time although no cycles are given for them.
_UNCOUNTED = {"rng-bit-generator", "sort", "custom-call", "gather", "scatter", "all-reduce"}
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?[\w.\-]+ = .*? ([a-z][a-z\-0-9]*)\(")


class Cycles(NamedTuple):
    """Estimated cycles of one device for one step."""

    parts: dict[str, int]  # by the names of PARTS
    uncounted: dict[str, int]  # instructions without an estimate: opcode -> how many

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def seconds(self, clock_ghz: float) -> float:
        return self.total / (clock_ghz * 1e9)


def count_cycles(hlo: str) -> Cycles:
    """Adds up the estimates of an optimised HLO module, given as text.

    The body of a loop counts as often as it runs, where the compiler knows how often.
    """
    runs = _runs_of_bodies(hlo)
    parts = dict.fromkeys([name for name, _ in PARTS] + [_OTHER], 0)
    uncounted: collections.Counter[str] = collections.Counter()
    times = 1
    for line in hlo.splitlines():
        header = re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
        if header:
            times = runs.get(header[1], 1)
            continue
        estimate = re.search(r'"estimated_cycles":"(\d+)"', line)
        opcode = _INSTRUCTION.match(line)
        if estimate:
            parts[_part(line)] += times * int(estimate[1])
        elif opcode and opcode[1] in _UNCOUNTED:
            uncounted[opcode[1]] += times
    return Cycles(parts, dict(uncounted))


def _runs_of_bodies(hlo: str) -> dict[str, int]:
    """How often the body of each loop runs: name of the computation -> number."""
    runs = {}
    for line in hlo.splitlines():
        body = re.search(r" while\(.*body=%?([\w.\-]+)", line)
        trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
        if body and trips:
            runs[body[1]] = int(trips[1])
    return runs


def _part(line: str) -> str:
    name = re.search(r'op_name="([^"]*)"', line)
    if name:
        for part, pattern in PARTS:
            if re.search(pattern, name[1]):
                return part
    return _OTHER
