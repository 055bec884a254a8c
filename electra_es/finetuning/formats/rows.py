"""What all readers share: lines of a file, and what happens to a row that is wrong."""

from collections import Counter
from collections.abc import Iterator

import tensorflow as tf

from electra_es.errors import UsageError, nearest_hint
from electra_es.finetuning.tasks import Task

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class BadRow(Exception):
    """A row that cannot be used.

    Attributes:
      reason: the same words for all rows of the kind, for counting.
      detail: what stands in this one and what was expected.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Rows:
    """Counts what is left out, or ends at the first bad row.

    Attributes:
      dropped: how many were left out, by reason.
    """

    def __init__(self, skip_bad_rows: bool) -> None:
        self.dropped: Counter[str] = Counter()
        self._skip = skip_bad_rows

    def bad(self, where: str, error: BadRow) -> None:
        """A row that is wrong.

        Raises:
          UsageError: unless such rows are skipped.
        """
        if not self._skip:
            detail = f" ({error.detail})" if error.detail else ""
            raise UsageError(f"{where}: {error.reason}{detail}; --skip_bad_rows leaves such rows out "
                             "and counts them")
        self.dropped[error.reason] += 1

    def drop(self, rule: str) -> None:
        """A row that a rule of the task leaves out."""
        self.dropped[rule] += 1


def read_bytes(path: str) -> bytes:
    """The whole of a local or gs:// file, without the mark that some programs put before UTF-8.

    Raises:
      UsageError: it cannot be read.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read().removeprefix(_BYTE_ORDER_MARK)
    except tf.errors.OpError as error:
        raise UsageError(f"{path}: cannot be read ({error.message})") from None


_OF_TASK = " (the task's setting encoding)"


def read_lines(path: str, encoding: str, origin: str = _OF_TASK) -> Iterator[tuple[int, str]]:
    """(line number, line without its end). Only a line feed ends a line: U+2028 and its like are text.

    Args:
      path: a local or gs:// file.
      encoding: utf-8 or latin-1.
      origin: who chose the encoding, for the message.

    Raises:
      UsageError: it cannot be read, or not in this encoding.
    """
    lines = read_bytes(path).split(b"\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        yield number, decode(line, encoding, f"{path}:{number}", origin).removesuffix("\r")


def decode(data: bytes, encoding: str, where: str, origin: str = _OF_TASK) -> str:
    """The text of a line.

    Raises:
      UsageError: it is not in this encoding.
    """
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: byte {error.start} of the line is not {encoding}: expected "
                         f"{encoding}{origin}") from None


def to_label(task: Task, text: object) -> str:
    """The name of a class as the task spells it.

    Raises:
      BadRow: unknown.
    """
    label = str(text)
    label = task.label_aliases.get(label, label)
    if label not in task.labels:
        raise BadRow("unknown label", f'"{text}": expected one of {_some(task.labels)}'
                                      f"{nearest_hint(label, task.labels)}")
    return label


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
