"""Encode rows as values for the model's input tensors, according to the bundle's tensor plan.

`RowEncoder.read` has a fast path and a general path. The fast path decodes the body into a msgspec struct that is
generated from the schema when the model is loaded. Rows that the struct does not accept take the general path through
`Schema.parse`, which supports every notation and reports every problem. A property test checks that both paths encode a
row identically.
"""

from __future__ import annotations

import json
import math
import re
import struct
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec

from rowcast.errors import BodyError, InvalidRows, ValueProblem
from rowcast.schema.ranges import seen_range
from rowcast.schema.schema import MAX_ROW_PROBLEMS, Column, Schema, shortened
from rowcast.schema.unique_keys import check_unique_keys
from rowcast.schema.values import DATE_PARTS, FLOAT32_LIMIT, MISSING_WORDS, BadValue, canonical_text, date_parts

DType = Literal["float32", "float64", "int64", "bool", "string"]
PACK: Mapping[DType, str] = {"float32": "f", "float64": "d", "int64": "q", "bool": "?"}
NAN = float("nan")

BOUNDED = Annotated[float, msgspec.Meta(gt=-FLOAT32_LIMIT, lt=FLOAT32_LIMIT)]
"""A number in the range of `within_float32`. Packing enforces this range only for float32 tensors."""
_words = "|".join(map(re.escape, sorted(MISSING_WORDS - {""})))
PLAIN_TEXT = Annotated[str, msgspec.Meta(pattern=rf"^(?!(?:{_words})\Z)[!-~](?:[ -~]*[!-~])?\Z")]
"""Strings that are already canonical: ASCII text without surrounding spaces, except missing-value markers."""

NUMBERS = "rowcast_numbers"
TEXTS = "rowcast_texts"


class Feature(msgspec.Struct, frozen=True, omit_defaults=True):
    """One column of a tensor: a column of the table, or one part of a datetime column."""

    column: str
    part: Literal["value", "days", "month", "weekday", "hour"] = "value"


class TensorSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input tensor of the graph: [N] if `shape` is empty, otherwise [N, k]. `fill` encodes a missing value."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    columns: tuple[Feature, ...]
    fill: float | str | None = None


Plan = tuple[TensorSpec, ...]


class RowWarning(msgspec.Struct, frozen=True):
    """A warning about a value in a scored row. It never contains the value itself, because replies are retained after
    their rows have been erased."""

    column: str
    code: str
    message: str


class EncodedRow(msgspec.Struct, frozen=True, gc=False):
    """One row, ready for `stack_rows`. `inputs` contains packed numbers or a tuple of strings for each tensor."""

    inputs: tuple[Any, ...]
    warnings: tuple[RowWarning, ...]


_FAST_FAILURES = (msgspec.MsgspecError, InvalidRows, BadValue, UnicodeDecodeError, RecursionError)
NO_WARNINGS: tuple[RowWarning, ...] = ()
_cells = msgspec.structs.astuple
TOO_LONG = "too-long"
BYTES_PER_COLUMN = 256
"""The number of bytes per column that a row can always have, even if `max_row_bytes` is lower."""
MAX_ROW_WARNINGS = 100
"""The maximum number of warnings about one row. One further warning reports how many were omitted."""
UNSEEN = "the value was not seen in training; the prediction may be unreliable"
UNSEEN_CATEGORY, OUT_OF_RANGE = "unseen-category", "out-of-range"
"""The codes of warnings."""
OUTSIDE = "the number is outside the range seen in training; the prediction may be unreliable"
INT64 = (-(1 << 63), (1 << 63) - 1)


def own_plan(schema: Schema) -> Plan:
    """Return the plan for the graphs that Rowcast exports: a tensor of float32 numbers and a tensor of strings."""
    numbers: list[Feature] = []
    texts: list[Feature] = []
    for column in schema.columns:
        if column.kind == "category":
            texts.append(Feature(column.name))
        elif column.kind == "datetime":
            numbers.extend(Feature(column.name, part) for part in DATE_PARTS)
        else:
            numbers.append(Feature(column.name))
    plan = []
    if numbers:
        plan.append(TensorSpec(NUMBERS, "float32", (len(numbers),), tuple(numbers)))
    if texts:
        plan.append(TensorSpec(TEXTS, "string", (len(texts),), tuple(texts), ""))
    return tuple(plan)


class RowLimits(msgspec.Struct, frozen=True):
    """The largest row that clients can send. Values that occur in training are always accepted."""

    text_characters: int
    row_bytes: int


