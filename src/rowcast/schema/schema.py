"""The schema of a model: its columns, the rules for valid rows, and the JSON Schema of a row.

This module does not import numpy, so that a gateway can validate rows without numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from rowcast.errors import InvalidRows, ValueProblem
from rowcast.schema.derived import DerivedColumn, check_derived
from rowcast.schema.values import (
    BLANKS,
    EARLIEST_US,
    LATEST_US,
    MISSING_WORDS,
    BadValue,
    Kind,
    boolean_from_text,
    canonical_text,
    datetime_from_text,
    microseconds,
    number_from_text,
    type_name,
    within_float32,
)
from rowcast.suggestions import did_you_mean

Value = float | int | bool | str | None
UNKNOWN = "unknown-column"
MAX_ROW_PROBLEMS = 100
"""The maximum number of problems reported per row."""
MAX_PROBLEMS = 1000
"""The number of problems in a request after which the problems of further rows are not reported."""
MAX_LISTED = 12
"""The maximum number of names that a message lists."""
MAX_SHOWN = 120
"""The maximum length of a received string in an error."""
MISSING = "missing"
REQUIRED = "value is required; the column had no missing values in training"


NEUTRAL_EXAMPLES: Final[Mapping[str, Value]] = {
    "number": 0.0,
    "integer": 0,
    "boolean": True,
    "category": "example",
    "datetime": "2000-01-01",
}
"""The examples that are shown for sensitive columns, by kind."""


class Column(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """One column of the rows that clients send."""

    name: str
    kind: Kind
    missing: bool = False
    """Whether a value may be absent, null or a marker such as `NA`.

    True if values were missing in training, or if the training option `optional` lists the column.
    """
    levels: tuple[str, ...] = ()
    """Category: the canonical values seen in training, most frequent first."""
    closed: bool = False
    """Category: whether a value outside `levels` causes an error instead of a warning."""
    words: dict[str, bool] = {}
    """Boolean: the words seen in training, in lower case, and their values."""
    forms: tuple[str, ...] = ()
    """Number: the notations seen in training, such as `currency`. Datetime: the strptime formats seen in training."""
    zone: str = "UTC"
    """Datetime: the time zone of values without an offset."""
    origin: int = 0
    """Datetime: the earliest value seen in training, in microseconds since the Unix epoch."""
    low: float | None = None
    """Number: the smallest value seen in training."""
    high: float | None = None
    """Number: the largest value seen in training."""
    label: str = ""
    unit: str = ""
    help: str = ""
    example: Value = None
    sensitive: bool = False
    """Whether the values are never shown to people, and can be hashed or dropped before they are recorded."""

    def shown(self) -> Column:
        """Return the column as it is shown to people: without values from training if the column is sensitive.

        The levels of a closed column are not hidden, because clients must know which values are allowed.
        """
        if not self.sensitive:
            return self
        if self.closed:
            return msgspec.structs.replace(self, example=min(self.levels))
        example = None if self.missing else NEUTRAL_EXAMPLES[self.kind]
        return msgspec.structs.replace(self, levels=(), low=None, high=None, example=example)

    def parse(self, raw: Any, *, text: bool = False) -> Value:
        """Return the canonical value of a raw cell, or None if the value is missing.

        If `text` is true, strings are parsed as CSV cells. Raise BadValue if the cell is invalid.
        """
        if isinstance(raw, str):
            raw = raw.strip(BLANKS)
            if raw in MISSING_WORDS:
                raw = None
        if raw is None:
            if not self.missing:
                raise BadValue(MISSING, REQUIRED)
            return None
        return _PARSERS[self.kind](self, raw, text)


def _number(column: Column, raw: Any, text: bool) -> float:
    if isinstance(raw, str) and (text or column.forms):
        value = number_from_text(raw, column.forms)
        if value is None:
            raise BadValue("wrong-type", f"expected a number{_forms_hint(column)}")
        return float(within_float32(value))
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise BadValue("wrong-type", f"expected a number, got {type_name(raw)}")
    return float(within_float32(raw))


def _integer(column: Column, raw: Any, text: bool) -> int:
    if type(raw) is int:
        return int(within_float32(raw))
    value = _number(column, raw, text)
    if not value.is_integer():
        raise BadValue("not-integer", "expected a whole number")
    return int(value)


def _boolean(column: Column, raw: Any, text: bool) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str | int | float) and (text or column.words):
        value = boolean_from_text(raw if isinstance(raw, str) else canonical_text(raw), column.words)
        if value is not None:
            return value
    accepted = ", ".join(["true", "false", *column.words])
    raise BadValue("wrong-type", f"expected one of {accepted}")


def _category(column: Column, raw: Any, text: bool) -> str:
    if not isinstance(raw, str | int | float | bool):
        raise BadValue("wrong-type", f"expected text, got {type_name(raw)}")
    if isinstance(raw, float):
        within_float32(raw)
    value = canonical_text(raw)
    if column.closed and value not in column.levels:
        raise BadValue("not-allowed", f"expected one of {list_names(column.levels)}")
    return value


def _datetime(column: Column, raw: Any, text: bool) -> int:
    if isinstance(raw, datetime):
        value: int | None = microseconds(raw, column.zone)
    elif isinstance(raw, str):
        value = datetime_from_text(raw, column.forms, column.zone)
    else:
        raise BadValue("wrong-type", f"expected a date as text, got {type_name(raw)}")
    if value is None or not EARLIEST_US <= value <= LATEST_US:
        accepted = " or ".join(["RFC 3339 (2026-01-31T09:30:00Z)", *column.forms])
        raise BadValue("bad-datetime", f"expected a date in the format {accepted}")
    return value


def _forms_hint(column: Column) -> str:
    return f" (accepted notations: plain, {', '.join(column.forms)})" if column.forms else ""


Parser = Callable[[Column, Any, bool], Value]
_PARSERS: Mapping[str, Parser] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "category": _category,
    "datetime": _datetime,
}


class Schema(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The columns of one model, in the order of the training table."""

    columns: tuple[Column, ...]
    derived: tuple[DerivedColumn, ...] = ()
    """The columns that the model's graph computes; clients never send them."""

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"duplicate column names: {', '.join(repeated)}")
        check_derived(self.derived, {column.name: column.kind for column in self.columns})

    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def with_sensitive(self, names: Collection[str]) -> Schema:
        """Return a copy in which the columns with these names are sensitive."""
        return self._with(names, sensitive=True)

    def with_optional(self, names: Collection[str]) -> Schema:
        """Return a copy in which values of the columns with these names can be missing."""
        return self._with(names, missing=True)

    def _with(self, names: Collection[str], **fields: Any) -> Schema:
        columns = tuple(
            msgspec.structs.replace(column, **fields) if column.name in names else column for column in self.columns
        )
        return msgspec.structs.replace(self, columns=columns)

    def parse(self, row: Mapping[str, Any], *, text: bool = False) -> list[Value]:
        """Return the canonical values of a row in column order; raise InvalidRows with every problem in the row."""
        values: list[Value] = []
        problems: list[ValueProblem] = []
        for column in self.columns:
            raw = row.get(column.name)
            try:
                values.append(column.parse(raw, text=text))
            except BadValue as bad:
                got = msgspec.UNSET if column.sensitive or bad.code == MISSING else shortened(raw)
                problems.append(ValueProblem(column.name, bad.code, bad.message, got))
        known = {column.name for column in self.columns}
        unknown = [name for name in row if name not in known]
        problems += [self.unknown_column(str(name)) for name in unknown[:MAX_ROW_PROBLEMS]]
        if problems:
            raise InvalidRows(problems[:MAX_ROW_PROBLEMS])
        return values

    def unknown_column(self, name: str) -> ValueProblem:
        """Return the problem to report for a column that clients cannot send."""
        for column in self.derived:
            if column.name == name:
                return ValueProblem(name[:200], UNKNOWN, f"the model computes this column as {column.text}; remove it")
        return unknown_column(name, self.names())

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of one row, for OpenAPI and for clients."""
        definitions = "; ".join(column.definition for column in self.derived)
        described = f"The model computes further columns, which cannot be sent: {definitions}."
        return {
            "type": "object",
            **({"description": described} if definitions else {}),
            "properties": {column.name: _column_json_schema(column) for column in self.columns},
            "required": [column.name for column in self.columns if not column.missing],
            "additionalProperties": False,
        }


def unknown_column(name: str, known: Sequence[str]) -> ValueProblem:
    """Return the problem to report for a column that the model does not have."""
    hint = " ".join(filter(None, [did_you_mean(name, tuple(known)), f"the model's columns are {list_names(known)}"]))
    return ValueProblem(name[:200], UNKNOWN, f"unknown column; {hint}")


def shortened(raw: Any) -> Any:
    """Return a received value for use in an error message, shortened if it is long."""
    if isinstance(raw, str):
        return raw if len(raw) <= MAX_SHOWN else raw[:MAX_SHOWN] + "…"
    if isinstance(raw, bool | float | None):
        return raw
    if isinstance(raw, int):
        return raw if abs(raw) < 1 << 63 else "integer of more than 64 bits"
    return type_name(raw)


def list_names(names: Sequence[str]) -> str:
    """Join up to `MAX_LISTED` names for a message, and shorten long names."""
    rest = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join([shortened(name) for name in names[:MAX_LISTED]]) + rest


def _column_json_schema(column: Column) -> dict[str, Any]:
    column = column.shown()
    shapes: dict[str, dict[str, Any]] = {
        "number": {"type": ["number", "string"] if column.forms else "number"},
        "integer": {"type": ["number", "string"] if column.forms else "number", "multipleOf": 1},
        "boolean": {"type": ["boolean", "string", "integer"] if column.words else "boolean"},
        "category": {"type": ["string", "number", "boolean"]},
        "datetime": {"type": "string"},
    }
    base = shapes[column.kind]
    if column.closed:
        base = {"type": "string", "enum": list(column.levels)}
    if column.missing:
        types = base["type"] if isinstance(base["type"], list) else [base["type"]]
        base["type"] = [*types, "null"]
        if "enum" in base:
            base["enum"].append(None)
    if column.label:
        base["title"] = column.label
    sentences = [column.help, f"Unit: {column.unit}." if column.unit else "", _seen(column)]
    description = " ".join(filter(None, sentences))
    if description:
        base["description"] = description
    if column.example is not None:
        base["examples"] = [column.example]
    return base


def _seen(column: Column) -> str:
    if column.kind == "category":
        if not column.levels:
            return "Values that were not seen in training are accepted, with a warning."
        rest = "" if column.closed else " Other values are treated as unseen, with a warning."
        return f"Seen in training: {list_names(column.levels)}.{rest}"
    if column.low is not None and column.high is not None and column.kind in ("number", "integer"):
        return f"Seen in training: {column.low:.15g} to {column.high:.15g}."
    return ""
