r"""Measures data preparation: speed, what is lost, engines, memory, ids against a peer.

    python -m benchmarks.data_prep --text=FOLDER [--vocab_dir=DIR --parts=speed,quality,...]

With 30 MB of text and a vocabulary this takes about seven minutes on two cores. `speed` runs both
sides in this one process, alternately, and gives megabytes per second of CPU time (what one core
does) beside the wall clock, which on a busy machine says little. The peer is `original_builder`:
the original's scheme and tokeniser in Python. `workers` runs the whole command on 0.3 and 2 GB (the
text over and over, in copies) with one worker and with two, and looks at the memory of its
processes meanwhile; `compressed` does so on one compressed file, which the workers share. `rules`
adds those of --quality.
"""

import concurrent.futures
import contextlib
import gzip
import hashlib
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from absl import flags

from benchmarks.original_builder import (
    OriginalExampleBuilder,
    OriginalTokenizer,
    original_examples,
    original_records,
)
from data_prep.build.job import build_tfrecords
from data_prep.build.settings import BuildConfig
from data_prep.command_line import prepare_tool
from data_prep.corpus import listing, readers
from data_prep.train_vocabulary import train_vocabulary
from electra_es.config import TextConfig
from electra_es.data import records
from electra_es.errors import CheckFailed, UsageError, run_main
from electra_es.flags import parse_flags_only
from electra_es.text.tokenizer import Tokenizer, load_tokenizer
from electra_es.text.vocabulary import save_text_config

PARTS = ("speed", "rules", "workers", "compressed", "quality", "engines", "ids")
PEER_BYTES = 2_000_000
# Loading the vocabulary and auditing it take a second, whatever the input's size.
SPEED_BYTES = 120e6
COMPRESSED_BYTES = 300e6
LENGTH = 512
_SECONDS_BETWEEN_LOOKS = 3


class Report:
    """Prints each figure at once, and collects the figures that miss their bar."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def add(self, name: str, value: float, unit: str, at_least: float | None = None,
            at_most: float | None = None) -> None:
        holds = ((at_least is None or value >= at_least) and (at_most is None or value <= at_most))
        bar = (f"at least {at_least}" if at_least is not None
               else f"at most {at_most}" if at_most is not None else "")
        print(f"{name:<58}{value:>10.3f} {unit:<9}{bar:<15}{'' if holds else 'MISSED'}", flush=True)
        if not holds:
            self.missed.append(name)


def build(text: str, vocab_dir: str, output: pathlib.Path, **settings) -> dict[str, float]:
    """Builds records; returns seconds of wall clock and of this process's CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    build_tfrecords(BuildConfig(**{"input": text, "vocab_dir": vocab_dir, "output": str(output),
                                   "max_seq_length": LENGTH, "workers": 1, **settings}))
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def measure_speed(report: Report, text: str, vocab_dir: str, scratch: pathlib.Path) -> None:
    """Text to finished shards, by ours and by the peer."""
    long = _repeated(text, scratch / "long", SPEED_BYTES)
    size = sum(size for _, size in listing.list_files(long)) / 1e6
    ours: dict[str, list[float]] = {"wall": [], "cpu": []}
    peers: list[float] = []
    tokenizer = load_tokenizer(vocab_dir)
    sample = _sample(text)
    for attempt in range(4):  # The first one warms up.
        seconds = build(long if attempt else text, vocab_dir, scratch / f"speed{attempt}")
        peer_seconds = _peer_seconds(sample, tokenizer, scratch / f"peer{attempt}")
        if attempt:
            for clock, value in seconds.items():
                ours[clock].append(size / value)
            peers.append(sum(map(len, map(str.encode, sample))) / 1e6 / peer_seconds)
    report.add("text to shards, one worker, per CPU second", statistics.median(ours["cpu"]), "MB/s",
               at_least=12)
    report.add("  the same by the wall clock", statistics.median(ours["wall"]), "MB/s")
    report.add("original's builder in Python, per CPU second", statistics.median(peers), "MB/s")
    report.add("ratio", statistics.median(ours["cpu"]) / statistics.median(peers), "x", at_least=10)


