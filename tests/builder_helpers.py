"""A small corpus and vocabulary for tests of the builder, and readers of its output."""

import gzip
import hashlib
import json
import os
import pathlib
import random
import subprocess
import time
import uuid

from paths import ROOT

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


def processes_with(mark: str) -> list[int]:
    """All processes that inherited the variable MARK=`mark`."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"MARK={mark}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            pass  # It has ended since, or is another user's.
    return found


def stop_job(command: list[str], output: pathlib.Path, sign: str, number: int, code: int, *,
             whole_group: bool = False, seconds: float = 60) -> str:
    """Starts the command and signals it once a file of the pattern `sign` is in `output`; waits until
    none of its processes is left.

    Args:
      number: of the signal.
      code: the exit code that is expected.
      whole_group: whether all its processes get the signal, as by Ctrl-C.
      seconds: in which the sign has to come and all processes have to end.

    Returns:
      what it wrote to stderr.
    """
    mark = uuid.uuid4().hex
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True,
                               start_new_session=True, env={**os.environ, "MARK": mark})
    deadline = time.monotonic() + seconds
    while not list(output.glob(sign)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    (os.killpg if whole_group else os.kill)(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    while processes_with(mark):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.02)
    assert not (output / "COMPLETED").exists()
    return errors
