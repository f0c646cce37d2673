"""Canonical values: one set of rules for interpreting raw cells in JSON, CSV text and typed columns.

    kind        canonical value                         missing
    number      float, finite, within float32           None
    integer     int, within float32                     None
    boolean     bool                                    None
    category    trimmed NFC text                        None
    datetime    int, microseconds since the Unix epoch  None

`tables/encode.py` applies the same rules to whole columns; a property test compares the two implementations.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

Kind = Literal["number", "integer", "boolean", "category", "datetime"]

FLOAT32_LIMIT: Final = 3.4028235677973366e38
"""The smallest magnitude that rounds to infinity in float32."""
MISSING_WORDS: Final = frozenset({"", "?", "NA", "N/A", "n/a", "null", "NULL", "nan", "NaN", "None"})
# Python and Rust strip different whitespace characters by default, so both code paths specify this set.
BLANKS: Final = " \t\r\n\x0b\x0c\u00a0\u2007\u202f\u3000\ufeff"
TRUE_WORDS: Final = frozenset({"true", "yes", "y", "t"})
FALSE_WORDS: Final = frozenset({"false", "no", "n", "f"})
DATE_PARTS: Final = ("days", "month", "weekday", "hour")

PLAIN_NUMBER: Final = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
RFC3339: Final = r"^\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?([Zz]|[+-]\d{2}:?\d{2})?)?$"
_plain_number = re.compile(PLAIN_NUMBER, re.ASCII).match
_rfc3339 = re.compile(RFC3339, re.ASCII).match

SIGNS: Final = "$€£¥₹"
SPACES: Final = " \u00a0\u202f'’"
"""The thousands separators other than the comma and the point, as in `1 250` and `1'250`."""
_POINT: Final = rf"([0-9]{{1,3}}([,{SPACES}][0-9]{{3}})+|[0-9]+)(\.[0-9]+)?"
"""An amount with a decimal point, such as `1,250.00`."""
_COMMA: Final = rf"([0-9]{{1,3}}([.{SPACES}][0-9]{{3}})+|[0-9]+)"
"""The whole part of an amount with a decimal comma, such as `1.250` in `1.250,00`."""

NUMBER_FORMS: Final[Mapping[str, str]] = {
    "thousands": rf"^[+-]?[0-9]{{1,3}}([,{SPACES}][0-9]{{3}})+(\.[0-9]+)?$",
    "currency": rf"^[+-]?[{SIGNS}] ?[+-]?{_POINT}$|^[+-]?{_POINT} ?[{SIGNS}]$",
    "percent": r"^[+-]?[0-9]+(\.[0-9]+)? ?%$",
    "plus": r"^[0-9]+(\.[0-9]+)?\+$",
    "magnitude": rf"^[+-]?[{SIGNS}]?[0-9]+(\.[0-9]+)? ?[kKM]$",
    "parentheses": rf"^\([{SIGNS}]? ?{_POINT}\)$",
    "comma": rf"^[+-]?{_COMMA},[0-9]+$|^[+-]?[{SIGNS}] ?[+-]?{_COMMA}(,[0-9]+)?$|^[+-]?{_COMMA}(,[0-9]+)? ?[{SIGNS}%]$",
    "points": r"^[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+$",
}
"""The notations for numbers in text, except the plain notation, and their patterns.

    thousands    1,250.00 and 1 250.00       magnitude    12k, 1.5M
    currency     $1,250.00, 12.50 €          parentheses  (1,250), which is negative
    percent      8.9%, which is 8.9          comma        1.250,00 and 1.250,00 €, with a decimal comma
    plus         3+                          points       1.250, which is 1250 in a column with decimal commas

