"""CoNLL columns and CoNLL-U: one word a line, a blank line between sentences."""

import re
from collections.abc import Iterator

from electra_es.errors import UsageError
from electra_es.finetuning.examples import TaggingExample
from electra_es.finetuning.formats.rows import BadRow, Rows, read_lines, to_label
from electra_es.finetuning.tasks import Task

_CONLLU_FIELDS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
_BLANKS = re.compile("[ \t]+")
# What is not a word of CoNLL-U: 15-16 (two words written as one), 8.1 (a word not written).
_NO_WORD = re.compile(r"\d+[-.]\d+")


def read_conll(task: Task, path: str, rows: Rows) -> Iterator[TaggingExample]:
    """Sentences of a file; a bad line makes its whole sentence bad."""
    is_conllu = task.layout == "conllu"
    word_column, label_column = (_number(task, role, is_conllu) for role in ("word", "label"))
    width = len(_CONLLU_FIELDS) if is_conllu else 0
    # Counted from the left and from the right; word and label are never the same field.
    least = max(word_column + 1, label_column + 1, 0) + max(-word_column, -label_column, 0)
    words: list[str] = []
    labels: list[str] = []
    first, problem = 0, None

    def finished() -> Iterator[TaggingExample]:
        if problem is not None:
            rows.bad(*problem)
        elif words:
            yield TaggingExample(tuple(words), tuple(labels), f"{path}:{first}")

    for number, line in read_lines(path, task.encoding):
        if not line.strip(" \t") or line.startswith("-DOCSTART-"):
            yield from finished()
            words, labels, problem = [], [], None
            continue
        if is_conllu and line.startswith("#"):
            continue
        fields = _split(line, "\t" if is_conllu else task.separator)
        if is_conllu and not task.conllu_multiword and _NO_WORD.fullmatch(fields[0]):
            continue
        first = first if words or problem else number
        try:
            _check_width(len(fields), width, least)
            if not fields[word_column]:
                raise BadRow("empty word", f"expected one in column {word_column}")
            word, label = fields[word_column], to_label(task, fields[label_column])
            width = len(fields)  # All lines have as many as the first good one.
        except BadRow as error:
            problem = problem or (f"{path}:{number}", error)
            continue
        words.append(word)
        labels.append(label)
    yield from finished()


def _check_width(found: int, width: int, least: int) -> None:
    if found < max(width, least):
        raise BadRow("too few fields", f"{found}: expected {max(width, least)}")
    if width and found > width:
        raise BadRow("too many fields", f"{found}: expected {width}")


def _split(line: str, separator: str) -> list[str]:
    # Not str.split(), which takes a no-break space for a separator.
    return line.split(separator) if separator else _BLANKS.split(line.strip(" \t"))


def _number(task: Task, role: str, is_conllu: bool) -> int:
    column = task.columns[role]
    if is_conllu and column in _CONLLU_FIELDS:
        return _CONLLU_FIELDS.index(column)
    if not isinstance(column, int):
        names = f" or one of {', '.join(_CONLLU_FIELDS)}" if is_conllu else ""
        raise UsageError(f"columns: {role}={column!r}: expected a number{names}")
    return column
