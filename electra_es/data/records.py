"""Format of a records directory: what `data_prep.build_tfrecords` writes and the trainer reads.

    records/
      train-00000-of-00008.tfrecord ...   one tf.train.Example per training example
      validation-00000-of-00001.tfrecord
      info.json                           `RecordsInfo`
      stats.json, id_counts.npy           counts (see `data_prep.build.statistics`)
      COMPLETED                           written last; without it the directory is not read

An example has two features, both int64:

    input_ids              unpadded: [CLS] first segment [SEP] (second segment [SEP])
    second_segment_start   index of the first token of the second segment;
                           the length of input_ids if there is one segment only

The trainer also reads a directory that Google's `build_pretraining_dataset.py` wrote
(`kind="google"`): `pretrain_data.tfrecord-N-of-M` with `input_ids`,
`input_mask` and `segment_ids` of one fixed length, without `info.json` and without marker.
"""

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from electra_es import config, files
from electra_es.config import TextConfig
from electra_es.data.tfrecord import read_records
from electra_es.errors import UsageError, reason
from electra_es.settings import first_difference

FORMAT_VERSION = 1
SPLITS = ("train", "validation")
INFO_FILE = "info.json"
COMPLETED_FILE = "COMPLETED"
STATS_FILE = "stats.json"
ID_COUNTS_FILE = "id_counts.npy"
FEATURES = {"input_ids": "int64, unpadded", "second_segment_start": "int64, scalar"}

SHARD = re.compile(rf"({'|'.join(SPLITS)})-\d{{5}}-of-\d{{5}}\.tfrecord")
_GOOGLE_SHARD = re.compile(r"pretrain_data\.tfrecord-(\d+)-of-(\d+)")


@dataclass(frozen=True)
class RecordsInfo:
    """Content of `info.json`.

    Attributes:
      examples: for each split the number of examples of each shard.
      text: how text became ids; None for Google's layout, which does not say.
      special_ids: token -> id of [PAD], [UNK], [CLS], [SEP], [MASK]; empty for Google's layout.
      fingerprint: SHA-256 over everything the bytes depend on (settings, vocabulary, input files).
      sources: of each input file name, bytes, checksum, and whether it is held out as a whole.
      settings: those of the job that decide the bytes; `data_prep.verify_records` builds with them.
    """

    max_seq_length: int
    examples: dict[str, list[int]]
    text: TextConfig | None = None
    special_ids: dict[str, int] = dataclasses.field(default_factory=dict)
    packing: str = ""
    scheme: str = ""
    fingerprint: str = ""
    sources: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    features: dict[str, str] = dataclasses.field(default_factory=lambda: dict(FEATURES))
    version: int = FORMAT_VERSION
    kind: Literal["electra_es", "google"] = "electra_es"

    @property
    def vocab_sha256(self) -> str:
        return self.text.vocab_sha256 if self.text else ""

    @property
    def vocab_size(self) -> int:
        """Number of vocabulary entries; 0 for Google's layout, which does not say."""
        return self.text.vocab_size if self.text else 0

    def num_examples(self, split: str) -> int:
        return sum(self.examples.get(split, []))

    @property
    def sources_sha256(self) -> str:
        """One hash over the checksums of all input files; empty if they are not known."""
        if not self.sources:
            return ""
        lines = "".join(f"{source['checksum']} {source['bytes']}\n" for source in self.sources)
        return hashlib.sha256(lines.encode()).hexdigest()

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


def info_from_json(text: str | bytes) -> RecordsInfo:
    """Inverse of `RecordsInfo.to_json`; raises ValueError, KeyError or TypeError for other text."""
    values = json.loads(text)
    if values["version"] != FORMAT_VERSION:
        raise ValueError(f"version {values['version']}, this code reads version {FORMAT_VERSION}")
    if values["text"] is not None:
        values["text"] = config.from_dict(TextConfig, values["text"])
    return RecordsInfo(**values)


def shard_name(split: str, index: int, count: int) -> str:
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


def shard_paths(directory: str, info: RecordsInfo, split: str) -> list[str]:
    """Paths of all shards of `split`, in order; empty if the records have no such split."""
    count = len(info.examples.get(split, []))
    if info.kind == "google":
        names = [f"pretrain_data.tfrecord-{index}-of-{count}" for index in range(count)]
    else:
        names = [shard_name(split, index, count) for index in range(count)]
    return [os.path.join(directory, name) for name in names]