class RowEncoder:
    """Encodes rows for one schema and one plan."""

    def __init__(self, schema: Schema, plan: Plan) -> None:
        self.schema = schema
        self.plan = plan
        fields = {column.name: f"c{index}" for index, column in enumerate(schema.columns)}
        columns = {column.name: column for column in schema.columns}
        self._encoders = [_tensor_encoder(spec, columns, fields) for spec in plan]
        self._checks = [check for index, column in enumerate(schema.columns) for check in _checks(index, column)]
        self._range_checks = [check for check in self._checks if check.warning.code == OUT_OF_RANGE]
        self._values = msgspec.defstruct("Values", [(field, Any) for field in fields.values()], gc=False)
        bounded = {feature.column for spec in plan if spec.dtype == "float64" for feature in spec.columns}
        is_safe = all(_packs_safely(spec, columns) for spec in plan)
        fast_row = _fast_row(schema, bounded) if is_safe else None
        self._decode = msgspec.json.Decoder(fast_row).decode if fast_row else None
        wide_row = _fast_row(_without_ranges(schema), bounded) if is_safe and self._range_checks else None
        self._decode_wide = msgspec.json.Decoder(wide_row).decode if wide_row else None
        """Decodes rows with numbers outside the ranges seen in training."""
        self._column_count = len(schema.columns)
        self._has_optional = any(column.missing for column in schema.columns)
        self._max_text = self._max_bytes = sys.maxsize

    def limit(self, limits: RowLimits) -> None:
        """Reject rows that exceed these limits from now on. For a model with many columns or long categories, the
        limits are higher."""
        longest = [max(map(len, column.levels), default=0) for column in self.schema.columns]
        self._max_text = max(limits.text_characters, *longest)
        self._max_bytes = max(limits.row_bytes, sum(BYTES_PER_COLUMN + 6 * length for length in longest))

    def read(self, body: bytes | msgspec.Raw, *, has_unique_keys: bool = False) -> EncodedRow:
        """Validate and encode one JSON object. Hot path.

        Raise InvalidRows with every problem in the row; raise BodyError if the body is not a JSON object. Set
        `has_unique_keys` if the caller has checked that no key occurs twice.
        """
        if len(body) > self._max_text:  # a shorter body cannot contain a longer string
            self._check_size(body)
        if self._decode is not None:
            try:
                values = self._decode(body)
                encoded = EncodedRow(tuple([encode(values) for encode in self._encoders]), NO_WARNINGS)
            except _FAST_FAILURES:
                pass  # A number may be outside its range. The general path accepts more notations.
            else:
                if not has_unique_keys:
                    absent = _cells(values).count(None) if self._has_optional else 0
                    check_unique_keys(body, self._column_count - absent)
                return encoded
            if self._decode_wide is not None and (wide := self._read_wide(body, self._decode_wide)) is not None:
                return wide
        row = decode_object(body)
        check_unique_keys(body, len(row))
        return self.parse(row)

    def _read_wide(self, body: bytes | msgspec.Raw, decode: Callable[[Any], Any]) -> EncodedRow | None:
        """Encode a row with numbers outside the ranges seen in training; return None if the general path must read it.

        Without this method, such rows would take several times as long to read as other rows.
        """
        try:
            values = decode(body)
            inputs = tuple([encode(values) for encode in self._encoders])
        except _FAST_FAILURES:
            return None
        cells = _cells(values)
        check_unique_keys(body, self._column_count - cells.count(None))
        return EncodedRow(inputs, _warnings(self._range_checks, cells))

    def parse(self, row: Mapping[str, Any], *, text: bool = False) -> EncodedRow:
        """Validate and encode one row; if `text` is true, parse strings as CSV cells."""
        self._check_texts(row)
        parsed = self.schema.parse(row, text=text)
        values = self._values(*parsed)
        return EncodedRow(tuple([encode(values) for encode in self._encoders]), _warnings(self._checks, parsed))

    def _check_size(self, body: bytes | msgspec.Raw) -> None:
        if len(body) > self._max_bytes:
            message = f"the row has {len(body)} bytes; the limit is {self._max_bytes} (setting max_row_bytes)"
            raise InvalidRows([ValueProblem("", TOO_LONG, message)])
        self._check_texts(decode_object(body))

    def _check_texts(self, row: Mapping[str, Any]) -> None:
        long = [name for name, raw in row.items() if isinstance(raw, str) and len(raw) > self._max_text]
        if long:
            limit = f"the limit is {self._max_text} (setting max_text_characters)"
            raise InvalidRows(
                [
                    ValueProblem(shortened(name), TOO_LONG, f"the value has {len(row[name])} characters; {limit}")
                    for name in long[:MAX_ROW_PROBLEMS]
                ]
            )


class _Check(msgspec.Struct, frozen=True):
    """A check of one column's values, and the warning about a value that fails it."""

    index: int
    is_usual: Callable[[Any], bool]
    warning: RowWarning


