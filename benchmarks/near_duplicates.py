r"""Planted near-duplicates: which of them `--dedup=near` drops, how fast, and with how much memory.

    python -m benchmarks.near_duplicates [--threshold=0.8 --seed=1 --documents=1000000]

Documents are random words, so that the Jaccard similarity of their runs of five words is known. The
peers are the truth (connected components of the pairs whose similarity is the threshold or more; of
each the first document stays) and datasketch's MinHashLSH with a union-find over the pairs that it
finds, with the bands that it chooses itself. It takes a few minutes on two cores, most of them for the
million documents.
"""

import itertools
import random
import resource
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import datasketch
import numpy as np
from absl import flags

from data_prep.command_line import prepare_tool
from data_prep.corpus import cleaning
from electra_es.errors import run_main
from electra_es.flags import define, parse_flags_only
from electra_es.settings import Range

WORDS, PAIRS, UNRELATED = 300, 200, 2_000
SIMILARITIES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
CLUSTERS = {2: 100, 10: 20, 100: 4, 1_000: 1}  # size -> how many
CHAINS = {3: 100, 10: 20}  # length -> how many
SHORT_WORDS = 60
PART = 20_000  # documents of a part of a file
BATCH = 250  # documents whose keys are computed at a time
CORPUS_BYTES, DOCUMENT_BYTES = 150e9, 3_000
_DIFFERENT = [f"w{number}" for number in range(50_000)]


class Planted(NamedTuple):
    """A document, the kind of group that it belongs to, and the number of the group."""

    words: list[str]
    kind: str
    group: int


def document(draws: random.Random, words: int = WORDS) -> list[str]:
    return draws.choices(_DIFFERENT, k=words)


def changed(words: list[str], similarity: float, draws: random.Random) -> list[str]:
    """A copy of which this share of all runs, its own and those of `words`, is in both, or a bit more."""
    words = list(words)
    runs = len(words) - cleaning.SHINGLE_WORDS + 1
    # One changed word changes five runs of each document.
    wanted = int(runs * (1 - similarity) / (1 + similarity) / cleaning.SHINGLE_WORDS)
    places = range(cleaning.SHINGLE_WORDS, len(words) - cleaning.SHINGLE_WORDS, cleaning.SHINGLE_WORDS)
    for place in draws.sample(places, min(wanted, len(places))):
        words[place] = f"x{draws.randrange(10**9)}"
    return words


def plant(draws: random.Random) -> list[Planted]:
    """Pairs, clusters around a document, chains, and documents that are like no other; shuffled."""
    groups: list[tuple[str, list[list[str]]]] = []
    for similarity in SIMILARITIES:
        for _ in range(PAIRS):
            original = document(draws)
            groups.append((f"pairs of {similarity}", [original, changed(original, similarity, draws)]))
    for size, number in CLUSTERS.items():
        for _ in range(number):
            original = document(draws)
            copies = [changed(original, draws.uniform(0.9, 0.98), draws) for _ in range(size - 1)]
            groups.append((f"clusters of {size:,}", [original, *copies]))
    for length, number in CHAINS.items():
        for _ in range(number):
            chain = [document(draws)]
            while len(chain) < length:
                chain.append(changed(chain[-1], 0.88, draws))
            groups.append((f"chains of {length}", chain))
    groups += [("unrelated", [document(draws)]) for _ in range(UNRELATED)]
    planted = [Planted(words, kind, number) for number, (kind, members) in enumerate(groups)
               for words in members]
    draws.shuffle(planted)
    return planted


def runs_of(words: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(words[i:i + cleaning.SHINGLE_WORDS])
            for i in range(len(words) - cleaning.SHINGLE_WORDS + 1)}