def measure_rules(report: Report, text: str, vocab_dir: str, scratch: pathlib.Path) -> None:
    """Text to finished shards with the rules on quality, and without them, by turns."""
    long = _repeated(text, scratch / "rules", SPEED_BYTES)
    size = sum(size for _, size in listing.list_files(long)) / 1e6
    rates: dict[str, list[float]] = {"none": [], "fineweb2_es": []}
    for attempt in range(4):  # The first one warms up.
        for rules, found in rates.items():
            seconds = build(long if attempt else text, vocab_dir, scratch / f"{rules}{attempt}",
                            quality=rules)
            if attempt:
                found.append(size / seconds["cpu"])
    with_rules, without = (statistics.median(rates[rules]) for rules in ("fineweb2_es", "none"))
    report.add("text to shards with --quality=fineweb2_es, per CPU second", with_rules, "MB/s",
               at_least=10)
    report.add("  against none", with_rules / without, "x")


def measure_compressed(report: Report, text: str, vocab_dir: str, scratch: pathlib.Path) -> None:
    """The whole command on one compressed file, with one worker and with two, by turns."""
    path = scratch / "one.jsonl.gz"
    size = 0
    with gzip.open(path, "wt", compresslevel=6, encoding="utf-8") as file:
        while size < COMPRESSED_BYTES:
            for source, _ in listing.list_files(text):
                for document in readers.read_documents(source):
                    size += len(document.text.encode())
                    file.write(json.dumps({"text": document.text}, ensure_ascii=False) + "\n")
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for attempt in range(2):
        for workers, found in seconds.items():
            found.append(_command([
                f"--input={path}", f"--vocab_dir={vocab_dir}", f"--workers={workers}",
                f"--output={scratch / f'compressed{attempt}-{workers}'}"])["wall"])
    report.add("one file of 0.3 GB as .jsonl.gz, two workers", size / 1e6 / min(seconds[2]), "MB/s")
    report.add("  two workers against one", min(seconds[1]) / min(seconds[2]), "x")


def _sample(text: str) -> list[str]:
    """Documents of about `PEER_BYTES` from all files in turn."""
    each = PEER_BYTES // len(listing.list_files(text))
    sample: list[str] = []
    for path, _ in listing.list_files(text):
        size = 0
        for document in readers.read_documents(path):
            sample.append(document.text)
            size += len(document.text.encode())
            if size >= each:
                break
    return sample


def _peer_seconds(documents: Sequence[str], tokenizer: Tokenizer, path: pathlib.Path) -> float:
    import tensorflow as tf
    peer = OriginalTokenizer(tokenizer.vocab, lower_case=False)
    builder = OriginalExampleBuilder(peer.ids, LENGTH, random.Random(1))
    lines = [line for document in documents for line in (*document.split("\n"), "")]
    began = time.process_time()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for data in original_records(original_examples(lines, builder), LENGTH,
                                     tokenizer.cls_id, tokenizer.sep_id):
            writer.write(data)
    return time.process_time() - began


def measure_quality(report: Report, text: str, vocab_dir: str, scratch: pathlib.Path) -> None:
    """Shares of dropped tokens and padding, and the size of a token."""
    for name, settings in (("carry_over, documents joined", {}),
                           ("carry_over, one document an example", {"packing": "none"}),
                           ("the original's scheme", {"scheme": "original"})):
        for length in (128, 512):
            output = scratch / f"quality-{len(name)}-{length}"
            build(text, vocab_dir, output, max_seq_length=length, **settings)
            stats = json.loads((output / records.STATS_FILE).read_text())
            strict = not settings and length == 512
            label = f"{name}, L={length}"
            report.add(f"{label}: dropped tokens", stats["dropped_tokens"] / stats["tokens"], "share",
                       at_most=0 if not settings else None)
            report.add(f"{label}: padding", stats["padding_fraction"], "share",
                       at_most=0.03 if strict else None)
            if not settings:
                report.add(f"{label}: bytes a token", stats["bytes_per_token"], "bytes",
                           at_most=2.0 if strict else None)