def _checks(index: int, column: Column) -> list[_Check]:
    """Return a list with the column's check; the list is empty if the column's values in training are unknown."""
    if column.kind == "category" and column.levels:  # the levels of an imported graph may be unknown
        return [_Check(index, frozenset(column.levels).__contains__, RowWarning(column.name, UNSEEN_CATEGORY, UNSEEN))]
    seen = seen_range(column)
    if seen is None:
        return []
    low, high = seen
    return [_Check(index, lambda value: low <= value <= high, RowWarning(column.name, OUT_OF_RANGE, OUTSIDE))]


def _warnings(checks: Sequence[_Check], values: Sequence[Any]) -> tuple[RowWarning, ...]:
    return limit_warnings(
        [check.warning for check in checks if (value := values[check.index]) is not None and not check.is_usual(value)]
    )


def limit_warnings(warnings: Sequence[RowWarning]) -> tuple[RowWarning, ...]:
    """Return the warnings about one row. A single warning replaces all warnings beyond `MAX_ROW_WARNINGS`."""
    omitted = len(warnings) - MAX_ROW_WARNINGS
    return tuple(warnings) if omitted <= 0 else (*warnings[:MAX_ROW_WARNINGS], more_warnings(omitted))


def more_warnings(count: int) -> RowWarning:
    """Return the warning that stands for `count` omitted warnings."""
    return RowWarning("", "more-warnings", f"{count} more warning{'s' if count > 1 else ''} omitted")


def _without_ranges(schema: Schema) -> Schema:
    return Schema(tuple(msgspec.structs.replace(column, low=None, high=None) for column in schema.columns))


def decode_object(body: bytes | msgspec.Raw) -> dict[str, Any]:
    """Decode a JSON object; raise BodyError if the body is malformed or not an object."""
    document = decode_json(body)
    if not isinstance(document, dict):
        raise BodyError("the body must be a JSON object that maps column names to values", slug="not-an-object")
    return document


def decode_json(body: bytes | msgspec.Raw) -> Any:
    """Decode any JSON document; raise BodyError if it is malformed."""
    if not bytes(body).strip():
        raise BodyError("the body is empty; send one JSON object", slug="empty-body")
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise BodyError("the JSON is nested too deeply", slug="too-deep") from None
    except UnicodeDecodeError:
        raise BodyError("the body is not valid UTF-8") from None
    except msgspec.ValidationError:  # msgspec rejects huge numbers without naming the column
        return _decode_huge_numbers(bytes(body))
    except msgspec.DecodeError as error:
        raise BodyError(f"the body is not valid JSON: {error}") from None


def _decode_huge_numbers(body: bytes) -> Any:
    try:
        document = json.loads(body.decode(), parse_int=_bounded_integer, parse_constant=_refuse_constant)
        msgspec.json.encode(document)  # raises ValueError for a lone surrogate
    except RecursionError:
        raise BodyError("the JSON is nested too deeply", slug="too-deep") from None
    except ValueError as error:
        raise BodyError(f"the body is not valid JSON: {error}") from None
    return document


def _bounded_integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 400 else float("inf")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _packs_safely(spec: TensorSpec, columns: Mapping[str, Column]) -> bool:
    """Return whether packing rejects all values that the fast row accepts but `Schema.parse` rejects."""
    kinds = {columns[feature.column].kind for feature in spec.columns}
    if spec.dtype == "bool":
        return kinds == {"boolean"} and not any(columns[feature.column].words for feature in spec.columns)
    return {"float64": kinds == {"number"}, "int64": kinds == {"integer"}}.get(spec.dtype, True)


def _fast_row(schema: Schema, bounded: Collection[str]) -> type[msgspec.Struct] | None:
    """Return the struct of the fast path, or None if a struct cannot represent every column of the schema.

    The struct accepts rows as most clients send them: the JSON types match the column kinds, and categories and boolean
    words are spelled as in training. msgspec validates such a row in C, in one pass; no further checks are needed.
    """
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    names: dict[str, str] = {}
    for index, column in enumerate(schema.columns):
        field_type = _fast_type(column)
        if column.name in bounded and field_type is float:
            field_type = BOUNDED
        if field_type is None or any(character in '"\\' or ord(character) < 32 for character in column.name):
            return None
        names[f"c{index}"] = column.name
        fields.append((f"c{index}", field_type | None, None) if column.missing else (f"c{index}", field_type))
    return msgspec.defstruct("FastRow", fields, rename=names, forbid_unknown_fields=True, kw_only=True, gc=False)