A string such as `1.250` is also valid in plain notation; in a column that uses `points`, `points` takes precedence. No
other pattern matches a number in plain notation.
"""
POINTS: Final = "points"
MULTIPLES: Final[Mapping[str, float]] = {"k": 1e3, "K": 1e3, "M": 1e6}
_dropped = str.maketrans("", "", f"{SIGNS}{SPACES}%+,()")
_dropped_in_comma = str.maketrans(",", ".", f"{SIGNS}{SPACES}%+.")
_dropped_points = str.maketrans("", "", "+.")


def _read_magnitude(text: str) -> float:
    return float(text[:-1].translate(_dropped)) * MULTIPLES[text[-1]]


_readers: Final[Mapping[str, Callable[[str], float]]] = {
    **dict.fromkeys(NUMBER_FORMS, lambda text: float(text.translate(_dropped))),
    "magnitude": _read_magnitude,
    "parentheses": lambda text: -float(text.translate(_dropped)),
    "comma": lambda text: float(text.translate(_dropped_in_comma)),
    "points": lambda text: float(text.translate(_dropped_points)),
}
_matchers = {name: re.compile(pattern, re.ASCII).match for name, pattern in NUMBER_FORMS.items()}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
DAY_US: Final = 86_400_000_000.0
EARLIEST_US: Final = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
LATEST_US: Final = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH) // _MICROSECOND


class BadValue(Exception):
    """A cell is invalid for its column. `code` is a stable identifier; `message` says what the column accepts."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def canonical_text(raw: str | int | float | bool) -> str:
    """Return a value as category text.

    Strings are trimmed and normalized to NFC, integral floats lose their `.0`, and booleans become `true` or `false`.
    """
    if isinstance(raw, str):
        return unicodedata.normalize("NFC", raw.strip(BLANKS))
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, float) and raw.is_integer():
        return str(int(raw))
    return str(raw)


def number_from_text(text: str, forms: tuple[str, ...] = ()) -> float | None:
    """Parse a trimmed string as a number in plain notation or one of the `forms`; return None if none matches."""
    if _plain_number(text) and not (POINTS in forms and _matchers[POINTS](text)):
        return float(text)
    for name in forms:
        if _matchers[name](text):
            return _readers[name](text)
    return None


def datetime_from_text(text: str, formats: tuple[str, ...], zone: str) -> int | None:
    """Convert a trimmed string in RFC 3339 or one of the `formats` to microseconds since the Unix epoch.

    Return None if the string is not a valid date.
    """
    moment: datetime | None = None
    if _rfc3339(text):
        try:
            moment = datetime.fromisoformat(text.upper())
        except ValueError:
            return None
    for pattern in () if moment else formats:
        try:
            moment = datetime.strptime(text, pattern)
        except ValueError:
            continue
        break
    return None if moment is None else microseconds(moment, zone)


def microseconds(moment: datetime, zone: str) -> int:
    """Convert a datetime to microseconds since the Unix epoch; a naive datetime is interpreted in the given zone."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=_zone(zone))
    return (moment - _EPOCH) // _MICROSECOND


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)


def date_parts(us: int, origin: int) -> tuple[float, int, int, int]:
    """Return days since `origin`, month, weekday (Monday is 0) and hour, all in UTC."""
    moment = _EPOCH + timedelta(microseconds=us)
    return float(us - origin) / DAY_US, moment.month, moment.weekday(), moment.hour


def boolean_from_text(text: str, words: Mapping[str, bool]) -> bool | None:
    """Parse `true`, `false` or one of the `words`, ignoring case; return None for any other string."""
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    return words.get(lowered)


def within_float32(value: float | int) -> float | int:
    """Return the value unchanged; raise BadValue if it is NaN or outside the range of float32."""
    if value != value:
        raise BadValue("not-finite", "NaN is not allowed; send null for a missing value")
    if not -FLOAT32_LIMIT < value < FLOAT32_LIMIT:
        raise BadValue("too-large", "out of range; the limits are ±3.4e38")
    return value


def type_name(raw: Any) -> str:
    """Return the name of the value's JSON type."""
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return "null" if raw is None else names.get(type(raw), type(raw).__name__)
