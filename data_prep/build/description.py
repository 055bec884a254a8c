"""What every worker is told: which part of the input, and how records are made of it."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from data_prep.corpus import cleaning
from electra_es.data import records

_LATER_RULES = ("quality",)


@dataclass(frozen=True)
class Task:
    """Documents of one part of one input file.

    Attributes:
      number: place in the order of the input.
      end: byte, or None for the end of the file.
      size: bytes to read.
      is_validation: all documents are held out, whatever `Job.validation_fraction` says.
    """

    number: int
    path: str
    start: int
    end: int | None
    size: int
    is_validation: bool = False


class Duplicates(NamedTuple):
    """What a first pass over the input found in one task.

    Attributes:
      dropped: numbers of the kept documents to leave out.
      clusters: of documents that are the same, how many there are by their size; each is counted in the
        task of its first document.
    """

    dropped: frozenset[int] = frozenset()
    clusters: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Job:
    """Everything that determines the bytes of the records, besides vocabulary and input.

    Attributes:
      decontaminate_keys: file of the keys that `decontamination.write_keys` wrote, which every worker can
        read; empty: none.
    """

    vocab_dir: str
    max_seq_length: int
    train_shards: int
    validation_shards: int
    validation_fraction: float
    scheme: str
    packing: str
    dedup: str
    near_duplicate_threshold: float
    max_copies: int
    decontaminate_sha256: str
    rules: cleaning.DocumentRules
    input_format: str
    max_document_bytes: int
    seed: int
    decontaminate_keys: str = ""

    @property
    def num_shards(self) -> int:
        return self.train_shards + self.validation_shards

    def to_values(self) -> dict[str, Any]:
        """JSON values, without paths, which are others on another machine."""
        values = dataclasses.asdict(self)
        del values["vocab_dir"], values["decontaminate_keys"]
        return json.loads(json.dumps(values))  # with lists for tuples, as they are read back

    @classmethod
    def from_values(cls, values: dict[str, Any], vocab_dir: str, decontaminate_keys: str) -> "Job":
        """Inverse of `to_values`; raises TypeError, KeyError for other values."""
        rules = dict(values["rules"])
        rules["drop_quality_warnings"] = tuple(rules["drop_quality_warnings"])
        return cls(**{**values, "vocab_dir": vocab_dir, "decontaminate_keys": decontaminate_keys,
                      "rules": cleaning.DocumentRules(**rules)})

    def fingerprint(self, vocab_sha256: str, tasks: Iterable[Task]) -> str:
        """SHA-256 over everything that the records depend on; names of files without folders."""
        settings = dataclasses.asdict(self)
        # Rules of later versions, where they are off: the records are those of the versions before.
        settings["rules"] = {name: value for name, value in settings["rules"].items()
                             if value or name not in _LATER_RULES}
        del settings["decontaminate_keys"]  # a place; what stands there is in its hash
        for name, off in (("max_copies", 1), ("decontaminate_sha256", "")):
            if settings[name] == off:
                del settings[name]
        if self.dedup == "near":
            settings["bands"] = cleaning.band_shape(self.near_duplicate_threshold)
        values = settings | {
            "vocab_dir": vocab_sha256, "version": records.FORMAT_VERSION,
            "tasks": [(os.path.basename(task.path), task.start, task.size, task.is_validation)
                      for task in tasks]}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
