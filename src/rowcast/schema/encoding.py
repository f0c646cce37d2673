"""Rows into the model's input tensors, by the bundle's tensor plan; what can be decided once is decided at load.

`RowEncoder.read` is the fast way from the bytes of one request to one encoded row. It decodes into a msgspec struct
made from the schema; whatever it cannot take in one pass goes through `Schema.parse`, which is the rule, knows every
notation and reports every problem. The two give identical pieces (property test).
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec

from rowcast.errors import BodyError, InvalidRows, ValueProblem
from rowcast.schema.schema import Column, Schema, Value
from rowcast.schema.values import DATE_PARTS, FLOAT32_LIMIT, MISSING_WORDS, BadValue, canonical_text, date_parts

DType = Literal["float32", "float64", "int64", "bool", "string"]
PACK: Mapping[DType, str] = {"float32": "f", "float64": "d", "int64": "q", "bool": "?"}
NAN = float("nan")

BOUNDED = Annotated[float, msgspec.Meta(gt=-FLOAT32_LIMIT, lt=FLOAT32_LIMIT)]
"""What the rule takes; packing into float32 refuses the rest by itself, packing into float64 does not."""
_words = "|".join(map(re.escape, sorted(MISSING_WORDS - {""})))
PLAIN_TEXT = Annotated[str, msgspec.Meta(pattern=rf"^(?!(?:{_words})\Z)[!-~](?:[ -~]*[!-~])?\Z")]
"""Texts that are canonical as they stand: ASCII without blanks around, and no word for missing."""

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
        fields = {column.name: f"c{index}" for index, column in enumerate(schema.columns)}
        columns = {column.name: column for column in schema.columns}
        self._encoders = [_tensor_encoder(spec, columns, fields) for spec in plan]
        # A foreign graph's column may have no levels: nobody knows what it has seen.
        self._known = {c.name: frozenset(c.levels) for c in schema.columns if c.kind == "category" and c.levels}
        self._values = msgspec.defstruct("Values", [(field, Any) for field in fields.values()], gc=False)
        bounded = {feature.column for spec in plan if spec.dtype == "float64" for feature in spec.columns}
        usual = _usual_row(schema, bounded) if all(_packs_safely(spec, columns) for spec in plan) else None
        self._decode = msgspec.json.Decoder(usual).decode if usual else None

    def read(self, body: bytes | msgspec.Raw) -> EncodedRow:
        """One JSON object, validated and encoded; InvalidRows with all its problems, BodyError when it is no object."""
        if self._decode is not None:
            try:
                values = self._decode(body)
                return EncodedRow(tuple([encode(values) for encode in self._encoders]), NO_WARNINGS)
            except (msgspec.MsgspecError, InvalidRows, BadValue, UnicodeDecodeError, RecursionError):
                pass  # not refused yet: the general way below accepts more notations, or says what is wrong
        return self.parse(decode_object(body))

    def parse(self, row: Mapping[str, Any], *, text: bool = False) -> EncodedRow:
        """One mapping, validated and encoded; `text=True` reads every string as a CSV cell."""
        parsed = self.schema.parse(row, text=text)
        values = self._values(*parsed)
        return EncodedRow(tuple([encode(values) for encode in self._encoders]), self._warnings(parsed))

    def _warnings(self, parsed: Sequence[Value]) -> tuple[RowWarning, ...]:
        warnings = []
        for column, value in zip(self.schema.columns, parsed, strict=True):
            known = self._known.get(column.name)
            if known is not None and value is not None and value not in known:
                shown = "a value" if column.sensitive else repr(str(value)[:80])
                message = f"{shown} was not seen in training; scored as an unseen value"
                warnings.append(RowWarning(column.name, "unseen-category", message))
        return tuple(warnings)


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


def _packs_safely(spec: TensorSpec, columns: Mapping[str, Column]) -> bool:
    """Whether packing, with the types of the usual row, refuses what the rule refuses."""
    kinds = {columns[feature.column].kind for feature in spec.columns}
    if spec.dtype == "bool":
        return kinds == {"boolean"} and not any(columns[feature.column].words for feature in spec.columns)
    return {"float64": kinds == {"number"}, "int64": kinds == {"integer"}}.get(spec.dtype, True)


def _usual_row(schema: Schema, bounded: Collection[str]) -> type[msgspec.Struct] | None:
    """The struct that decodes a row as most clients send it: types right, categories and words spelled as in training.

    What it takes needs no closer look: msgspec has validated it in C, in one pass. None when a column cannot be in it.
    """
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    names: dict[str, str] = {}
    for index, column in enumerate(schema.columns):
        usual = BOUNDED if column.name in bounded else _usual_type(column)
        if usual is None or any(character in '"\\' or ord(character) < 32 for character in column.name):
            return None
        names[f"c{index}"] = column.name
        fields.append((f"c{index}", usual | None, None) if column.missing else (f"c{index}", usual))
    return msgspec.defstruct("UsualRow", fields, rename=names, forbid_unknown_fields=True, kw_only=True, gc=False)


def _usual_type(column: Column) -> Any:
    """The type whose every value the rule takes as it is; None when there is none."""
    if column.kind == "category":
        if not column.levels and not column.closed:
            return PLAIN_TEXT
        plain = [text for text in column.levels if text not in MISSING_WORDS and canonical_text(text) == text]
        return Literal[tuple(dict.fromkeys(plain))] if plain else None
    if column.kind == "boolean":
        return bool | Literal[tuple(spellings(column))] if column.words else bool
    return {"number": float, "integer": int, "datetime": str}[column.kind]


def spellings(column: Column) -> dict[str, bool]:
    """The usual ways to write a boolean's words."""
    spellings = {
        spelled: value for word, value in column.words.items() for spelled in (word, word.capitalize(), word.upper())
    }
    return {
        spelled: value
        for spelled, value in spellings.items()
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
    places = [(place, columns[feature.column], feature) for place, feature in enumerate(spec.columns)]
    words: list[tuple[int, dict[Any, Any]]] = [
        (place, {True: True, False: False, None: fill, **spellings(column)})
        for place, column, _ in places
        if column.words
    ]
    dates = [(place, _date_part(column, feature)) for place, column, feature in places if column.kind == "datetime"]
    optional = [place for place, column, _ in places if column.missing]

    def encode(values: Any) -> bytes:
        cells = list(get(values))
        for place, table in words:
            cells[place] = table[cells[place]]
        for place, part in dates:
            cells[place] = part(cells[place])
        for place in optional:
            if cells[place] is None:
                cells[place] = fill
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


def _date_part(column: Column, feature: Feature) -> Callable[[Any], float | None]:
    """One part of a moment, given as the text that came or as microseconds; None stays for missing."""
    part = DATE_PARTS.index(feature.part)

    @lru_cache(maxsize=1024)  # the parts of one cell are asked for one after the other
    def parts(raw: Any) -> tuple[float, int, int, int] | None:
        moment = raw if isinstance(raw, int) else column.parse(raw)
        return None if moment is None else date_parts(int(moment), column.origin)

    def pick(raw: Any) -> float | None:
        found = None if raw is None else parts(raw)
        return None if found is None else found[part]

    return pick
