"""Schemas with unusual names and columns of every kind, and rows with anything that a client might send."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from rowcast.schema.schema import Column, Schema
from rowcast.schema.values import MISSING_WORDS, NUMBER_FORMS, canonical_text

NAMES = st.one_of(
    st.sampled_from(
        ["a", "b", "c0", "c1", "rows", "annual income", 'the "price"', "back\\slash", "größe", "naïve", "价格"]
    ),
    st.sampled_from(
        ["tab\there", "line\nbreak", "é", "e\u0301", "😀", "\x7f", "\x00", " ", "self", "__class__", "def"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
LEVELS = st.one_of(
    st.sampled_from(["red", "blue", "caf\u00e9", "1", "true", "15", "0", "a b", "価", "-1", "0.5"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5),
).map(canonical_text)
WORDS = st.sampled_from([{}, {"yes": True, "no": False}, {"y": True, "n": False}, {"1": True, "0": False, "t": True}])
FORMATS = st.lists(st.sampled_from(["%d/%m/%Y", "%b-%Y", "%Y%m%d"]), unique=True, max_size=2).map(tuple)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"])


@st.composite
def columns(draw: st.DrawFn, name: str) -> Column:
    """Generate a column of any kind."""
    kind = draw(st.sampled_from(["number", "integer", "boolean", "category", "datetime"]))
    shared: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "missing": draw(st.booleans()),
        "sensitive": draw(st.booleans()),
    }
    if kind in ("number", "integer"):
        forms = tuple(draw(st.lists(st.sampled_from(sorted(NUMBER_FORMS)), unique=True, max_size=4)))
        low, high = draw(st.sampled_from([(None, None), (0.0, 1.0), (-1e30, 16777217.0), (-5.0, -5.0), (0.1, 1e20)]))
        return Column(**shared, forms=forms, low=low, high=high)
    if kind == "boolean":
        return Column(**shared, words=draw(WORDS))
    if kind == "category":
        levels = draw(
            st.lists(LEVELS.filter(lambda text: text not in MISSING_WORDS), unique=True, min_size=1, max_size=4)
        )
        return Column(**shared, levels=tuple(levels), closed=draw(st.booleans()))
    return Column(**shared, forms=draw(FORMATS), zone=draw(ZONES), origin=draw(st.integers(-(10**15), 10**15)))


@st.composite
def schemas(draw: st.DrawFn, max_columns: int = 6) -> Schema:
    """Generate a schema with at least one column."""
    names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=max_columns))
    return Schema(tuple(draw(columns(name)) for name in names))


# Cells are JSON text, so that the tests can cover invalid JSON and every number format.
def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


TOKENS_OF_NUMBERS = st.one_of(
    st.sampled_from(["0", "-0", "-0.0", "15.0", "1e2", "15.5", "1E-46", "1e38", "-1e38", "4e38", "3.4028235e38"]),
    st.sampled_from(
        ["3.4028234663852886e38", "3.4028235677973365e38", "3.4028235677973366e38", "1e309", "-1e400", "1e20"]
    ),
    st.sampled_from(["9007199254740993", "16777217", "18446744073709551616", "-9223372036854775809", "1" + "0" * 38]),
    st.sampled_from(["1" + "0" * 39, "9" * 400, "-" + "7" * 5000, "NaN", "Infinity", "-Infinity", "01", "1.", "+1"]),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**4), 10**4).map(str),
    st.integers().map(str),
)
TEXTS = st.one_of(
    st.sampled_from(
        ["", " ", "?", "NA", "null", "None", "nan", "red", " red ", "cafe\u0301", "caf\u00e9", "Red", "true"]
    ),
    st.sampled_from(["12", "$1,250.00", "95%", "3+", "1,000", "1,00", "-0", "1e400", "1_000", "0x10", "١", "3.5e38"]),
    st.sampled_from(["Yes", "NO", "y", "t", "T", "TRUE", "False", "0", "1", "maybe", "\u00a0yes\u3000"]),
    st.sampled_from(
        ["2026-01-31", "2026-02-30", "2026-01-31T09:30:00Z", "2026-01-31 09:30:00.123456+02:00", "31/01/2026"]
    ),
    st.sampled_from(
        ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "Mar-2018", "20260131", "2026-03-29T02:30"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
TOKENS_OF_TEXTS = st.one_of(
    TEXTS.map(_quoted), TEXTS.map(json.dumps), st.sampled_from(['"\\ud800"', '"\\u0000"', '"\\/"'])
)
OTHER_TOKENS = st.sampled_from(["null", "true", "false", "[]", "{}", "[1]", '{"a":1}', "nul", "", '"open', "'x'"])
TOKENS = st.one_of(TOKENS_OF_NUMBERS, TOKENS_OF_TEXTS, OTHER_TOKENS)


def fitting_tokens(column: Column) -> st.SearchStrategy[str]:
    """Return a strategy for cells that the column probably accepts."""
    if column.kind in ("number", "integer"):
        tokens = st.one_of(st.integers(-100, 100).map(str), TOKENS_OF_NUMBERS)
    elif column.kind == "boolean":
        tokens = st.sampled_from(["true", "false", *map(_quoted, column.words), "1", "0", "1.0"])
    elif column.kind == "category":
        tokens = st.one_of(st.sampled_from([_quoted(level) for level in column.levels]), st.integers().map(str))
    else:
        tokens = st.one_of(
            st.datetimes().map(lambda moment: _quoted(moment.isoformat() + "Z")),
            st.dates().map(lambda day: _quoted(day.strftime((column.forms or ("%Y-%m-%d",))[0]))),
        )
    return st.one_of(tokens, st.just("null")) if column.missing else tokens


@st.composite
def bodies(draw: st.DrawFn, schema: Schema, damage: int = 2) -> bytes:
    """Generate a row as JSON with a suitable cell for each column, then make up to `damage` changes."""
    cells = [(column.name, draw(fitting_tokens(column))) for column in schema.columns]
    for _ in range(draw(st.integers(0, damage))):
        place = draw(st.integers(0, len(cells)))
        name = draw(st.one_of(st.sampled_from(schema.names()), NAMES))
        change = draw(st.sampled_from(["replace", "drop", "add"]))
        if change == "drop":
            del cells[place : place + 1]
        elif change == "replace" and place < len(cells):
            cells[place] = (cells[place][0], draw(TOKENS))
        else:
            cells.insert(place, (name, draw(TOKENS)))
    escape = draw(st.booleans())
    blank = draw(st.sampled_from(["", " ", "\n\t"]))
    inside = f",{blank}".join(f"{json.dumps(name, ensure_ascii=escape)}:{blank}{token}" for name, token in cells)
    return f"{blank}{{{inside}}}{blank}".encode()