def load_records_info(directory: str) -> RecordsInfo:
    """Reads what a records directory (local or gs://) holds and checks that it is whole.

    For Google's layout every shard is scanned once to count its examples.

    Raises:
      UsageError: no such directory, no COMPLETED, unreadable info.json, a missing or cut-off shard.
    """
    try:
        names = set(files.names_in(directory))
    except OSError as error:
        raise UsageError(f"{directory}: cannot be read ({error.strerror or error})") from None
    if not names and not files.is_directory(directory):
        raise UsageError(f"{directory}: expected a records directory, but there is none")
    if INFO_FILE not in names and any(_GOOGLE_SHARD.fullmatch(name) for name in names):
        return _scan_google_layout(directory, names)
    if COMPLETED_FILE not in names:
        raise UsageError(
            f"{directory}: no {COMPLETED_FILE}: expected records that data_prep.build_tfrecords has "
            "finished; run the same command again to finish them")
    path = os.path.join(directory, INFO_FILE)
    try:
        info = info_from_json(files.read_bytes(path))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: expected the description of a records directory: {reason(error)}"
                         ) from None
    for split in info.examples:
        _check_present(directory, shard_paths(directory, info, split), names)
    return info


def check_vocabulary(info: RecordsInfo, directory: str, text: TextConfig, where: str) -> None:
    """Checks that records were built with a vocabulary, and with its treatment of text.

    Google's layout does not say what it was built with.

    Args:
      info: of the records in `directory`.
      text: of the vocabulary.
      where: what has that vocabulary, for the message.

    Raises:
      UsageError: they were not; the first difference is named.
    """
    if info.text and (different := first_difference(vars(info.text), vars(text))):
        name, theirs, ours = different
        raise UsageError(f"{directory}: was built with another vocabulary or other text settings than "
                         f"{where} ({name} {str(theirs)[:12]}, there {str(ours)[:12]}): expected the "
                         "same")


def read_id_counts(directory: str, vocab_size: int) -> np.ndarray | None:
    """How often each id occurs in records, int64 [V]; None: they carry no counts.

    Both splits and special tokens are counted. A model directory has a copy of those of its records.

    Raises:
      UsageError: the file holds something else, or counts of another vocabulary.
    """
    path = os.path.join(directory, ID_COUNTS_FILE)
    if not files.exists(path):
        return None
    counts = files.read_array(path)
    if counts.shape != (vocab_size,):
        raise UsageError(f"{path}: counts of shape {counts.shape}: expected one for each of the "
                         f"{vocab_size} vocabulary entries")
    return counts


def _scan_google_layout(directory: str, names: set[str]) -> RecordsInfo:
    matches = [match for match in map(_GOOGLE_SHARD.fullmatch, names) if match]
    totals = {int(match.group(2)) for match in matches}
    if len(totals) != 1:
        raise UsageError(f"{directory}: shards of {len(totals)} data sets (-of-"
                         f"{', -of-'.join(map(str, sorted(totals)))}): expected one")
    info = RecordsInfo(max_seq_length=0, examples={"train": [0] * totals.pop()}, kind="google",
                       features=dict.fromkeys(("input_ids", "input_mask", "segment_ids"),
                                              "int64, fixed length"))
    paths = shard_paths(directory, info, "train")
    _check_present(directory, paths, names)
    counts, length = [], 0
    for path in paths:
        with files.open_read(path) as file:
            count = 0
            for data in read_records(file, path, skip_data=length > 0):
                if not length:
                    ids = tf.train.Example.FromString(data).features.feature["input_ids"]
                    length = len(ids.int64_list.value)
                count += 1
            counts.append(count)
    return dataclasses.replace(info, max_seq_length=length, examples={"train": counts})


def _check_present(directory: str, paths: list[str], names: set[str]) -> None:
    missing = [os.path.basename(path) for path in paths if os.path.basename(path) not in names]
    if missing:
        raise UsageError(f"{directory}: {len(missing)} of {len(paths)} shards are missing, the first "
                         f"is {missing[0]}")