def compare_engines(report: Report, text: str, vocab_dir: str, scratch: pathlib.Path) -> None:
    """SHA-256 of all files, by each engine."""
    digests = set()
    for runner in ("local", "DirectRunner"):
        for workers in (1, 2):
            output = scratch / f"engine-{runner}-{workers}"
            build(text, vocab_dir, output, runner=runner, workers=workers)
            whole = hashlib.sha256()
            for path in sorted(output.iterdir()):
                whole.update(path.name.encode() + path.read_bytes())
            digests.add(whole.hexdigest())
    report.add("different results of four engines and worker counts", len(digests), "", at_most=1)


def measure_workers(report: Report, text: str, vocab_dir: str, scratch: pathlib.Path) -> None:
    """The whole command with one worker and with two: seconds, and memory as the input grows."""
    peaks = []
    for size in (0.3e9, 2e9):
        many = _repeated(text, scratch / f"many{size:.0f}", size)
        one, two = (_command(["--input", many, "--vocab_dir", vocab_dir, "--output",
                              str(scratch / f"out{size:.0f}-{workers}"), f"--workers={workers}"])
                    for workers in (1, 2))
        label, strict = f"{size / 1e9:.1f} GB", size == 2e9
        if not strict:
            report.add(f"{label}, two independent jobs at once against one",
                       2 * one["wall"] / _two_at_once(many, vocab_dir, scratch), "x")
        for name, used in (("one worker", one), ("two workers", two)):
            report.add(f"{label}, {name}, whole command", size / 1e6 / used["wall"], "MB/s")
        report.add(f"{label}, two workers against one", one["wall"] / two["wall"], "x",
                   at_least=1.7 if strict else None)
        peaks.append(max(one["peak_bytes"], two["peak_bytes"]) / 1e9)
        report.add(f"{label}, largest process", peaks[-1], "GB", at_most=1.5)
        report.add(f"{label}, all processes of two workers together", two["together"] / 1e9, "GB")
    report.add("growth of the largest process with the input", peaks[1] / peaks[0], "x", at_most=1.1)


def _two_at_once(text: str, vocab_dir: str, scratch: pathlib.Path) -> float:
    """Seconds of two jobs of one worker each, at the same time: two workers of one job are not quicker,
    where the cores share memory or more."""
    def job(number: int) -> None:
        _command(["--input", text, "--vocab_dir", vocab_dir, "--workers=1",
                  "--output", str(scratch / f"independent-{number}")])

    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        list(threads.map(job, (1, 2)))
    return time.perf_counter() - began


def _repeated(text: str, folder: pathlib.Path, size: float) -> str:
    """A folder of copies of the files of `text`, repeated up to at least `size` bytes.

    No links: a file that several links lead to is read once.
    """
    folder.mkdir()
    total, round_ = 0, 0
    while total < size:
        for path, file_size in listing.list_files(text):
            copy = folder / f"{round_:04d}-{os.path.basename(path)}"
            shutil.copyfile(path, copy)
            total += file_size
        round_ += 1
    return str(folder)


def _command(arguments: Sequence[str]) -> dict[str, float]:
    """Runs the builder's command.

    Returns:
      wall: seconds.
      peak_bytes: largest resident set of any of its processes.
      together: largest sum of their proportional set sizes, which count shared memory once.
    """
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "data_prep.build_tfrecords", *arguments,
                                f"--max_seq_length={LENGTH}"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = together = 0
    while True:
        # Rarely: adding up the pages of a process holds it up.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_BETWEEN_LOOKS)
            break
        used = [_memory(pid) for pid in _with_descendants(process.pid)]
        peak = max(peak, *(resident for resident, _ in used))
        together = max(together, sum(proportional for _, proportional in used))
    if process.returncode:
        raise CheckFailed(f"build_tfrecords {' '.join(arguments)} ended with {process.returncode}")
    return {"wall": time.perf_counter() - began, "peak_bytes": peak, "together": together}


