"""Examples of the four kinds of task, as the readers give them."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TaggingExample:
    """A sentence with one label a word.

    Attributes:
      words: as the file has them, none of them empty.
      labels: names, as many as words.
      where: file and line of its first word, for messages.
    """

    words: tuple[str, ...]
    labels: tuple[str, ...]
    where: str = ""


@dataclass(frozen=True)
class TextExample:
    """One text or two, with the name of a class (classification) or a score (regression)."""

    texts: tuple[str, ...]
    label: str | float
    where: str = ""


@dataclass(frozen=True)
class Question:
    """A question about a text.

    Attributes:
      id: unique in its split.
      question, context: as the file has them.
      answers: (text, character of the context where it starts); empty if it has none.
      is_impossible: whether the context does not answer it.
      where: file and id, for messages.
    """

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]
    is_impossible: bool = False
    where: str = ""


@dataclass(frozen=True)
class Split:
    """The examples of train, dev or test.

    Attributes:
      name: of the split.
      examples: in the order of the files; all of one of the classes above.
      dropped: how many were left out, by reason.
    """

    name: str
    examples: list[Any]
    dropped: dict[str, int] = field(default_factory=dict)
