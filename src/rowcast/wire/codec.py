"""Translate between a wire template's JSON and the model's native rows and replies.

`compile_template` checks a template against its model and compiles it into decoders and byte templates, so that the
template's tree is not traversed for each request. A request is converted to rows with the model's column names. These
rows are scored and recorded exactly like native rows, and the reply is rendered from the native replies. Predictions,
cache keys and history entries are therefore the same as in the native dialect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from rowcast.errors import BodyError, InvalidRows, ValueProblem
from rowcast.schema.encoding import EncodedRow, decode_object
from rowcast.schema.prediction import Decision
from rowcast.schema.schema import (
    MAX_PROBLEMS,
    MAX_ROW_PROBLEMS,
    MISSING,
    UNKNOWN,
    Schema,
    list_names,
    unknown_column,
)
from rowcast.schema.unique_keys import check_unique_keys
from rowcast.wire.json_schema import ReplySchemas, any_of
from rowcast.wire.renaming import key_renamer
from rowcast.wire.reply import ModelFacts, compile_replies, compile_root
from rowcast.wire.shape import RequestShape, UnwrappedRequest
from rowcast.wire.template import (
    Template,
    class_labels,
    class_numbers,
    columns_by_client_name,
    default_cells,
    read_template,
)

RowParts = tuple[EncodedRow, bytes, int, int]
"""The encoded row, its JSON text with column names, the number of filled cells and the number of ignored names.

This is a plain tuple because a NamedTuple costs 0.3 µs more on the hot path.
"""
_decode_cells = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class ParseRow(Protocol):
    """Parses and encodes one row, whose keys are column names; raises InvalidRows if the row is invalid."""

    def __call__(self, body: bytes, *, has_unique_keys: bool = False) -> EncodedRow: ...


class WireRequest(NamedTuple):
    """A parsed request."""

    rows: Sequence[tuple[EncodedRow, bytes]]
    """Each row in two forms: encoded for the model, and as JSON text with column names for the history."""
    use_cache: bool = True
    ttl: int = 0
    """Cache lifetime in seconds; 0 selects the cache's default."""
    filled: int = 0
    """The number of missing cells that were filled with the template's defaults."""
    ignored: int = 0
    """The number of unknown names that were ignored, as the template allows."""