def _with_descendants(pid: int) -> list[int]:
    """`pid` and all processes below it (Linux)."""
    children: dict[int, list[int]] = {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        parent = _kilobytes_or_number(path / "status", "PPid")
        children.setdefault(parent, []).append(int(path.name))
    found = [pid]
    for process in found:
        found += children.get(process, [])
    return found


def _memory(pid: int) -> tuple[int, int]:
    """(peak resident set, proportional set) of a process in bytes; 0 when it is gone.

    Not getrusage's figure: a process inherits that of the one that started it.
    """
    folder = pathlib.Path(f"/proc/{pid}")
    return (_kilobytes_or_number(folder / "status", "VmHWM") * 1024,
            _kilobytes_or_number(folder / "smaps_rollup", "Pss") * 1024)


def _kilobytes_or_number(path: pathlib.Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0  # It has ended since.
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def compare_ids(report: Report, text: str, vocab_dir: str, scratch: pathlib.Path) -> None:
    """Ids of all lines against Hugging Face tokenizers' WordPiece, both accent settings."""
    lines = [line for path, _ in listing.list_files(text) for document in readers.read_documents(path)
             for line in document.text.split("\n") if line.strip()]
    for strip_accents in (False, True):
        directory = scratch / f"accents-{strip_accents}"
        directory.mkdir()
        (directory / "vocab.txt").write_bytes(
            (pathlib.Path(vocab_dir) / "vocab.txt").read_bytes())
        save_text_config(directory, TextConfig(strip_accents=strip_accents))
        peer = _reference_wordpiece(str(directory / "vocab.txt"), strip_accents)
        different = []
        tokenizer = load_tokenizer(directory)
        for start in range(0, len(lines), 4096):
            chunk = lines[start:start + 4096]
            different += [line for line, ours, theirs in zip(
                chunk, tokenizer.encode_batch(chunk), peer(chunk), strict=True)
                if ours.tolist() != theirs]
        report.add(f"lines of {len(lines)} with other ids, strip_accents={strip_accents}",
                   len(different), "", at_most=0)
        for line in different[:5]:
            print(f"    {line[:100]!r}")


def _reference_wordpiece(vocab_file: str, strip_accents: bool
                         ) -> Callable[[list[str]], list[list[int]]]:
    import tokenizers
    vocab = tokenizers.models.WordPiece.read_file(vocab_file)
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(
        vocab, unk_token="[UNK]", max_input_chars_per_word=200))
    model.normalizer = tokenizers.normalizers.Sequence([
        tokenizers.normalizers.NFC(),
        tokenizers.normalizers.BertNormalizer(lowercase=False, strip_accents=strip_accents)])
    model.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return lambda lines: [encoding.ids for encoding in model.encode_batch(lines)]


def main() -> None:
    flags.DEFINE_string("text", None, "Folder or glob of text files.")
    flags.DEFINE_string("vocab_dir", None, "WordPiece vocabulary; absent: 50,000 entries of --text.")
    flags.DEFINE_list("parts", list(PARTS), f"Some of {', '.join(PARTS)}.")
    flags.DEFINE_string("scratch", None, "Where to put files (3 GB); absent: temporary directory.")
    prepare_tool()
    parse_flags_only()
    values = flags.FLAGS
    if not values.text or not set(values.parts) <= set(PARTS):
        raise UsageError(f"expected --text=FOLDER and --parts out of {', '.join(PARTS)}")
    print("all parts: about seven minutes on two cores", flush=True)
    report = Report()
    measures = {"speed": measure_speed, "rules": measure_rules, "workers": measure_workers,
                "compressed": measure_compressed, "quality": measure_quality, "engines": compare_engines,
                "ids": compare_ids}
    with tempfile.TemporaryDirectory(dir=values.scratch) as scratch:
        vocab_dir = values.vocab_dir or os.path.join(scratch, "vocabulary")
        if not values.vocab_dir:
            train_vocabulary(values.text, vocab_dir, TextConfig())
        for part in values.parts:
            measures[part](report, values.text, vocab_dir, pathlib.Path(scratch))
    if report.missed:
        raise CheckFailed(f"{len(report.missed)} figures miss their bar: {'; '.join(report.missed)}")


if __name__ == "__main__":
    run_main(main)
