"""What a setting is: a type, a default, a help text and the values that it accepts.

The fields of the configuration dataclasses and the other flags of every command are settings. A
value is checked here wherever it comes from: a flag, `--set`, an hparams file, config.json.

pydantic's dataclasses would check values too, but not tell the reason of a range in one line; the
ranges also serve `--help` and the tests, and training would need four packages more.
"""

import dataclasses
import functools
import math
import re
import struct
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from electra_es.errors import UsageError, nearest_hint

# Devices treat numbers between 0 and float32's smallest normal number differently: some use 0.
_SMALLEST, _LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers that a setting accepts, and the reason for the limits.

    Attributes:
      low, high: limits that belong to the range.
      above, below: limits that do not belong to it.
      also: a number outside the range with a special meaning.
      why: the reason for the limits, a few words for the message.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    also: float | None = None
    why: str

    def holds(self, value: float) -> bool:
        """Whether `value` is in the range; a float is rounded to float32 first, as it is used so."""
        if value == self.also:
            return True
        held = _as_float32 if isinstance(value, float) else (lambda number: number)
        value = held(value)
        return ((self.low is None or value >= held(self.low))
                and (self.above is None or value > held(self.above))
                and (self.high is None or value <= held(self.high))
                and (self.below is None or value < held(self.below))
                and not math.isnan(value))

    def __str__(self) -> str:
        return f"{self.ends()} ({self.why})"

    def ends(self) -> str:
        """The range in words."""
        start, end = self.above if self.low is None else self.low, self.below or self.high
        last = f"to below {_plain(end)}" if self.below is not None else f"up to {_plain(end)}"
        if start == 0 and end == 1:
            first = "a share above 0," if self.low is None else "a share from 0"
        elif self.low is None:
            first = f"more than {_plain(start)},"
        elif start == 0:
            first = "0 or more,"
        elif isinstance(start, float) or start == 1:
            first = "a positive number" + (f" from {_plain(start)}" if start != 1 else ",")
        else:
            first = f"at least {_plain(start)},"
        also = "" if self.also is None else f", or {_plain(self.also)}"
        return f"{first} {last}{also}"


@dataclass(frozen=True)
class Text:
    """The texts that a setting accepts.

    Attributes:
      expected: description of these texts, for the message.
      holds: whether a text is accepted.
    """

    expected: str
    holds: Callable[[str], Any]

    def __str__(self) -> str:
        return self.expected


def _is_path(text: str) -> bool:
    # The shell does not expand "~" after "=". A name may have 255 bytes, and temporary files beside a
    # file have longer names than the file.
    return (bool(text.strip()) and not text.startswith("-")
            and not re.match(r"~(/|$)|(?!file:)[A-Za-z][\w+.-]*://(/|$)", text)
            and not re.search(r"[\0-\x1f\x7f]", text) and len(text) <= 2_000
            and all(len(name.encode("utf-8", "surrogatepass")) <= 200 for name in text.split("/")))


PATH = Text('a path (not empty, not beginning with "-" or "~", a bucket after gs://, names of up to '
            "200 bytes)", _is_path)
PATHS = Text("comma-separated paths or globs (not beginning with \"-\" or \"~\", a bucket after gs://)",
             lambda text: text.strip(", ") != "" and all(
                 _is_path(part) for part in text.split(",") if part.strip()))
NAME = Text('a name (not empty, not beginning with "-", up to 200 characters)',
            re.compile(r"(?![-\s])[^\0-\x1f\x7f]{1,200}").fullmatch)
REPOSITORY = Text("a repository of the hub, OWNER/NAME",
                  re.compile(r"[\w.][\w.-]*/[\w.][\w.-]*", re.ASCII).fullmatch)

Accepts = Range | Text | None