def dropped_by_pairs(number: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """Which documents are not the first of their connected component."""
    parent = list(range(number))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in pairs:
        first, second = sorted((root(a), root(b)))
        parent[second] = first
    return np.array([root(i) != i for i in range(number)])


def dropped_by_truth(planted: Sequence[Planted], threshold: float) -> np.ndarray:
    """Documents of different groups have no run in common."""
    members: dict[int, list[int]] = {}
    for i, each in enumerate(planted):
        members.setdefault(each.group, []).append(i)
    runs = [runs_of(each.words) for each in planted]

    def similar(a: int, b: int) -> bool:
        both = len(runs[a] & runs[b])
        return both >= threshold * (len(runs[a]) + len(runs[b]) - both)

    return dropped_by_pairs(len(planted), (
        pair for group in members.values() for pair in itertools.combinations(group, 2)
        if similar(*pair)))


def keys_of(documents: Sequence[Sequence[str]], threshold: float) -> np.ndarray:
    texts = [" ".join(words) for words in documents]
    return np.concatenate([cleaning.duplicate_keys(texts[first:first + BATCH], "near", threshold)
                           for first in range(0, len(texts), BATCH)])


def dropped_by_ours(planted: Sequence[Planted], threshold: float) -> np.ndarray:
    keys = keys_of([each.words for each in planted], threshold)
    return cleaning.group_duplicates(keys.T)[0]


def dropped_by_datasketch(planted: Sequence[Planted], threshold: float) -> np.ndarray:
    index = datasketch.MinHashLSH(threshold=threshold, num_perm=cleaning.NUM_PERMUTATIONS)
    pairs: list[tuple[int, int]] = []
    for i, each in enumerate(planted):
        signature = datasketch.MinHash(num_perm=cleaning.NUM_PERMUTATIONS)
        signature.update_batch([" ".join(run).encode() for run in runs_of(each.words)])
        pairs += [(other, i) for other in index.query(signature)]
        index.insert(i, signature)
    return dropped_by_pairs(len(planted), pairs)


def show_planted(threshold: float, seed: int) -> None:
    planted = plant(random.Random(seed))
    truth = dropped_by_truth(planted, threshold)
    peers = {"ours": dropped_by_ours(planted, threshold),
             "datasketch": dropped_by_datasketch(planted, threshold)}
    index = datasketch.MinHashLSH(threshold=threshold, num_perm=cleaning.NUM_PERMUTATIONS)
    shapes = {"ours": cleaning.band_shape(threshold), "datasketch": (index.b, index.r)}
    print(f"threshold {threshold}: bands and rows {shapes}; dropped documents\n")
    print("| planted | documents | truth | ours | datasketch |\n|---|---|---|---|---|")
    for kind in dict.fromkeys(each.kind for each in sorted(planted, key=lambda each: each.group)):
        of_kind = np.array([each.kind == kind for each in planted])
        print(f"| {kind} | {of_kind.sum():,} | {truth[of_kind].sum():,} | "
              + " | ".join(f"{found[of_kind].sum():,}" for found in peers.values()) + " |")
    for name, of in (("precision", lambda found: (found & truth).sum() / found.sum()),
                     ("recall", lambda found: (found & truth).sum() / truth.sum())):
        print(f"| {name} | | | " + " | ".join(f"{of(found):.1%}" for found in peers.values()) + " |")
    print("\n| similarity | " + " | ".join(f"{similarity}" for similarity in SIMILARITIES)
          + " |\n|---" + "|---" * len(SIMILARITIES) + "|")
    for name, shape in shapes.items():
        print(f"| {name}, expected of pairs | " + " | ".join(
            f"{cleaning.share_found(similarity, *shape):.0%}" for similarity in SIMILARITIES) + " |")


def show_scale(threshold: float, documents: int, seed: int) -> None:
    """Keys of many short documents in files, as the local engine has them, and their grouping."""
    draws, size, seconds = random.Random(seed), 0, 0.0
    with tempfile.TemporaryDirectory() as scratch:
        paths = []
        for first in range(0, documents, PART):
            texts = [document(draws, SHORT_WORDS) for _ in range(min(PART, documents - first))]
            size += sum(len(" ".join(words)) for words in texts)
            began = time.process_time()
            keys = keys_of(texts, threshold)
            seconds += time.process_time() - began
            paths.append(f"{scratch}/{first}.npy")
            np.save(paths[-1], np.ascontiguousarray(keys.T))
        rate, key_bytes = size / 1e6 / seconds, keys.shape[1] * 8
        print(f"\n{documents:,} documents of {SHORT_WORDS} words: keys at {rate:.1f} MB/s of CPU time, "
              f"{key_bytes} bytes a document in files")
        used, group_seconds = measured(lambda: cleaning.group_duplicates(
            np.concatenate([np.load(path, mmap_mode="r")[band] for path in paths])
            for band in range(keys.shape[1])))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"grouping them: {group_seconds:.1f} s of CPU time, {used / documents:.0f} bytes a "
              f"document in memory; peak of this process {peak:.2f} GB")
    number = CORPUS_BYTES / DOCUMENT_BYTES
    print(f"{CORPUS_BYTES / 1e9:.0f} GB in {number / 1e6:.0f} million documents, calculated: "
          f"{number * used / documents / 1e9:.1f} GB of memory, {number * key_bytes / 1e9:.1f} GB of "
          f"files, {CORPUS_BYTES / rate / 3600e6:.1f} core hours for the keys, "
          f"{number / documents * group_seconds / 60:.0f} minutes for the groups; on Beam "
          f"{number * key_bytes / 8 * beam_bytes() / 1e9:.0f} GB through a GroupByKey")


def measured(action: Callable[[], object]) -> tuple[int, float]:
    """The peak of what an action allocates, in bytes, and its CPU seconds; it is called for each."""
    began = time.process_time()
    action()
    seconds = time.process_time() - began
    tracemalloc.start()
    action()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, seconds


def beam_bytes() -> int:
    """Bytes of one key of a document as Beam sends it."""
    from apache_beam.coders import FastPrimitivesCoder
    return len(FastPrimitivesCoder().encode(((7, 2**63 + 5), (1_000, 10_000))))


def main() -> None:
    define("threshold", float, 0.8, "As --near_duplicate_threshold.",
           Range(above=0, high=0.98, why="for more there is dedup=exact"))
    define("seed", int, 1, "Of the documents.", Range(low=0, high=2**31, why="any number"))
    define("documents", int, 1_000_000, "How many short documents; 0: none.",
           Range(low=0, high=10**8, why="their keys have to fit on the disk"))
    prepare_tool()
    parse_flags_only()
    values = flags.FLAGS
    show_planted(values.threshold, values.seed)
    if values.documents:
        show_scale(values.threshold, values.documents, values.seed)


if __name__ == "__main__":
    run_main(main)
