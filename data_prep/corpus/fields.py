"""Documents from the fields of a JSON object or a parquet row, and from bytes: what readers share."""

import codecs
import re
from dataclasses import dataclass
from typing import Any

from data_prep.corpus.lines import OnBad

TEXT_FIELDS = ("text", "content")
LANGUAGE_FIELDS = ("language", "lang")
PROBABILITY_FIELDS = ("language_score", "prob")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
      text: paragraphs or sentences, one per line.
      place: position in its file, for messages: byte, line or row.
      language, language_probability: from the corpus, if it has them.
      quality_warnings: OSCAR's annotations, such as "tiny" or "header", and categories of the site
        that the document is from, such as "adult".
    """

    text: str
    place: str = ""
    language: str | None = None
    language_probability: float | None = None
    quality_warnings: tuple[str, ...] = ()


def from_fields(values: Any, place: str, size: int, limit: int, on_bad: OnBad) -> Document | None:
    """A document of one JSON object or parquet row of any corpus in the docstring of `readers`.

    Args:
      size: bytes of the row, for messages where it has no text.
    """
    if not isinstance(values, dict):
        on_bad("no_text_field", f"{place}: expected an object, not {type(values).__name__}", size)
        return None
    present = [name for name in TEXT_FIELDS if name in values]
    if not present:
        on_bad("no_text_field", f"{place}: has {', '.join(list(values)[:6])}", size)
        return None
    field = next((name for name in present if isinstance(values[name], str | bytes)), present[0])
    text = values[field]
    if isinstance(text, bytes):  # A binary column, as some writers of parquet make it.
        text = decoded(text, place, on_bad)
        if text is None:
            return None
    if not isinstance(text, str):
        on_bad("text_is_no_string", f"{place}: {field} is {type(text).__name__}", size)
        return None
    if len(text) * 4 >= limit and (size := len(text.encode("utf-8", "surrogatepass"))) >= limit:
        on_bad("huge_document", f"{place}: over {limit} bytes", size)
        return None
    if "\0" in text:
        on_bad("nul_character", place, len(text))
        return None
    if _LONE_SURROGATE.search(text):  # Valid JSON, but invalid Unicode.
        on_bad("invalid_utf8", f"{place}: lone surrogate", len(text))
        return None
    language, probability, warnings = _metadata(values)
    return Document(text.removeprefix("\ufeff"), place, language, probability, warnings)


def _metadata(values: dict[str, Any]) -> tuple[str | None, float | None, tuple[str, ...]]:
    """Language, its probability, quality warnings; a value of an unexpected type is ignored.

    The language is OSCAR's, in `metadata`, where it is there; else that beside the text.
    """
    if len(values) == 1:  # nothing beside the text
        return None, None, ()
    metadata = values.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    identification = metadata.get("identification")
    identification = identification if isinstance(identification, dict) else {}
    warnings: list[str] = []
    for name in ("annotation", "quality_warnings", "categories"):  # OSCAR 22.01: the first; 23.01: others
        found = metadata.get(name)
        warnings += map(str, found) if isinstance(found, list) else ()
    places = ((identification, ("label",), ("prob",)),
              (values, LANGUAGE_FIELDS, PROBABILITY_FIELDS),
              (metadata, LANGUAGE_FIELDS, PROBABILITY_FIELDS))
    for place, languages, probabilities in places:
        for key in languages:
            if key in place and isinstance(language := _best(place, key), str):
                return language, _probability(place, probabilities), tuple(warnings)
    return None, None, tuple(warnings)


def _probability(values: dict[str, Any], names: tuple[str, ...]) -> float | None:
    for name in names:
        number = _best(values, name)
        if isinstance(number, float) or number in (0, 1):
            return float(number)
    return None


def _best(values: dict[str, Any], name: str) -> Any:
    """A value, or the first of a list: HPLT has lists, with the best value first."""
    value = values.get(name)
    return value[0] if isinstance(value, list) and value else value


def decoded(data: bytes, place: str, on_bad: OnBad) -> str | None:
    """UTF-8 as text, without a byte order mark; None if it is none."""
    if b"\0" in data:
        on_bad("nul_character", place, len(data))
        return None
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        on_bad("invalid_utf8", f"{place}: byte {data[error.start]:#04x} at {error.start}", len(data))
        return None
