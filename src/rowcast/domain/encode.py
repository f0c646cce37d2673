"""Rows into the model's input tensors, by the bundle's tensor plan; what can be decided once is decided at load.

`RowEncoder.read` is the fast way from the bytes of one request to one encoded row. It decodes into a msgspec struct
made from the schema; whatever it cannot take in one pass goes through `Schema.parse`, which is the rule, knows every
notation and reports every problem. The two give identical pieces (property test).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from rowcast.domain.schema import Column, Schema, Value
from rowcast.domain.values import DATE_PARTS, BadValue, canonical_text, date_parts
from rowcast.errors import BodyError, InvalidRows, ValueProblem

DType = Literal["float32", "float64", "int64", "bool", "string"]
PACK: Mapping[DType, str] = {"float32": "f", "float64": "d", "int64": "q", "bool": "?"}
NAN = float("nan")

NUMBERS = "rowcast_numbers"
TEXTS = "rowcast_texts"


class Feature(msgspec.Struct, frozen=True, omit_defaults=True):
    """One place in a tensor: a column, or one part of a datetime column."""

    column: str
    part: Literal["value", "days", "month", "weekday", "hour"] = "value"


class TensorSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input of the graph: [N] when `shape` is empty, else [N, k]; `fill` stands for a missing value."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    columns: tuple[Feature, ...]
    fill: float | str | None = None


Plan = tuple[TensorSpec, ...]


class RowWarning(msgspec.Struct, frozen=True):
    """Something the caller should know about a row that was scored all the same."""

    column: str
    code: str
    message: str


class EncodedRow(msgspec.Struct, frozen=True, gc=False):
    """One row, ready to be stacked: a piece a tensor (packed numbers, or a tuple of texts)."""

    pieces: tuple[Any, ...]
    warnings: tuple[RowWarning, ...]


NO_WARNINGS: tuple[RowWarning, ...] = ()


def own_plan(schema: Schema) -> Plan:
    """The plan of our own exports: one float32 tensor of numbers, one string tensor of texts."""
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


class RowEncoder:
    """Bytes or mappings to encoded rows, and encoded rows to tensors, for one schema and one plan."""

    def __init__(self, schema: Schema, plan: Plan) -> None:
        self.schema = schema
        self.plan = plan
        self._row_type = _row_struct(schema)
        # Packing into float32 refuses what the rule refuses; for other tensors only the general way knows the bounds.
        packs_safely = all(spec.dtype in ("float32", "string") for spec in plan)
        self._decode = msgspec.json.Decoder(self._row_type).decode if self._row_type and packs_safely else None
        fields = {column.name: f"c{index}" for index, column in enumerate(schema.columns)}
        by_name = {column.name: column for column in schema.columns}
        self._encoders = [_tensor_encoder(spec, by_name, fields) for spec in plan]
        self._plain_type = msgspec.defstruct(
            "PlainRow", [(f"c{index}", Any) for index in range(len(schema.columns))], gc=False
        )

    def read(self, body: bytes | msgspec.Raw) -> EncodedRow:
        """One JSON object, validated and encoded; InvalidRows with all its problems, BodyError when it is no object."""
        if self._decode is not None:
            try:
                return self._encode(self._decode(body))
            except (msgspec.MsgspecError, InvalidRows, BadValue, UnicodeDecodeError, RecursionError):
                pass  # not refused yet: the general way below accepts more notations, or says what is wrong
        return self.parse(decode_object(body))

    def parse(self, row: Mapping[str, Any], *, text: bool = False) -> EncodedRow:
        """One mapping, validated and encoded; `text=True` reads every string as a CSV cell."""
        return self._encode(self._plain_type(*self.schema.parse(row, text=text)))

    def _encode(self, values: Any) -> EncodedRow:
        warnings: list[RowWarning] = []
        if len(self._encoders) == 2:  # our own exports; 0.2 µs less than the loop
            first, second = self._encoders
            pieces: tuple[Any, ...] = (first(values, warnings), second(values, warnings))
        else:
            pieces = tuple([encode(values, warnings) for encode in self._encoders])
        return EncodedRow(pieces, tuple(warnings) if warnings else NO_WARNINGS)

    def stack(self, rows: Sequence[EncodedRow]) -> dict[str, NDArray[Any]]:
        """The input tensors of many encoded rows, in order."""
        tensors: dict[str, NDArray[Any]] = {}
        count = len(rows)
        for index, spec in enumerate(self.plan):
            pieces = [row.pieces[index] for row in rows]
            if spec.dtype == "string":
                stacked = np.array([text for piece in pieces for text in piece], object)
            else:
                stacked = np.frombuffer(b"".join(pieces), spec.dtype)
            tensors[spec.name] = stacked.reshape((count, *spec.shape))
        return tensors


def decode_object(body: bytes | msgspec.Raw) -> dict[str, Any]:
    """A JSON object of any content; BodyError says what is wrong with the text itself."""
    document = decode_json(body)
    if not isinstance(document, dict):
        raise BodyError("the body must be a JSON object, column name to value", slug="not-an-object")
    return document


def decode_json(body: bytes | msgspec.Raw) -> Any:
    """Any JSON document; every way in which it can be broken is a BodyError."""
    if not bytes(body).strip():
        raise BodyError("the body is empty; send one JSON object", slug="empty-body")
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise BodyError("the JSON is nested too deeply", slug="too-deep") from None
    except UnicodeDecodeError:
        raise BodyError("the body is not UTF-8") from None
    except msgspec.ValidationError:  # a number beyond what msgspec holds: read it so that its column can be named
        return _decode_huge_numbers(bytes(body))
    except msgspec.DecodeError as error:
        raise BodyError(f"the body is not JSON: {error}") from None


def _decode_huge_numbers(body: bytes) -> Any:
    try:
        document = json.loads(body.decode(), parse_int=_bounded_integer, parse_constant=_refuse_constant)
        msgspec.json.encode(document)  # a half of a surrogate pair is no text
    except RecursionError:
        raise BodyError("the JSON is nested too deeply", slug="too-deep") from None
    except ValueError as error:
        raise BodyError(f"the body is not JSON: {error}") from None
    return document


def _bounded_integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 400 else float("inf")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _row_struct(schema: Schema) -> type[msgspec.Struct] | None:
    """The struct that decodes a row in one pass; None when JSON needs escapes for a column's name."""
    types: dict[str, Any] = {"number": float, "integer": int, "category": str | int | float | bool, "datetime": str}
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    names: dict[str, str] = {}
    for index, column in enumerate(schema.columns):
        if any(character in '"\\' or ord(character) < 32 for character in column.name):
            return None
        kind = types.get(column.kind) or (bool | int | str if column.words else bool)
        names[f"c{index}"] = column.name
        fields.append((f"c{index}", kind | None, None) if column.missing else (f"c{index}", kind))
    return msgspec.defstruct("Row", fields, rename=names, forbid_unknown_fields=True, kw_only=True, gc=False)


