"""Counts of a job. They are added up over tasks; the order does not matter."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_prep.corpus.counts import InputCounts
from electra_es import files

# Ending of the file that `Statistics.save` writes last.
SAVED = ".json"
# What a Beam job leaves in its work directory: the statistics of all tasks, examples a shard, and the
# checksums of the input files.
STATISTICS = "statistics"
COUNTS_FILE = "shard_counts.npy"
CHECKSUMS_FILE = "checksums.json"


@dataclass
class Statistics(InputCounts):
    """Counts of one task, or of many added up.

    Attributes:
      id_counts: int64 [V], over all examples, special tokens counted.
      tokens: of the kept documents, special tokens not counted.
      dropped_tokens: tokens of kept documents that are in no example.
      positions: tokens in examples, special tokens counted.
      examples: by split.
      clusters: of documents that are the same, by their size; see `cleaning.sizes_by_range`.
      labelled: readable documents whose corpus names a language.
    """

    id_counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    tokens: int = 0
    dropped_tokens: int = 0
    positions: int = 0
    examples: Counter[str] = field(default_factory=Counter)
    labelled: int = 0
    clusters: Counter[str] = field(default_factory=Counter)

    @classmethod
    def empty(cls, vocab_size: int) -> "Statistics":
        return cls(id_counts=np.zeros(vocab_size, np.int64))

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
        return cls.from_values({
            **files.read_json(path + SAVED),
            "id_counts": files.read_array(path + ".ids.npy").astype(np.int64)})

    def report(self, max_seq_length: int, unk_id: int, record_bytes: int) -> dict[str, Any]:
        """Content of `stats.json`."""
        examples = sum(self.examples.values())
        return {
            "documents": self.documents,
            "dropped_documents": dict(sorted(self.dropped_documents.items())),
            "dropped_bytes": dict(sorted(self.dropped_bytes.items())),
            "bad_input": dict(sorted(self.bad_input.items())),
            "bad_bytes": dict(sorted(self.bad_bytes.items())),
            "bad_input_examples": {reason: [detail for _, _, detail in shown]
                                   for reason, shown in sorted(self.shown.items())},
            "duplicate_clusters": dict(sorted(self.clusters.items(), key=lambda item: int(
                item[0].split()[0]))),
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
