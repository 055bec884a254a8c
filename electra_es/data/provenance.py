"""What the records of a run contain, for the model card."""

import os
from typing import Any

from electra_es import files
from electra_es.data.records import STATS_FILE, RecordsInfo

# Keys of stats.json. Its examples of bad input stay out: they name files of the machine that built it.
_COUNTS = ("documents", "dropped_documents", "dropped_bytes", "bad_input", "text_bytes", "tokens",
           "dropped_tokens", "unk_fraction", "input", "settings")


def describe_records(directory: str, info: RecordsInfo) -> dict[str, Any]:
    """JSON values on a records directory: layout, examples, and what `stats.json` counts.

    Records that Google's script built have no `stats.json`, so nothing is known about their text.
    """
    found = {"kind": info.kind, "fingerprint": info.fingerprint,
             "examples": {split: sum(counts) for split, counts in info.examples.items()}}
    if info.sources:
        found["sources_sha256"] = info.sources_sha256
    path = os.path.join(directory, STATS_FILE)
    if files.exists(path):
        stats = files.read_json(path)
        found |= {name: stats[name] for name in _COUNTS if name in stats}
    return found
