"""Counts of a job. They are added up over tasks; the order does not matter."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from electra_es import files

SHOWN_BAD_EXAMPLES = 3
# Ending of the file that `Statistics.save` writes last.
SAVED = ".json"
# What a Beam job leaves in its work directory: the statistics of all tasks, and examples a shard.
STATISTICS = "statistics"
COUNTS_FILE = "shard_counts.npy"


@dataclass
class Statistics:
    """Counts of one task, or of many added up.

    Attributes:
      documents: kept.
      dropped_documents, bad_input: numbers by reason, for documents that cleaning drops and for
        documents that cannot be read.
      shown: for each reason of `bad_input` the first few, as (task, number, "path: detail").
      text_bytes: UTF-8 bytes of the kept documents.
      tokens: of the kept documents, special tokens not counted.
      dropped_tokens: tokens of kept documents that are in no example.
      positions: tokens in examples, special tokens counted.
      examples: by split.
      id_counts: int64 [V], over all examples, special tokens counted.
    """

    id_counts: np.ndarray
    documents: int = 0
    dropped_documents: Counter[str] = field(default_factory=Counter)
    bad_input: Counter[str] = field(default_factory=Counter)
    shown: dict[str, list[tuple[int, int, str]]] = field(default_factory=dict)
    text_bytes: int = 0
    tokens: int = 0
    dropped_tokens: int = 0
    positions: int = 0
    examples: Counter[str] = field(default_factory=Counter)

    @classmethod
    def empty(cls, vocab_size: int) -> "Statistics":
        return cls(np.zeros(vocab_size, np.int64))

    def add_bad(self, task: int, path: str, reason: str, detail: str) -> None:
        self.bad_input[reason] += 1
        shown = self.shown.setdefault(reason, [])
        if len(shown) < SHOWN_BAD_EXAMPLES:
            # Keys of JSON and names of files may be invalid Unicode.
            text = f"{path}: {detail}".encode("utf-8", "backslashreplace").decode()
            shown.append((task, self.bad_input[reason], text))

    def add(self, other: "Statistics") -> None:
        """Adds the counts of other tasks."""
        self.id_counts += other.id_counts
        for name in ("documents", "text_bytes", "tokens", "dropped_tokens", "positions"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("dropped_documents", "bad_input", "examples"):
            getattr(self, name).update(getattr(other, name))
        for reason, shown in other.shown.items():
            both = self.shown.get(reason, []) + [(*entry[:2], entry[2]) for entry in shown]
            self.shown[reason] = sorted(both)[:SHOWN_BAD_EXAMPLES]

    @property
    def bad_fraction(self) -> float:
        """Share of the input's documents that could not be read."""
        bad = sum(self.bad_input.values())
        return bad / max(1, bad + self.documents + sum(self.dropped_documents.values()))

    def save(self, path: str) -> None:
        """Writes PATH.ids.npy (`id_counts`), then PATH.json (the rest)."""
        smallest = np.min_scalar_type(int(self.id_counts.max(initial=0)))
        files.write_array(path + ".ids.npy", self.id_counts.astype(smallest))
        values = {name: getattr(self, name) for name in self.__dataclass_fields__
                  if name != "id_counts"}
        files.write_json(path + SAVED, values)

    @classmethod
    def load(cls, path: str) -> "Statistics":
        """Inverse of `save`."""
        values = files.read_json(path + SAVED)
        for name in ("dropped_documents", "bad_input", "examples"):
            values[name] = Counter(values[name])
        values["shown"] = {reason: [(task, number, detail) for task, number, detail in shown]
                           for reason, shown in values["shown"].items()}
        return cls(id_counts=files.read_array(path + ".ids.npy").astype(np.int64), **values)

    def report(self, max_seq_length: int, unk_id: int, record_bytes: int) -> dict[str, Any]:
        """Content of `stats.json`."""
        examples = sum(self.examples.values())
        return {
            "documents": self.documents,
            "dropped_documents": dict(sorted(self.dropped_documents.items())),
            "bad_input": dict(sorted(self.bad_input.items())),
            "bad_input_examples": {reason: [detail for _, _, detail in shown]
                                   for reason, shown in sorted(self.shown.items())},
            "text_bytes": self.text_bytes,
            "tokens": self.tokens,
            "dropped_tokens": self.dropped_tokens,
            "examples": dict(sorted(self.examples.items())),
            "padding_fraction": _share(examples * max_seq_length - self.positions,
                                       examples * max_seq_length),
            "unk_fraction": _share(int(self.id_counts[unk_id]), self.tokens - self.dropped_tokens),
            "bytes_per_token": _share(record_bytes, self.tokens - self.dropped_tokens),
        }


def _share(part: int, whole: int) -> float:
    return round(part / max(1, whole), 6)