def _fast_type(column: Column) -> Any:
    """Return the type of the column's field in the fast row, or None for a category without canonical levels."""
    if column.kind == "category":
        if not column.levels and not column.closed:
            return PLAIN_TEXT
        plain = [text for text in column.levels if text not in MISSING_WORDS and canonical_text(text) == text]
        return Literal[tuple(dict.fromkeys(plain))] if plain else None
    if column.kind == "boolean":
        return bool | Literal[tuple(spellings(column))] if column.words else bool
    return _fast_number(column) if column.kind in ("number", "integer") else str


def _fast_number(column: Column) -> Any:
    """Return the type for numbers in the range seen in training, or for all numbers if the range is unknown."""
    kind = float if column.kind == "number" else int
    seen = seen_range(column)
    if seen is None:
        return kind
    if kind is float:
        return Annotated[float, msgspec.Meta(ge=seen.low, le=seen.high)]
    low, high = max(math.ceil(seen.low), INT64[0]), min(math.floor(seen.high), INT64[1])
    return Annotated[int, msgspec.Meta(ge=low, le=high)]


def spellings(column: Column) -> dict[str, bool]:
    """Return the common spellings of a boolean column's words (`yes`, `Yes`, `YES`), with their values."""
    variants = {
        spelled: value for word, value in column.words.items() for spelled in (word, word.capitalize(), word.upper())
    }
    return {
        spelled: value
        for spelled, value in variants.items()
        if spelled not in MISSING_WORDS and column.words.get(spelled.lower()) is value
    }


Encode = Callable[[Any], Any]


def _tensor_encoder(spec: TensorSpec, columns: Mapping[str, Column], fields: Mapping[str, str]) -> Encode:
    get = _getter([fields[feature.column] for feature in spec.columns])
    if spec.dtype == "string":
        return _text_encoder(get, any(columns[feature.column].missing for feature in spec.columns))
    return _number_encoder(get, spec, columns)


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    single = attrgetter(names[0])
    return lambda values: (single(values),)


def _text_encoder(get: Callable[[Any], tuple[Any, ...]], optional: bool) -> Encode:
    if not optional:
        return get
    return lambda values: tuple(["" if cell is None else cell for cell in get(values)])


def _number_encoder(get: Callable[[Any], tuple[Any, ...]], spec: TensorSpec, columns: Mapping[str, Column]) -> Encode:
    pack = struct.Struct(f"<{len(spec.columns)}{PACK[spec.dtype]}").pack
    fill = _fill(spec)
    features = [(index, columns[feature.column], feature) for index, feature in enumerate(spec.columns)]
    words: list[tuple[int, dict[Any, Any]]] = [
        (index, {True: True, False: False, None: fill, **spellings(column)})
        for index, column, _ in features
        if column.words
    ]
    dates = [(index, _date_part(column, feature)) for index, column, feature in features if column.kind == "datetime"]
    optional = [index for index, column, _ in features if column.missing]

    def encode(values: Any) -> bytes:
        cells = list(get(values))
        for index, table in words:
            cells[index] = table[cells[index]]
        for index, part in dates:
            cells[index] = part(cells[index])
        for index in optional:
            if cells[index] is None:
                cells[index] = fill
        try:
            return pack(*cells)
        except (struct.error, OverflowError):
            return _pack_each(cells, spec)

    return encode


def _pack_each(cells: Sequence[Any], spec: TensorSpec) -> bytes:
    """Encode cells one by one; raise InvalidRows with the columns whose values the tensor cannot represent."""
    pack = struct.Struct(f"<{PACK[spec.dtype]}").pack
    packed = []
    problems = []
    for cell, feature in zip(cells, spec.columns, strict=True):
        try:
            packed.append(pack(cell))
        except (struct.error, OverflowError):
            code = "missing" if cell is None else "too-large"
            problems.append(
                ValueProblem(feature.column, code, f"the model's {spec.dtype} input cannot represent this value")
            )
    if problems:
        raise InvalidRows(problems)
    return b"".join(packed)


def _fill(spec: TensorSpec) -> float | int | None:
    """Return the plan's encoding of a missing value; by default, NaN in float tensors and None in other tensors."""
    if spec.dtype in ("float32", "float64"):
        return NAN if spec.fill is None else float(spec.fill)
    return None if spec.fill is None else int(spec.fill)


def _date_part(column: Column, feature: Feature) -> Callable[[Any], float | None]:
    """Return a function that extracts one date part from a string or from microseconds, and maps None to None."""
    part = DATE_PARTS.index(feature.part)

    @lru_cache(maxsize=1024)  # Parse each date only once for all of its parts.
    def parts(raw: Any) -> tuple[float, int, int, int] | None:
        moment = raw if isinstance(raw, int) else column.parse(raw)
        return None if moment is None else date_parts(int(moment), column.origin)

    def extract(raw: Any) -> float | None:
        values = None if raw is None else parts(raw)
        return None if values is None else values[part]

    return extract