def setting(default: Any, help: str, accepts: Accepts = None, *, may_change: bool = False,
            only_with: Mapping[str, tuple[str, ...]] | None = None) -> Any:
    """A dataclass field with its metadata.

    Args:
      default: the default value.
      help: one line for `--help` and the documentation.
      accepts: the accepted values, if the type does not define them.
      may_change: whether a run may continue with another value.
      only_with: other settings, and the values of them with which this setting has an effect.
    """
    return dataclasses.field(default=default, metadata={
        "help": help, "accepts": accepts, "may_change": may_change, "only_with": only_with or {}})


@functools.cache
def _field_types(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def field_type(cls: type, name: str) -> Any:
    return _field_types(cls)[name]


def check_settings(config: Any) -> None:
    """Checks type and range of every field, because JSON and callers may pass any value.

    Raises:
      UsageError: names the first wrong field, its value and what was expected.
    """
    for field in dataclasses.fields(config):
        check_field(type(config), field.name, getattr(config, field.name))


def check_field(cls: type, name: str, value: Any) -> None:
    """The same check for a value of one field."""
    field = next(field for field in dataclasses.fields(cls) if field.name == name)
    # An empty text as the default means that there is no value.
    if value != "" or field.default != "":
        check(name, value, field_type(cls, name), field.metadata["accepts"])


def check(name: str, value: Any, kind: Any, accepts: Accepts = None) -> None:
    """Raises UsageError if `value` does not have the type `kind`, or the setting does not accept it."""
    origin = typing.get_origin(kind)
    if origin is Literal:
        choices = typing.get_args(kind)
        hint = nearest_hint(value, choices) if isinstance(value, str) else ""
        require(value in choices, name, value, f"one of {', '.join(choices)}{hint}")
    elif origin is tuple:
        inner = typing.get_args(kind)[0]
        require(isinstance(value, tuple) and all(type(part) is inner for part in value), name, value,
                "whole numbers" if inner is int else "texts")
        require(accepts is None or all(map(accepts.holds, value)), name, value, f"each {accepts}")
    elif kind is float:
        require(type(value) is int or (isinstance(value, float) and math.isfinite(value)), name, value,
                "a number" if accepts is None else f"a number, {accepts}")
        require(accepts is None or accepts.holds(value), name, value, str(accepts) + _too_small(value))
    else:
        require(type(value) is kind, name, value, f"a value of type {kind.__name__}")
        require(accepts is None or accepts.holds(value), name, value, str(accepts))


def parse(name: str, text: str, kind: Any) -> Any:
    """Converts a text to a value of type `kind`.

    Raises:
      UsageError: the text is not such a value.
    """
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        parts = [part.strip() for part in text.split(",") if part.strip()]
        try:
            return tuple(inner(part.replace("_", "") if inner is int else part) for part in parts)
        except ValueError:
            raise wrong(name, text, "comma-separated whole numbers") from None
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise wrong(name, text, "true or false")
        return text.lower() in ("true", "1")
    try:
        return kind(text) if kind in (int, float) else text
    except ValueError:
        raise wrong(name, text, "a whole number" if kind is int else "a number") from None


def require(holds: bool, name: str, value: Any, expected: str) -> None:
    """Raises UsageError unless `holds`."""
    if not holds:
        raise wrong(name, repr(value), expected)


def wrong(name: str, text: str, expected: str) -> UsageError:
    """The error for a wrong value, which is passed as text; always one line."""
    text = text if text.isprintable() else repr(text)
    text = text if len(text) <= 60 else f"{text[:50]}... ({len(text)} characters)"
    return UsageError(f"{name}={text}: expected {expected}")


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first setting of `now` that is another one in `before`: its name, and both values."""
    return next(((name, before.get(name), value) for name, value in now.items()
                 if name not in before or before[name] != value), None)


def _plain(number: float | None) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def _as_float32(value: float) -> float:
    """`value` rounded to float32; NaN if it is too large or too near to 0 for float32."""
    if value == 0:
        return 0.0
    if not _SMALLEST <= abs(value) <= _LARGEST:
        return math.nan
    return struct.unpack("f", struct.pack("f", value))[0]


def _too_small(value: float) -> str:
    return "; float32 has no number so near to 0" if 0 < abs(value) < _SMALLEST else ""