class WireCodec:
    """A template compiled for one model. Reads requests, renders replies and returns the JSON Schemas of both."""

    def __init__(self, template: Template, *, schema: Schema, parse_row: ParseRow, facts: ModelFacts) -> None:
        request = template.request
        self._template = template
        self._schema = schema
        self._facts = facts
        self._parse_row = parse_row
        self._columns = names = columns_by_client_name(request, schema)
        self._client_names = {column: client_name for client_name, column in names.items()}
        self._defaults = default_cells(request, schema)
        self._ignores_unknown = request.on_unknown == "ignore"
        self._is_lenient = bool(self._defaults) or self._ignores_unknown
        self._is_matrix = request.form == "matrix"
        self._shape = RequestShape(
            path=request.path,
            batch=request.batch,
            use_cache=request.use_cache,
            cache_ttl=request.cache_ttl,
            matrix=self._is_matrix,
            lax=self._ignores_unknown,
        )
        self._renames = any(client_name != column for client_name, column in names.items())
        self._rename_keys = key_renamer(names)
        cells = [_encode(name).replace(b"%", b"%%") + b":%b" for name in schema.names()]
        self._row_template = b"{" + b",".join(cells) + b"}"
        replies = compile_replies(template.reply, template.batch_reply, facts, matrix=self._is_matrix)
        self.root = None if template.root is msgspec.UNSET else compile_root(template.root, facts)
        """The reply to `GET /`, or None if the template does not define one."""
        self.render = replies.render
        self.render_batch = replies.render_batch
        self.render_row = replies.render_row if self._shape.is_plain else None
        """Renders the reply to a single-row request from the native reply; None if the template needs more data."""

    def read(self, body: bytes, max_rows: int) -> WireRequest:
        """Parse a `/predict` body; raise InvalidRows with every problem, or BodyError if the shape is wrong."""
        if self._shape.is_plain:
            encoded, text, filled, ignored = self.read_row(body)
            return WireRequest(((encoded, text),), True, 0, filled, ignored)
        request, ignored = self._shape.read(body)
        return self._parse(request, ignored, max_rows)

    def read_batch(self, body: bytes, max_rows: int) -> list[WireRequest]:
        """Parse a `/predict/batch` body into its requests; `max_rows` limits their total number of rows."""
        bodies, ignored = self._shape.read_batch(body)
        if not bodies:
            raise BodyError("the batch is empty; send at least one request", slug="no-rows")
        requests: list[WireRequest] = []
        problems: list[ValueProblem] = []
        rows = 0
        for unwrapped in bodies:
            try:
                request = self._parse(unwrapped, 0, max_rows - rows)
                requests.append(request)
                rows += len(request.rows)
            except InvalidRows as invalid:
                problems += [_shift_row(problem, rows) for problem in invalid.problems]
                rows += len(unwrapped.rows) if isinstance(unwrapped.rows, list) else 1
                if len(problems) >= MAX_PROBLEMS:
                    break
            if rows > max_rows:
                raise _too_many_rows(max_rows)
        if problems:
            raise InvalidRows(problems)
        if ignored:
            requests[0] = requests[0]._replace(ignored=requests[0].ignored + ignored)
        return requests

    def read_row(self, body: bytes) -> RowParts:
        """Parse one row, whose keys are the client's names.

        Hot path. If the template renames no columns, the native parser receives the bytes unchanged.
        """
        text = self._rename_keys(body) if self._renames else body
        if text is not None:
            try:
                return self._parse_row(text, has_unique_keys=self._renames), text, 0, 0
            except InvalidRows as invalid:
                if not (self._is_lenient and any(problem.code in (MISSING, UNKNOWN) for problem in invalid.problems)):
                    raise self._with_client_names(invalid) from None
        return self._repair_row(body)

    def example(self, row: Mapping[str, Any]) -> Any:
        """Return a `/predict` body that contains this row."""
        return self._shape.example(self._example_rows(row))

    def batch_example(self, row: Mapping[str, Any]) -> Any:
        """Return a `/predict/batch` body with one request that contains this row."""
        return self._shape.batch_example(self._example_rows(row))

    def request_schemas(self, row_schema: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the JSON Schemas of the `/predict` and `/predict/batch` bodies."""
        rows = self._matrix_schema(row_schema) if self._is_matrix else self._object_schema(row_schema)
        return self._shape.schemas(rows)

    def reply_schemas(
        self, native: Mapping[str, Any], warnings: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the JSON Schemas of both replies, given the schemas of a native prediction and its warnings."""
        schemas = ReplySchemas(self._facts, native, warnings)
        return schemas.build(self._template.reply, self._template.batch_reply, matrix=self._is_matrix)

    def _example_rows(self, row: Mapping[str, Any]) -> Any:
        if self._is_matrix:
            return [[row.get(name) for name in self._schema.names()]]
        return {self._client_names.get(column, column): value for column, value in row.items()}

    def _object_schema(self, row_schema: Mapping[str, Any]) -> dict[str, Any]:
        properties = {self._client_names[name]: schema for name, schema in row_schema["properties"].items()}
        required = [self._client_names[name] for name in row_schema["required"] if name not in self._defaults]
        return {
            **row_schema,
            "properties": properties,
            "required": required,
            "additionalProperties": self._ignores_unknown,
        }

    def _matrix_schema(self, row_schema: Mapping[str, Any]) -> dict[str, Any]:
        cells = [row_schema["properties"][name] for name in self._schema.names()]
        row = {"type": "array", "items": any_of(cells), "minItems": len(cells), "maxItems": len(cells)}
        return {"type": "array", "items": row, "minItems": 1}

    def _parse(self, request: UnwrappedRequest, ignored: int, max_rows: int) -> WireRequest:
        if self._is_matrix:
            rows = self._parse_matrix(request.rows, max_rows)
            return WireRequest(rows, request.use_cache, request.ttl, 0, ignored)
        encoded, text, filled, unknown = self.read_row(bytes(request.rows))
        return WireRequest(((encoded, text),), request.use_cache, request.ttl, filled, unknown + ignored)

    def _parse_matrix(self, matrix: Sequence[tuple[msgspec.Raw, ...]], max_rows: int) -> list[tuple[EncodedRow, bytes]]:
        if not matrix:
            raise BodyError("the matrix is empty; send at least one row", slug="no-rows")
        if len(matrix) > max_rows:
            raise _too_many_rows(max_rows)
        width, row_template, parse_row = len(self._columns), self._row_template, self._parse_row
        rows: list[tuple[EncodedRow, bytes]] = []
        problems: list[ValueProblem] = []
        for number, cells in enumerate(matrix):
            if len(cells) != width:
                columns = list_names(self._schema.names())
                message = f"row {number}: expected {width} values ({columns}), got {len(cells)}"
                raise BodyError(message, slug="wrong-shape")
            text = row_template % cells
            try:
                rows.append((parse_row(text), text))
            except InvalidRows as invalid:
                problems += [msgspec.structs.replace(problem, row=number) for problem in invalid.problems]
                if len(problems) >= MAX_PROBLEMS:
                    break
        if problems:
            raise InvalidRows(problems)
        return rows

    def _repair_row(self, body: bytes) -> RowParts:
        """Parse a row; fill in missing columns and ignore unknown names if the template allows this."""
        decode_object(body)
        cells = _decode_cells(body)
        check_unique_keys(body, len(cells))
        unknown = [name for name in cells if name not in self._columns]
        sent = {self._columns[name]: raw for name, raw in cells.items() if name in self._columns}
        absent = [column for column in self._defaults if column not in sent]
        text = _encode({**sent, **{column: self._defaults[column] for column in absent}})
        problems = [] if self._ignores_unknown else [self._unknown(name) for name in unknown[:MAX_ROW_PROBLEMS]]
        try:
            encoded = self._parse_row(text)
        except InvalidRows as invalid:
            known = self._with_client_names(invalid).problems
            raise InvalidRows([*known, *problems][:MAX_ROW_PROBLEMS]) from None
        if problems:
            raise InvalidRows(problems)
        return encoded, text, len(absent), len(unknown)

    def _unknown(self, name: str) -> ValueProblem:
        return unknown_column(name, list(self._columns))

    def _with_client_names(self, invalid: InvalidRows) -> InvalidRows:
        if not self._renames:
            return invalid
        return InvalidRows(
            [
                msgspec.structs.replace(problem, column=self._client_names.get(problem.column, problem.column))
                for problem in invalid.problems
            ]
        )


def compile_template(
    document: Any,
    *,
    model: str,
    version: int,
    schema: Schema,
    decision: Decision,
    parse_row: ParseRow,
    has_probabilities: bool = True,
) -> WireCodec:
    """Compile a template for a model; raise DocumentError if it does not match the model."""
    template = read_template(document)
    kinds = [column.kind for column in schema.columns]
    facts = ModelFacts(
        model=model,
        version=version,
        columns=schema.names(),
        category_count=kinds.count("category"),
        boolean_count=kinds.count("boolean"),
        decision=decision,
        labels=class_labels(template, decision),
        class_numbers=class_numbers(template, decision),
        has_probabilities=has_probabilities,
    )
    return WireCodec(template, schema=schema, parse_row=parse_row, facts=facts)


def _shift_row(problem: ValueProblem, rows_before: int) -> ValueProblem:
    row = problem.row if isinstance(problem.row, int) else 0
    return msgspec.structs.replace(problem, row=rows_before + row)


def _too_many_rows(limit: int) -> BodyError:
    return BodyError(f"too many rows in one request; the limit is {limit}", slug="too-many-rows")
