"""What the records of a run are made of, for those who read about the model later."""

import os
from typing import Any

from electra_es import files
from electra_es.data.records import STATS_FILE, RecordsInfo

# Of stats.json; its examples of bad input name files of the machine that built it.
_COUNTS = ("documents", "dropped_documents", "bad_input", "text_bytes", "tokens", "dropped_tokens",
           "unk_fraction", "input", "settings")


def describe_records(directory: str, info: RecordsInfo) -> dict[str, Any]:
    """JSON values on a records directory: layout, examples, and what `stats.json` counts.

    Records that are built with Google's script have no `stats.json`: nothing is known of their text.
    """
    found = {"kind": info.kind, "fingerprint": info.fingerprint,
             "examples": {split: sum(counts) for split, counts in info.examples.items()}}
    path = os.path.join(directory, STATS_FILE)
    if files.exists(path):
        stats = files.read_json(path)
        found |= {name: stats[name] for name in _COUNTS if name in stats}
    return found
