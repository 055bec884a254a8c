"""The rules on quality, decision by decision against the definitions, one document at a time."""

import collections
import random

from builder_helpers import config, stats_of
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.build.job import build_tfrecords
from data_prep.corpus import quality, readers, word_arrays
from electra_es import files
from electra_es.sample import TRAIN_GLOB

T = quality.THRESHOLDS["fineweb2_es"]


def split(text: str) -> list[str]:
    """Runs of letters, digits and marks, a dot and the like inside; other visible characters alone."""
    kinds = [word_arrays.tables().classes[ord(character)] for character in text]
    words, run = [], ""
    for i, (character, kind) in enumerate(zip(text, kinds, strict=True)):
        joins = character in word_arrays.JOINS and 0 < i < len(text) - 1 and (
            min(kinds[i - 1], kinds[i + 1]) >= word_arrays.DIGIT)
        if kind >= word_arrays.DIGIT or joins:
            run += character
            continue
        words += [run] if run else []
        run = ""
        words += [character] if kind == word_arrays.VISIBLE else []
    return words + ([run] if run else [])


def repeated(parts: list[str]) -> tuple[int, int]:
    again = [part for i, part in enumerate(parts) if part in parts[:i]]
    return len(again), sum(map(len, again))


def expected_reason(text: str) -> str | None:
    """The rules in words, as Gopher and FineWeb have them."""
    words = split(text)
    lines = text.split("\n")
    # A run of line ends separates once; it leaves an empty part at the start and the end of the text.
    parts = [part for i, part in enumerate(lines) if part or (i == 0 and len(lines) > 1)
             or (i == len(lines) - 1 and len(lines) > 1)]
    if repeated(parts)[0] / max(1, len(parts)) > T.duplicate_lines:
        return "duplicate_lines"
    for n, share in T.top_runs:
        runs = collections.Counter(" ".join(words[i:i + n]) for i in range(len(words) - n + 1))
        if runs:
            run, count = runs.most_common(1)[0]
            if len(run) * count / len(text) > share:
                return f"top_{n}_words"
    for n, share in T.duplicate_runs:
        seen, characters, i = set(), 0, 0
        while i < len(words) - n + 1:
            run = tuple(words[i:i + n])
            if run in seen:
                characters += sum(map(len, run))
                i += n
            else:
                seen.add(run)
                i += 1
        if characters / len(text) > share:
            return f"duplicate_{n}_words"
    visible = [line for line in lines if line.strip()]
    ending = sum(line.endswith(tuple(word_arrays.TERMINAL)) for line in visible)
    if ending / len(visible) < T.line_punctuation:
        return "line_punctuation"
    if repeated(visible)[1] / len(text.replace("\n", "")) > T.duplicate_line_characters:
        return "duplicate_line_characters"
    if text.count("\n") / max(1, len(words)) > T.new_lines:
        return "new_lines"
    proper = [word for word in words if word not in word_arrays.SYMBOLS]
    if not T.words[0] <= len(proper) <= T.words[1]:
        return "few_words" if len(proper) < T.words[0] else "many_words"
    if not T.word_length[0] <= sum(map(len, proper)) / len(proper) <= T.word_length[1]:
        return "word_length"
    if text.count("#") / len(words) > T.symbols:
        return "hashes"
    if (text.count("...") + text.count("…")) / len(words) > T.symbols:
        return "ellipses"
    all_lines = lines[:-1] if lines[-1] == "" else lines
    if sum(line.lstrip().startswith(("•", "-")) for line in all_lines) / len(all_lines) > T.bullets:
        return "bullets"
    trailing = sum(line.rstrip().endswith(("...", "…")) for line in all_lines)
    if trailing / len(all_lines) > T.ellipsis_lines:
        return "ellipsis_lines"
    if sum(any(map(str.isalpha, word)) for word in words) / len(words) < T.alphabetic_words:
        return "alphabetic_words"
    return None if len(set(words) & set(T.stop_words)) >= 2 else "stop_words"


