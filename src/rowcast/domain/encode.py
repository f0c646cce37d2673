"""Rows into the model's input tensors, by the bundle's tensor plan; everything that can be decided is decided once, at load.

`RowEncoder.read` is the fast way from the bytes of one request to one encoded row. It decodes into a msgspec struct made
from the schema; whatever it cannot take in one pass goes through `Schema.parse`, which is the rule, knows every notation
and reports every problem. The two give identical pieces (property test).
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
from rowcast.errors import BodyError

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
        self._decode = None if self._row_type is None else msgspec.json.Decoder(self._row_type).decode
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
            except (msgspec.MsgspecError, BadValue, OverflowError, UnicodeDecodeError, RecursionError):
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
        return json.loads(bytes(body), parse_int=_bounded_integer)
    except msgspec.DecodeError as error:
        raise BodyError(f"the body is not JSON: {error}") from None


def _bounded_integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 400 else float("inf")


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
    fill = NAN if spec.fill is None else spec.fill
    mends = [
        (position, mend)
        for position, feature in enumerate(spec.columns)
        if (mend := _mend(columns[feature.column], feature)) is not None
    ]

    def encode(values: Any, warnings: list[RowWarning]) -> bytes:
        cells: Any = get(values)
        if mends:
            cells = list(cells)
            for position, mend in mends:
                if cells[position] is not None:
                    cells[position] = mend(cells[position])
        try:
            return pack(*cells)
        except struct.error:  # None does not pack: cheaper than asking each cell of each row
            return pack(*[fill if cell is None else cell for cell in cells])

    return encode


def _mend(column: Column, feature: Feature) -> Callable[[Any], float] | None:
    """What turns a decoded cell into its number, where packing alone does not."""
    if column.kind == "boolean" and column.words:
        return _boolean_mend(column)
    if column.kind != "datetime":
        return None
    part = DATE_PARTS.index(feature.part)

    @lru_cache(maxsize=1024)  # the four parts of one cell ask one after the other
    def parts(raw: Any) -> tuple[float, int, int, int] | None:
        moment = raw if isinstance(raw, int) else column.parse(raw)
        return None if moment is None else date_parts(int(moment), column.origin)

    def mend(raw: Any) -> float:
        found = parts(raw)
        return NAN if found is None else found[part]

    return mend


def _boolean_mend(column: Column) -> Callable[[Any], float]:
    known: dict[Any, float] = {True: 1.0, False: 0.0}
    for word, value in column.words.items():
        known |= dict.fromkeys((word, word.capitalize(), word.upper()), float(value))

    def mend(raw: Any) -> float:
        if type(raw) is not int and raw in known:  # 1 and True are one key, but only True is always meant
            return known[raw]
        value = column.parse(raw)
        return NAN if value is None else float(value)

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
