"""What became of the documents of an input: kept, dropped by a rule, or not readable; and their bytes.

Bytes are those of text: what separates documents, and the names and values beside a text, are not
counted, except where a text cannot be found.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from electra_es.errors import UsageError

SHOWN_BAD_EXAMPLES = 3


@dataclass
class InputCounts:
    """Counts of a part of an input, or of many added up.

    Attributes:
      documents, text_bytes: kept documents, and their UTF-8 bytes.
      dropped_documents, dropped_bytes: by reason, what cleaning drops.
      bad_input, bad_bytes: by reason, what cannot be read. Where it is not known how much that is (the
        rest of a damaged file), its bytes are estimated.
      shown: for each reason of `bad_input` the first few, as (task, number, "path: detail").
    """

    documents: int = 0
    text_bytes: int = 0
    dropped_documents: Counter[str] = field(default_factory=Counter)
    dropped_bytes: Counter[str] = field(default_factory=Counter)
    bad_input: Counter[str] = field(default_factory=Counter)
    bad_bytes: Counter[str] = field(default_factory=Counter)
    shown: dict[str, list[tuple[int, int, str]]] = field(default_factory=dict)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """From what `dataclasses.asdict` gave and JSON kept: objects but for `shown` are counters."""
        read: dict[str, Any] = {name: Counter(value) if isinstance(value, dict) else value
                                for name, value in values.items()}
        read["shown"] = {reason: [(task, number, detail) for task, number, detail in shown]
                         for reason, shown in values["shown"].items()}
        return cls(**read)

    def add_kept(self, size: int) -> None:
        self.documents += 1
        self.text_bytes += size

    def add_dropped(self, reason: str, size: int) -> None:
        self.dropped_documents[reason] += 1
        self.dropped_bytes[reason] += size

    def add_bad(self, task: int, path: str, reason: str, detail: str, size: int) -> None:
        self.bad_input[reason] += 1
        self.bad_bytes[reason] += size
        shown = self.shown.setdefault(reason, [])
        if len(shown) < SHOWN_BAD_EXAMPLES:
            # Keys of JSON and names of files may be invalid Unicode.
            text = f"{path}: {detail}".encode("utf-8", "backslashreplace").decode()
            shown.append((task, self.bad_input[reason], text))

    def add(self, other: Self) -> None:
        """Adds the counts of other tasks."""
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            if isinstance(mine, Counter):
                mine.update(theirs)
            elif not isinstance(mine, dict):
                setattr(self, each.name, mine + theirs)
        for reason, shown in other.shown.items():
            both = sorted([*self.shown.get(reason, []), *shown])
            self.shown[reason] = both[:SHOWN_BAD_EXAMPLES]

    def check_readable(self, max_bad_fraction: float) -> None:
        """Raises UsageError if too much of the input cannot be read, by documents or by bytes."""
        for what, bad, good in (
                ("documents", self.bad_input, self.documents + self.dropped_documents.total()),
                ("text, by its bytes,", self.bad_bytes, self.text_bytes + self.dropped_bytes.total())):
            share = bad.total() / max(1, bad.total() + good)
            if share > max_bad_fraction:
                raise UsageError(f"{share:.1%} of the {what} cannot be read, more than max_bad_fraction="
                                 f"{max_bad_fraction}: {self.bad_examples()}")

    def bad_examples(self) -> str:
        """The most frequent reasons, with the first place of each; empty if all can be read."""
        return "; ".join(f"{reason} {count} times, first at {self.shown[reason][0][2]}"
                         for reason, count in self.bad_input.most_common(3))

    def warn_of_bad(self) -> None:
        for reason, shown in sorted(self.shown.items()):
            logging.warning("bad input: %s, %d times, such as %s", reason, self.bad_input[reason],
                            "; ".join(detail for _, _, detail in shown))

    def table(self) -> list[str]:
        """Lines that say what became of the input; the last is their sum."""
        rows = [("kept", self.documents, self.text_bytes), *self._rows("dropped", self.dropped_documents,
                                                                       self.dropped_bytes),
                *self._rows("not readable", self.bad_input, self.bad_bytes)]
        total = ("sum", sum(row[1] for row in rows), sum(row[2] for row in rows))
        width = max(len(name) for name, _, _ in rows)
        return [f"  {name:<{width}} {number:>12,} documents {size / 1e6:>12,.3f} MB "
                f"{100 * size / max(1, total[2]):>6.2f} %" for name, number, size in (*rows, total)]

    @staticmethod
    def _rows(what: str, numbers: Counter[str], sizes: Counter[str]) -> Iterator[tuple[str, int, int]]:
        for reason, number in sorted(numbers.items(), key=lambda item: -sizes[item[0]]):
            yield f"{what}: {reason}", number, sizes[reason]