def check(texts: list[str]) -> collections.Counter:
    expected = [reason and quality.PREFIX + reason for reason in map(expected_reason, texts)]
    assert quality.reasons(texts, T) == expected
    for i, text in enumerate(texts[:40]):  # alone as in company
        assert quality.reasons([text], T) == expected[i:i + 1]
    return collections.Counter(expected)


def good(draws: random.Random, size: int = 60) -> str:
    words = [f"palabra{draws.randint(0, 10**6)}" for _ in range(size)]
    words[3], words[9], words[-1] = "de", "la", "fin."
    return " ".join(words).replace("palabra", "".join(draws.choices("abcdeñé", k=4)), 20)


SPOILT = {
    "duplicate_lines": lambda text, draws: text + "\nAsí." * 6 + "\notra.\nmás.",
    "top_2_words": lambda text, draws: text + " santa clara" * 30,
    "top_3_words": lambda text, draws: " ".join(
        f"{word} uno dos tresillo" if i % 4 == 0 else word for i, word in enumerate(text.split())),
    "duplicate_5_words": lambda text, draws: text + " " + " ".join(text.split()[10:30]),
    "line_punctuation": lambda text, draws: text[:-1] + "\n" + good(draws)[:-1],
    "new_lines": lambda text, draws: ".\n".join(
        " ".join(text.split()[i:i + 5]) for i in range(0, 60, 5)),
    "few_words": lambda text, draws: " ".join(text.split()[:45]) + ".",
    "word_length": lambda text, draws: " ".join(word * 4 for word in text.split()) + ".",
    "hashes": lambda text, draws: text.replace(" ", " # ", 12),
    "ellipses": lambda text, draws: text.replace(" ", "… ", 12),
    "bullets": lambda text, draws: "- " + text,
    "ellipsis_lines": lambda text, draws: text.rstrip(".") + "...",
    "alphabetic_words": lambda text, draws: " ".join(
        str(draws.randint(100, 10**6)) if i % 4 == 0 else word for i, word in enumerate(text.split()))
        + " de la fin.",
    "stop_words": lambda text, draws: text.replace(" la ", " lo "),
}


def test_each_rule_drops_what_it_is_there_for():
    draws = random.Random(7)
    for name, spoil in SPOILT.items():
        text = good(draws)
        assert check([text, spoil(text, draws), text]) == {
            None: 2, quality.PREFIX + name: 1}, name


def test_decisions_on_the_sample_and_on_documents_made_of_its_parts():
    texts = [document.text for path, _ in files.find(TRAIN_GLOB)
             for document in readers.read_documents(path)]
    draws = random.Random(3)
    mixed = []
    for _ in range(400):
        lines = [line for text in draws.sample(texts, 2) for line in text.split("\n")]
        lines = draws.choices(lines, k=draws.randint(1, 8))
        mixed.append(draws.choice(["\n", "\n\n", " "]).join(lines)[:draws.randint(50, 4_000)])
    found = check([text for text in texts + mixed if text.strip()])
    assert len(found) >= 6 and found[None] > 100


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text(st.sampled_from("aab de\n\n.…-•#1ñ\u0301\u200b字"), min_size=1, max_size=60)
                .filter(lambda text: text.strip()), max_size=5))
def test_decisions_on_any_text(texts):
    check(texts)


def test_the_flag(vocab_dir, tmp_path):
    draws = random.Random(5)
    texts = [good(draws) for _ in range(30)]
    bad = [SPOILT["hashes"](text, draws) for text in texts[:4]] + ["Corto."] * 3
    (tmp_path / "a.txt").write_text("\n\n".join([*texts, *bad]), encoding="utf-8")
    build_tfrecords(config(tmp_path, vocab_dir, tmp_path / "records", input=f"{tmp_path}/a.txt",
                           quality="fineweb2_es", validation_fraction=0.0))
    stats = stats_of(tmp_path / "records")
    assert stats["documents"] == 30 and stats["dropped_documents"]["quality_hashes"] == 4
    assert sum(stats["dropped_documents"].values()) == 7
    kept = sum(len(text.encode()) for text in texts)
    assert stats["text_bytes"] == kept
    assert sum(stats["dropped_bytes"].values()) == sum(len(text.encode()) for text in bad)
