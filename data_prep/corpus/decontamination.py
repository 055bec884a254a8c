"""Documents that share a run of words with the files of a task, which a model is tested on later.

Texts are taken from every layout that fine-tuning reads, without knowing which: the strings of JSON, the
columns of parquet, the cells of tables, and the words of a column file joined to sentences. A run has
13 words, as in GPT-3's and Gopher's analyses; symbols and letter case do not count. A text of fewer words
has no run and is not looked for.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_prep.corpus import listing
from data_prep.corpus.formats import input_format_of
from data_prep.corpus.word_arrays import Batch, Words
from electra_es import files
from electra_es.errors import UsageError, import_optional

RUN_WORDS = 13
_MOST_COLUMNS = 12


@functools.lru_cache(maxsize=2)
def load_keys(pattern: str) -> np.ndarray:
    """Keys of all runs in the files of a pattern, sorted uint64 [runs].

    Raises:
      UsageError: nothing matches, a file cannot be read, or there is no run in any of them.
    """
    found = [run_keys([text for text in texts_of(path) if text.strip()])[0]
             for path, _ in listing.list_files(pattern)]
    keys = np.unique(np.concatenate(found))
    if not len(keys):
        raise UsageError(f"decontaminate={pattern}: no text of {RUN_WORDS} words in these files")
    return keys


def write_keys(pattern: str, path: str) -> None:
    """Writes `load_keys` into a file, so that workers need not read the files of tasks."""
    files.write_array(path, load_keys(pattern))


@functools.lru_cache(maxsize=2)
def read_keys(path: str) -> np.ndarray:
    """What `write_keys` wrote; the workers of one machine share its memory."""
    return files.read_array(path) if files.is_remote(path) else np.load(path, mmap_mode="r")


def runs_sha256(pattern: str) -> str:
    """A hash of all runs that documents must not have; empty without a pattern."""
    return hashlib.sha256(load_keys(pattern).tobytes()).hexdigest() if pattern else ""


def share_a_run(texts: Sequence[str], keys: np.ndarray) -> np.ndarray:
    """Which texts have one of the runs in `keys`: bool [texts]; give it about 256 KB of text a call."""
    found, of = run_keys(texts)
    places = np.minimum(np.searchsorted(keys, found), len(keys) - 1)
    return np.bincount(of[keys[places] == found], minlength=len(texts)) > 0


def run_keys(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Keys of all runs of words, uint64 [runs], and the text of each, int64 [runs]."""
    if not texts:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    return Words(Batch([text.casefold() for text in texts])).proper_runs(RUN_WORDS)


def texts_of(path: str) -> Iterator[str]:
    """The texts in a file of a task."""
    kind, compression = input_format_of(path)
    if kind == "parquet":
        yield from _strings(import_optional("pyarrow.parquet", "requirements-data.txt").read_table(
            files.open_read(path)).to_pylist())
        return
    if compression:
        raise UsageError(f"{path}: expected the files of a task as they are, not compressed")
    text = files.read_bytes(path).decode("utf-8", "replace")
    if kind == "jsonl":
        try:
            yield from _strings(json.loads(text))
        except ValueError:
            for line in filter(str.strip, text.split("\n")):
                try:
                    yield from _strings(json.loads(line))
                except ValueError:
                    yield line
        return
    for block in re.split(r"\n\s*\n", text):
        lines = [line for line in block.split("\n") if line.strip()]
        yield from re.split(r"[\t\n]", block)
        yield from _sentence_of_columns(lines)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings(list(value.values()))
    elif isinstance(value, list):
        # A list of words is a sentence.
        if value and all(isinstance(part, str) and " " not in part for part in value):
            yield " ".join(value)
        else:
            for part in value:
                yield from _strings(part)


def _sentence_of_columns(lines: Sequence[str]) -> list[str]:
    """The words of a sentence with a word a line, as CoNLL and CoNLL-U have it; empty if it is none."""
    rows = [line.split("\t") if "\t" in line else line.split(" ") for line in lines
            if not line.startswith(("#", "-DOCSTART-"))]
    widths = {len(row) for row in rows}
    if len(widths) != 1 or not 2 <= min(widths) <= _MOST_COLUMNS:
        return []
    # In CoNLL-U the first column is the number of the word.
    column = 1 if all(re.fullmatch(r"[\d.-]+", row[0]) for row in rows) else 0
    return [" ".join(row[column] for row in rows)]
