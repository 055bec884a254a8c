"""SQuAD 1.1 and 2.0 JSON."""

import json
from collections.abc import Iterator
from typing import Any

from electra_es.errors import UsageError
from electra_es.finetuning.examples import Question
from electra_es.finetuning.formats.rows import BadRow, Rows, decode, read_bytes
from electra_es.finetuning.tasks import Task


def read_squad(task: Task, path: str, rows: Rows) -> Iterator[Question]:
    """Questions of a file, in order; a row is one question, named by its id."""
    try:
        values = json.loads(decode(read_bytes(path), task.encoding, path))
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path}: not JSON ({error})") from None
    data = values.get("data") if isinstance(values, dict) else None
    if not isinstance(data, list):
        raise UsageError(f'{path}: expected SQuAD\'s layout, a JSON object with a list "data"')
    seen: set[str] = set()
    for number, article in enumerate(data):
        for paragraph, place in _list(article, "paragraphs", f"{path}: article {number}"):
            for item, where in _list(paragraph, "qas", f"{place}"):
                where = f'{path}: question "{item["id"]}"' if "id" in item else where
                try:
                    question = _question(task, item, paragraph.get("context"), where)
                    if question.id in seen:
                        raise BadRow("an id that is there already", question.id)
                    seen.add(question.id)
                    yield question
                except BadRow as error:
                    rows.bad(where, error)


def _question(task: Task, item: dict[str, Any], context: Any, where: str) -> Question:
    for name, text in (("id", item.get("id")), ("question", item.get("question")),
                       ("context", context)):
        if not isinstance(text, str) or not text.strip():
            raise BadRow(f"no {name}", "expected a text")
    impossible = bool(item.get("is_impossible", False)) or (
        task.unanswerable and item.get("answers") == [])
    if impossible and not task.unanswerable:
        raise BadRow("a question without an answer",
                     "expected an answer, or a task with unanswerable=true")
    answers = () if impossible else tuple(_answers(item.get("answers"), context))
    return Question(item["id"], item["question"], context, answers, impossible, where)


def _answers(found: Any, context: str) -> Iterator[tuple[str, int]]:
    if not isinstance(found, list) or not found:
        raise BadRow("no answers", "expected a list")
    for answer in found:
        text, start = ((answer.get("text"), answer.get("answer_start"))
                       if isinstance(answer, dict) else (None, None))
        if not isinstance(text, str) or not isinstance(start, int) or not text.strip():
            raise BadRow("an answer without text or answer_start", f"{answer!r}")
        if start < 0 or context[start:start + len(text)] != text:
            raise BadRow("the answer is not where answer_start says",
                         f'"{text}" at {start}, where the context has '
                         f'"{context[max(0, start):start + len(text)]}"')
        yield text, start


def _list(value: Any, name: str, where: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of the list `value[name]`, with their places."""
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, list) or not all(isinstance(part, dict) for part in found):
        raise UsageError(f'{where}: expected a JSON object with a list of objects "{name}"')
    for number, part in enumerate(found):
        yield part, f"{where}, {name} {number}"
