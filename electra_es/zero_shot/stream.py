"""Many texts: some at a time, with the progress on stderr, to lines of a table, JSON or CSV."""

import csv
import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from electra_es import files
from electra_es.durations import format_duration
from electra_es.zero_shot.classifier import Classified

# Pairs that are sorted by length together. A later text waits for no more than these.
CHUNK_PAIRS = 1_024
_WIDTH = 100  # characters of a text in a table


def classify_stream(classify: Callable[[Sequence[str]], list[Classified]], texts: Sequence[str],
                    num_labels: int) -> Iterator[Classified]:
    """Yields every text's result, in order; prints a line on stderr after each chunk but a single one.

    Args:
      classify: from texts to results.
      texts: of any number.
      num_labels: C; with it a chunk's texts are about `CHUNK_PAIRS` pairs.
    """
    size = max(1, CHUNK_PAIRS // num_labels)
    start = time.monotonic()
    for first in range(0, len(texts), size):
        yield from classify(texts[first:first + size])
        done = min(first + size, len(texts))
        if len(texts) > size:
            speed = done / max(time.monotonic() - start, 1e-9)
            print(f"{done:,} of {len(texts):,} texts  {speed:.1f} texts/s  "
                  f"ETA {format_duration((len(texts) - done) / speed)}", file=sys.stderr, flush=True)


def table_lines(results: Iterable[Classified], labels: Sequence[str]) -> Iterator[str]:
    """A line with the text's beginning, below it a line for each label, and an empty one."""
    for result in results:
        text = " ".join(result.sequence.split())
        yield text if len(text) <= _WIDTH else text[:_WIDTH - 1] + "…"
        for label, score in zip(result.labels, result.scores, strict=True):
            yield f"  {score:.4f}  {label}"
        yield ""


def json_lines(results: Iterable[Classified], labels: Sequence[str]) -> Iterator[str]:
    """A JSON list with an object a line, whose keys are those of transformers' results."""
    before = "["
    for result in results:
        yield before + json.dumps(result._asdict(), ensure_ascii=False)
        before = ","
    yield "]"


def csv_lines(results: Iterable[Classified], labels: Sequence[str]) -> Iterator[str]:
    """CSV: the text, the most likely label, the score of each label in the order of `labels`."""
    yield _csv(["text", "best", *labels])
    for result in results:
        by_label = dict(zip(result.labels, result.scores, strict=True))
        yield _csv([result.sequence, result.labels[0], *(f"{by_label[label]:.6f}" for label in labels)])


def _csv(fields: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


FORMATS: dict[str, Callable[[Iterable[Classified], Sequence[str]], Iterator[str]]] = {
    "table": table_lines, "json": json_lines, "csv": csv_lines}


def write_lines(lines: Iterable[str], output: str) -> None:
    """Prints lines, or writes them to a file, which appears when it is whole; empty `output`: prints."""
    if not output:
        for line in lines:
            print(line.encode("utf-8", "replace").decode(), flush=True)
        return
    with files.atomic_write(output) as file:
        for line in lines:
            # A lone surrogate, which a text of JSON may hold, has no UTF-8 form.
            file.write(f"{line}\n".encode("utf-8", "replace"))