Encode = Callable[[Any, list[RowWarning]], Any]


def _tensor_encoder(spec: TensorSpec, columns: Mapping[str, Column], fields: Mapping[str, str]) -> Encode:
    get = _getter([fields[feature.column] for feature in spec.columns])
    if spec.dtype == "string":
        return _text_encoder(get, [columns[feature.column] for feature in spec.columns])
    return _number_encoder(get, spec, columns)


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    single = attrgetter(names[0])
    return lambda values: (single(values),)


def _number_encoder(get: Callable[[Any], tuple[Any, ...]], spec: TensorSpec, columns: Mapping[str, Column]) -> Encode:
    pack = struct.Struct(f"<{len(spec.columns)}{PACK[spec.dtype]}").pack
    fill = _fill(spec)
    mends = [
        (position, mend)
        for position, feature in enumerate(spec.columns)
        if (mend := _mend(columns[feature.column], feature)) is not None
    ]
    optional = [position for position, feature in enumerate(spec.columns) if columns[feature.column].missing]

    def encode(values: Any, warnings: list[RowWarning]) -> bytes:
        cells = list(get(values))
        for position, mend in mends:
            if cells[position] is not None:
                cells[position] = mend(cells[position])
        for position in optional:
            if cells[position] is None:
                cells[position] = fill
        try:
            return pack(*cells)
        except (struct.error, OverflowError):
            return _pack_each(cells, spec)

    return encode


