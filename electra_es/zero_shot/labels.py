"""The words of a user: labels, other names for them, and the template that makes hypotheses of them.

No TensorFlow here, so that a wrong command ends before it is imported.
"""

import csv
import unicodedata
from collections.abc import Sequence

from electra_es.errors import UsageError, nearest_hint

TEMPLATE = "Este ejemplo es {}."
SLOT = "{}"


def has_words(text: str) -> bool:
    """Whether a text has a character that is neither a space nor one that normalisation drops."""
    return any(unicodedata.category(character)[0] not in "CZ" for character in text)


def parse_labels(texts: Sequence[str]) -> list[str]:
    """The labels of `--labels` flags, or of a line of the page: separated by commas; in double quotes a
    label may have commas.

    Raises:
      UsageError: as for `check_labels`, and a quote that does not end.
    """
    return check_labels([label for text in texts for label in _separated("--labels", text)])


def check_labels(labels: Sequence[str]) -> list[str]:
    """The labels without the spaces around them.

    Raises:
      UsageError: no label, an empty one, or the same twice.
    """
    labels = [label.strip() for label in labels]
    if not labels:
        raise UsageError('--labels: expected one or more labels, such as --labels="cultura,salud"')
    seen = set()
    for number, label in enumerate(labels, start=1):
        if not has_words(label):
            raise UsageError(f"--labels: label {number} is empty: expected words")
        if label in seen:
            raise UsageError(f'--labels: "{_short(label)}" is there twice: expected different labels')
        seen.add(label)
    return labels


def parse_aliases(texts: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Name in the data -> label, from `--label_alias` flags (`name=label`, separated by commas).

    Raises:
      UsageError: no `=`, a name twice, or a label that is none of `labels`.
    """
    aliases: dict[str, str] = {}
    for text in texts:
        for pair in _separated("--label_alias", text):
            name, equals, label = (part.strip() for part in pair.rpartition("="))
            if not (equals and name):
                raise UsageError(f'--label_alias: "{_short(pair)}": expected name=label')
            if label not in labels:
                raise UsageError(f'--label_alias: "{_short(pair)}": "{_short(label)}" is none of '
                                 f"--labels{nearest_hint(label, labels)}")
            if aliases.setdefault(name, label) != label:
                raise UsageError(f'--label_alias: "{_short(name)}" stands for two labels: expected one')
    return aliases


def check_texts(texts: Sequence[str]) -> None:
    """Raises UsageError for a text without words."""
    for number, text in enumerate(texts, start=1):
        if not has_words(text):
            raise UsageError(f"text {number} is empty: expected words")


def hypotheses(labels: Sequence[str], template: str) -> list[str]:
    """The template with each of the labels in its slot.

    Raises:
      UsageError: a template with no slot `{}`, with two, or with other braces.
    """
    before, slot, after = template.partition(SLOT)
    if not slot or set("{}") & set(before + after):
        raise UsageError(f'--template="{_short(template)}": expected one {{}}, where the label goes, and '
                         "no other braces")
    return [before + label + after for label in labels]


def _separated(flag: str, text: str) -> list[str]:
    """The fields of one line of CSV; a text without any is one empty field."""
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise UsageError(f'{flag}="{_short(text)}": {error}: expected texts between commas, those with '
                         "a comma in double quotes") from None
    return rows[0] if rows and rows[0] else [""]


def _short(text: str) -> str:
    """For a message, which is one line."""
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "…"
