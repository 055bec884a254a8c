r"""Planted near-duplicates: which pairs and clusters `--dedup=near` finds, and how fast.

    python -m benchmarks.near_duplicates [--threshold=0.8 --seed=1]

This takes about a minute on two cores. Documents are random words, so that the Jaccard similarity of
their runs of five words is known. The peer is the truth: connected components of the pairs above the
threshold.
"""

import random
import time

import numpy as np
from absl import flags

from data_prep.command_line import prepare_tool
from data_prep.corpus import cleaning
from electra_es.errors import run_main
from electra_es.flags import define, parse_flags_only
from electra_es.settings import Range

WORDS, PAIRS, UNRELATED = 300, 200, 2_000
SIMILARITIES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
CLUSTERS = (2, 10, 100, 1_000)


def document(draws: random.Random) -> list[str]:
    return [f"w{draws.randrange(50_000)}" for _ in range(WORDS)]


def changed(words: list[str], similarity: float, draws: random.Random) -> list[str]:
    """A copy of which about this share of all runs, its own and those of `words`, is in both."""
    words = list(words)
    runs = len(words) - cleaning.SHINGLE_WORDS + 1
    # One changed word changes five runs of each document.
    wanted = round(runs * (1 - similarity) / (1 + similarity) / cleaning.SHINGLE_WORDS)
    places = range(cleaning.SHINGLE_WORDS, len(words) - cleaning.SHINGLE_WORDS, cleaning.SHINGLE_WORDS)
    for place in draws.sample(places, min(wanted, len(places))):
        words[place] = f"x{draws.randrange(10**9)}"
    return words


def keys_of(documents: list[list[str]], threshold: float) -> np.ndarray:
    return np.stack([cleaning.duplicate_keys(" ".join(words), "near", threshold)
                     for words in documents])


def main() -> None:
    define("threshold", float, 0.8, "As --near_duplicate_threshold.",
           Range(above=0, high=0.98, why="for more there is dedup=exact"))
    define("seed", int, 1, "Of the documents.", Range(low=0, high=2**31, why="any number"))
    prepare_tool()
    parse_flags_only()
    threshold, draws = flags.FLAGS.threshold, random.Random(flags.FLAGS.seed)
    bands, rows = cleaning.band_shape(threshold)
    print("about a minute")
    print(f"threshold {threshold}: {bands} bands of {rows} rows\n")
    print("| similarity | pairs found | expected |\n|---|---|---|")
    for similarity in SIMILARITIES:
        first = [document(draws) for _ in range(PAIRS)]
        second = [changed(words, similarity, draws) for words in first]
        found = cleaning.later_duplicates(keys_of(first + second, threshold))[PAIRS:].mean()
        print(f"| {similarity} | {found:.0%} | {1 - (1 - similarity**rows)**bands:.0%} |")
    print("\n| cluster of copies, similarity 0.95 | left of it |\n|---|---|")
    for size in CLUSTERS:
        original = document(draws)
        copies = [original, *(changed(original, 0.95, draws) for _ in range(size - 1))]
        left = int((~cleaning.later_duplicates(keys_of(copies, threshold))).sum())
        print(f"| {size:,} | {left} |")
    chain = [document(draws)]
    for _ in range(9):  # each 0.9 like the one before
        chain.append(changed(chain[-1], 0.9, draws))
    left = int((~cleaning.later_duplicates(keys_of(chain, threshold))).sum())
    print(f"\nchain of 10, each 0.9 like the one before: {left} left")
    unrelated = [document(draws) for _ in range(UNRELATED)]
    began = time.process_time()
    keys = keys_of(unrelated, threshold)
    seconds = time.process_time() - began
    megabytes = sum(len(" ".join(words)) for words in unrelated) / 1e6
    print(f"{UNRELATED:,} unrelated documents: {int(cleaning.later_duplicates(keys).sum())} dropped; "
          f"keys at {megabytes / seconds:.1f} MB/s of CPU time, "
          f"{keys.nbytes // len(keys)} bytes a document")
    for millions in (1, 4):
        keys = np.random.default_rng(0).integers(0, 2**63, (millions * 10**6, bands), np.uint64)
        began = time.process_time()
        cleaning.later_duplicates(keys)
        print(f"grouping {millions} million documents: {time.process_time() - began:.1f} s of CPU time, "
              f"{keys.nbytes / 1e6:.0f} MB of keys")


if __name__ == "__main__":
    run_main(main)
