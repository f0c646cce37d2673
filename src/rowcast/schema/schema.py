"""The schema: which columns a model takes and what a valid row is. It makes the parser, the OpenAPI and the form.

Never imports numpy: a gateway that holds no model validates with this module alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

import msgspec

from rowcast.errors import InvalidRows, ValueProblem
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

Value = float | int | bool | str | None
UNKNOWN = "unknown-column"
MOST_UNKNOWN = 100
MISSING = "missing"


class Column(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """One column as a client sends it."""

    name: str
    kind: Kind
    missing: bool = False
    """May be absent, null or a missing word: it had missing values in training."""
    levels: tuple[str, ...] = ()
    """Category: the canonical texts the model knows, most frequent first."""
    closed: bool = False
    """Category: any other text is an error instead of a warning."""
    words: dict[str, bool] = {}
    """Boolean: the lower-case texts seen in training."""
    forms: tuple[str, ...] = ()
    """Number: notations seen (`currency` ...). Datetime: strptime formats seen."""
    zone: str = "UTC"
    origin: int = 0
    """Datetime: the smallest moment seen in training, in microseconds."""
    low: float | None = None
    high: float | None = None
    label: str = ""
    unit: str = ""
    help: str = ""
    example: Value = None
    sensitive: bool = False

    def parse(self, raw: Any, *, text: bool = False) -> Value:
        """The canonical value of a raw cell, None for missing. `text=True` reads strings as CSV cells are read."""
        if isinstance(raw, str):
            raw = raw.strip(BLANKS)
            if raw in MISSING_WORDS:
                raw = None
        if raw is None:
            if not self.missing:
                raise BadValue(MISSING, "is required; it had no missing values in training")
            return None
        return _PARSERS[self.kind](self, raw, text)


def _number(column: Column, raw: Any, text: bool) -> float:
    if isinstance(raw, str) and (text or column.forms):
        value = number_from_text(raw, column.forms)
        if value is None:
            raise BadValue("wrong-type", f"must be a number{_forms_hint(column)}")
        return float(within_float32(value))
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise BadValue("wrong-type", f"must be a number, not {type_name(raw)}")
    return float(within_float32(raw))


def _integer(column: Column, raw: Any, text: bool) -> int:
    if type(raw) is int:
        return int(within_float32(raw))
    value = _number(column, raw, text)
    if not value.is_integer():
        raise BadValue("not-integer", "must be a whole number")
    return int(value)


def _boolean(column: Column, raw: Any, text: bool) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str | int) and (text or column.words):
        value = boolean_from_text(str(raw), column.words)
        if value is not None:
            return value
    accepted = ", ".join(["true", "false", *column.words])
    raise BadValue("wrong-type", f"must be one of {accepted}")


def _category(column: Column, raw: Any, text: bool) -> str:
    if not isinstance(raw, str | int | float | bool):
        raise BadValue("wrong-type", f"must be text, not {type_name(raw)}")
    if isinstance(raw, float):
        within_float32(raw)
    value = canonical_text(raw)
    if column.closed and value not in column.levels:
        raise BadValue("not-allowed", f"must be one of {', '.join(column.levels)}")
    return value


def _datetime(column: Column, raw: Any, text: bool) -> int:
    if isinstance(raw, datetime):
        value: int | None = microseconds(raw, column.zone)
    elif isinstance(raw, str):
        value = datetime_from_text(raw, column.forms, column.zone)
    else:
        raise BadValue("wrong-type", f"must be a date as text, not {type_name(raw)}")
    if value is None or not EARLIEST_US <= value <= LATEST_US:
        accepted = " or ".join(["RFC 3339 (2026-01-31T09:30:00Z)", *column.forms])
        raise BadValue("bad-datetime", f"must be a date in the form {accepted}")
    return value


def _forms_hint(column: Column) -> str:
    return f" (also accepted: {', '.join(column.forms)})" if column.forms else ""


Parser = Callable[[Column, Any, bool], Value]
_PARSERS: Mapping[str, Parser] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "category": _category,
    "datetime": _datetime,
}


class Schema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The columns of one model, in the order the table had them."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"columns named twice: {', '.join(repeated)}")

    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    def marked(self, sensitive: Collection[str]) -> Schema:
        """The same columns, these of them sensitive."""
        mark = msgspec.structs.replace
        return Schema(tuple(mark(one, sensitive=True) if one.name in sensitive else one for one in self.columns))

    def parse(self, row: Mapping[str, Any], *, text: bool = False) -> list[Value]:
        """Canonical values in column order; InvalidRows with every problem of the row."""
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
        for name in unknown[:MOST_UNKNOWN]:
            hint = f"the model does not take it; it takes {_listed(self.names())}"
            problems.append(ValueProblem(str(name)[:200], UNKNOWN, hint))
        if problems:
            raise InvalidRows(problems)
        return values

    def json_schema(self) -> dict[str, Any]:
        """One row as JSON Schema, for OpenAPI and for clients."""
        return {
            "type": "object",
            "properties": {column.name: _column_json_schema(column) for column in self.columns},
            "required": [column.name for column in self.columns if not column.missing],
            "additionalProperties": False,
        }


def shortened(raw: Any, limit: int = 120) -> Any:
    """A received value small enough to echo in an error."""
    if isinstance(raw, str):
        return raw if len(raw) <= limit else raw[:limit] + "…"
    if isinstance(raw, bool | float | None):
        return raw
    if isinstance(raw, int):
        return raw if abs(raw) < 1 << 63 else "integer of more than 64 bits"
    return type_name(raw)


def _listed(names: list[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _column_json_schema(column: Column) -> dict[str, Any]:
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
    described = " ".join(filter(None, [column.help, f"Unit: {column.unit}." if column.unit else "", _seen(column)]))
    if described:
        base["description"] = described
    if column.example is not None:
        base["examples"] = [column.example]
    return base


def _seen(column: Column) -> str:
    if column.kind == "category":
        rest = "" if column.closed else " Anything else is scored as unseen, with a warning."
        return f"Seen in training: {_listed(list(column.levels))}.{rest}"
    if column.low is not None and column.high is not None and column.kind in ("number", "integer"):
        return f"Seen in training: {column.low:.15g} to {column.high:.15g}."
    return ""