def _pack_each(cells: Sequence[Any], spec: TensorSpec) -> bytes:
    """Cells one by one; InvalidRows names those that the tensor cannot hold."""
    pack = struct.Struct(f"<{PACK[spec.dtype]}").pack
    packed = []
    problems = []
    for cell, feature in zip(cells, spec.columns, strict=True):
        try:
            packed.append(pack(cell))
        except (struct.error, OverflowError):
            code = "missing" if cell is None else "too-large"
            problems.append(ValueProblem(feature.column, code, f"does not fit the model's {spec.dtype} input"))
    if problems:
        raise InvalidRows(problems)
    return b"".join(packed)


def _fill(spec: TensorSpec) -> float | int | None:
    """What stands for a missing value: NaN unless the plan says otherwise; whole-number tensors have none by nature."""
    if spec.dtype in ("float32", "float64"):
        return NAN if spec.fill is None else float(spec.fill)
    return None if spec.fill is None else int(spec.fill)


def _mend(column: Column, feature: Feature) -> Callable[[Any], Any] | None:
    """What turns a decoded cell into its number, where packing alone does not; None stays for missing."""
    if column.kind == "boolean" and column.words:
        return _boolean_mend(column)
    if column.kind != "datetime":
        return None
    part = DATE_PARTS.index(feature.part)

    @lru_cache(maxsize=1024)  # the four parts of one cell ask one after the other
    def parts(raw: Any) -> tuple[float, int, int, int] | None:
        moment = raw if isinstance(raw, int) else column.parse(raw)
        return None if moment is None else date_parts(int(moment), column.origin)

    def mend(raw: Any) -> float | None:
        found = parts(raw)
        return None if found is None else found[part]

    return mend


def _boolean_mend(column: Column) -> Callable[[Any], Any]:
    known: dict[Any, bool] = {True: True, False: False}
    for word, value in column.words.items():
        known |= dict.fromkeys((word, word.capitalize(), word.upper()), value)

    def mend(raw: Any) -> Any:
        if type(raw) is not int and raw in known:  # 1 and True are one key, but only True is always meant
            return known[raw]
        return column.parse(raw)

    return mend


def _text_encoder(get: Callable[[Any], tuple[Any, ...]], columns: list[Column]) -> Encode:
    known = [{**{level: level for level in column.levels}, None: ""} for column in columns]

    def encode(values: Any, warnings: list[RowWarning]) -> tuple[str, ...]:
        cells = get(values)
        texts = [levels.get(cell) for levels, cell in zip(known, cells, strict=True)]
        if None in texts:  # not literally a known level: in another spelling, unseen, or no text at all
            texts = [
                _unusual_text(cell, column, warnings) if text is None else text
                for text, cell, column in zip(texts, cells, columns, strict=True)
            ]
        return tuple(texts)  # type: ignore[arg-type]

    return encode


def _unusual_text(raw: Value, column: Column, warnings: list[RowWarning]) -> str:
    """The canonical text of a value that is not literally a known level; unseen ones warn."""
    text = column.parse(raw)
    if text is None:
        return ""
    if text not in column.levels:
        shown = "a value" if column.sensitive else repr(canonical_text(text)[:80])
        warnings.append(
            RowWarning(column.name, "unseen-category", f"{shown} was not seen in training; scored as an unseen value")
        )
    return str(text)
