"""A small corpus and vocabulary for tests of the builder, and readers of its output."""

import gzip
import hashlib
import json
import pathlib
import random

from data_prep import inspect_tfrecords
from data_prep.build.settings import BuildConfig
from electra_es.config import TextConfig
from electra_es.data import records
from electra_es.text.vocabulary import save_text_config

LETTERS = "abcdefghijklmnopqrstuvwxyzñ"
# Several tasks out of a small corpus; planned in the test's process, so all engines get them.
TASK_BYTES = 9_000


def make_vocabulary(path: pathlib.Path) -> str:
    """61 entries: five special tokens, each letter at the start and inside of a word, two words."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS,
              *("##" + letter for letter in LETTERS), "casa", "##ción"]
    (path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    config = save_text_config(path, TextConfig())
    assert config.vocab_size == 61
    return str(path)


def sentence(draws: random.Random) -> str:
    return " ".join("".join(draws.choices(LETTERS, k=draws.randint(1, 7)))
                    for _ in range(draws.randint(1, 15)))


def make_corpus(path: pathlib.Path) -> pathlib.Path:
    """240 documents in three formats, different in number and length."""
    draws = random.Random(5)
    documents = [[sentence(draws) for _ in range(draws.randint(1, 6))] for _ in range(240)]
    texts = ["\n".join(sentences) for sentences in documents]
    (path / "a.txt").write_text("\n\n".join(texts[:130]), encoding="utf-8")
    with gzip.open(path / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"content": text}) + "\n" for text in texts[130:170])
    (path / "c.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in texts[170:]), encoding="utf-8")
    return path


def config(corpus, vocabulary, directory, **settings) -> BuildConfig:
    return BuildConfig(**{"input": f"{corpus}/*", "vocab_dir": vocabulary, "output": str(directory),
                          "max_seq_length": 40, "validation_fraction": 0.1, "workers": 1,
                          **settings})


def digests(directory) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in pathlib.Path(directory).iterdir() if path.is_file()}


def examples_of(directory, split="train") -> list[tuple[list[int], int]]:
    info = records.load_records_info(str(directory))
    return [(ids.tolist(), second)
            for ids, second in inspect_tfrecords.read_examples(str(directory), info, split)]


def stats_of(directory) -> dict:
    return json.loads((pathlib.Path(directory) / "stats.json").read_text())
