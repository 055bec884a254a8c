"""What `export` writes, `run` reads and writes, and `load` reads. Needs NumPy only.

    step.json       names, shapes and types of arguments and results; settings; operations of a step
    step.hlo        the program, a serialised HLO module
    batches.npz     batches of real examples, each array [number of batches, B, ...]
    state.json      where the step stands, and where in the pieces each variable begins
    state-….npy     the bytes of all variables that are not zero, one after the other, cut into pieces

A trained state is a folder without program and batches. Shapes: B batch, L length.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from electra_es import files
from electra_es.errors import UsageError

STEP_FILE, PROGRAM_FILE, BATCHES_FILE = "step.json", "step.hlo", "batches.npz"
STATE_FILE = "state.json"


@dataclass(frozen=True)
class Array:
    """Name, shape and type of an argument."""

    name: str
    shape: list[int]
    dtype: str


@dataclass(frozen=True)
class StepFacts:
    """`step.json`. Arguments are the batch, then the variables; results are the metrics, then the new
    values of the variables."""

    config: dict[str, Any]  # text, model and pretraining, as in config.json
    batch: list[Array]
    variables: list[Array]
    weights: list[str]  # names of the variables that are the model; the others are the optimiser's
    metrics: list[str]
    aliases: list[list[int]]  # (result, argument) that share memory
    flops: float  # of a step, as `training_flops` counts them

    def write(self, folder: str) -> None:
        files.write_json(os.path.join(folder, STEP_FILE), dataclasses.asdict(self))

    @property
    def batch_size(self) -> int:
        return self.batch[0].shape[0]


@dataclass(frozen=True)
class State:
    """The values of all variables after `step` steps."""

    step: int
    examples_seen: int
    values: dict[str, np.ndarray]


def read_facts(folder: str) -> StepFacts:
    """Reads `step.json`; UsageError if `folder` has none."""
    path = os.path.join(folder, STEP_FILE)
    values = files.read_json(path)
    try:
        for part in ("batch", "variables"):
            values[part] = [Array(**array) for array in values[part]]
        return StepFacts(**values)
    except (TypeError, KeyError) as error:
        raise UsageError(f"{path}: not what `export` writes ({error})") from None


def write_state(folder: str, state: State, piece_bytes: int) -> None:
    """Writes the pieces, then `state.json`. Arrays of zeros (a new optimiser's) take no room."""
    stored = [name for name, value in state.values.items() if value.any()]
    ends = np.cumsum([state.values[name].nbytes for name in stored], dtype=np.int64)
    starts = dict(zip(stored, (int(end) - state.values[name].nbytes
                               for name, end in zip(stored, ends, strict=True)), strict=True))
    stream = b"".join(np.ascontiguousarray(state.values[name]).tobytes() for name in stored)
    pieces = range(0, len(stream), piece_bytes)
    for i, start in enumerate(pieces):
        files.write_array(_piece(folder, i), np.frombuffer(stream[start:start + piece_bytes], np.uint8))
    files.write_json(os.path.join(folder, STATE_FILE), {
        "step": state.step, "examples_seen": state.examples_seen, "pieces": len(pieces),
        "bytes": len(stream), "starts": starts})


def read_state(folder: str, facts: StepFacts) -> State:
    """Reads what `write_state` wrote; UsageError if a piece is missing or cut short."""
    path = os.path.join(folder, STATE_FILE)
    index = files.read_json(path)
    if missing := {"step", "examples_seen", "pieces", "bytes", "starts"} - index.keys():
        raise UsageError(f"{path}: expected {', '.join(sorted(missing))} in it")
    pieces = [files.read_array(_piece(folder, i)) for i in range(index["pieces"])]
    stream = b"".join(piece.tobytes() for piece in pieces)
    if len(stream) != index["bytes"]:
        raise UsageError(f"{folder}: the pieces have {len(stream)} bytes: expected {index['bytes']}")
    return State(index["step"], index["examples_seen"], {
        array.name: _value(array, index["starts"], stream) for array in facts.variables})


def _value(array: Array, starts: Mapping[str, int], stream: bytes) -> np.ndarray:
    if array.name not in starts:
        return np.zeros(array.shape, array.dtype)
    return np.frombuffer(stream, array.dtype, int(np.prod(array.shape)),
                         starts[array.name]).reshape(array.shape)


def _piece(folder: str, number: int) -> str:
    return os.path.join(folder, f"state-{number:05d}.npy")


def write_batches(folder: str, batches: Mapping[str, np.ndarray]) -> None:
    """Writes arrays [n, B, ...] in the smallest types that hold them."""
    with files.atomic_write(os.path.join(folder, BATCHES_FILE)) as file:
        arrays: dict[str, Any] = {name: value.astype(np.min_scalar_type(value.max()))
                                  for name, value in batches.items()}
        np.savez_compressed(file, **arrays)


def endless_batches(folder: str, facts: StepFacts) -> Iterator[list[np.ndarray]]:
    """The batches, in the order of the arguments, again and again. The last argument, the place of an
    example in the stream, goes on counting, so that a repeated batch has other masks."""
    with np.load(os.path.join(folder, BATCHES_FILE), allow_pickle=False) as stored:
        arrays = [stored[array.name].astype(array.dtype) for array in facts.batch]
    *inputs, places = arrays
    again = 0
    while True:
        for i, place in enumerate(places):
            yield [*(array[i] for array in inputs), place + again]
        again += places.size
