"""Wire templates: a client's own JSON on the outside, the model's rows and predictions inside.

A template is closed: it names places and fills blanks, and runs nothing. `compile_wire` proves it against its model and
makes decoders and byte templates of it once; a request walks no tree. What goes in comes out as the row in column
names (the native form, which is kept and scored), what comes out is made of the native reply: predictions, keys and
history are those of the native dialect.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from rowcast.errors import BodyError, InvalidRows, SettingsError, ValueProblem
from rowcast.schema.encoding import EncodedRow, decode_object
from rowcast.schema.prediction import Decision
from rowcast.schema.schema import MISSING, UNKNOWN, Column, Schema
from rowcast.schema.values import BadValue
from rowcast.wire.json_schema import Words, any_of
from rowcast.wire.reply import Facts, Reply, compile_reply, compile_root
from rowcast.wire.shape import Envelope, Shape

ERROR: Final = "error"
Raws = tuple[msgspec.Raw, ...]

_cells = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class RequestForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """How a request is read. A path is names joined by dots; none is the body itself."""

    form: Literal["object", "matrix"] = "object"
    path: str = ""
    """Where the row or the matrix lies."""
    batch: str = ""
    """Where `/predict/batch` finds its requests, such as `requests[]`, or `requests[].data`."""
    rename: dict[str, str] = {}
    """The client's name of a column to the column."""
    use_cache: str = ""
    cache_ttl: str = ""
    on_missing: Any = ERROR
    """`error`, or what stands for a column that is not sent: one value, or a value by column."""
    on_unknown: Literal["error", "ignore"] = ERROR


class Template(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """`wire` of a bundle."""

    request: RequestForm = RequestForm()
    reply: Any = msgspec.UNSET
    batch_reply: Any = msgspec.UNSET
    root: Any = msgspec.UNSET
    labels: dict[str, Any] = {}
    """How `$label` writes a class."""
    class_index: dict[str, int] = {}
    """How `$class_index` numbers a class; else its place among the classes."""


class Asked(NamedTuple):
    """One request, read: its rows as they are scored and as they are kept."""

    rows: Sequence[tuple[EncodedRow, bytes]]
    use_cache: bool = True
    ttl: int = 0
    """Seconds that its outcomes are remembered; 0 leaves that to the cache."""
    filled: int = 0
    """Cells that were not sent and filled by the template."""
    ignored: int = 0
    """Names that were sent and are of no column."""


Read = tuple[EncodedRow, bytes, int, int]
"""A row as it is scored and as it is kept, cells filled and names ignored. HOT: a NamedTuple costs 0.3 µs more."""
ReadNative = Callable[[bytes], EncodedRow]


def read_template(document: Any) -> Template:
    """A template as somebody wrote it; SettingsError names the key that cannot be."""
    if not isinstance(document, Mapping):
        raise SettingsError("the wire template must be a mapping of request, reply, batch_reply, root, labels")
    try:
        return msgspec.convert(document, Template)
    except msgspec.ValidationError as error:
        raise SettingsError(f"the wire template cannot be used: {error}") from None


class Wire:
    """One model's template, compiled."""

    def __init__(self, template: Template, schema: Schema, read: ReadNative, reply: Reply, root: bytes | None) -> None:
        self.template = template
        self.root = root
        """What `GET /` answers, if the template says it."""
        self.reply = reply
        request = template.request
        self._schema = schema
        self._native = read
        self._names = names = _client_names(request, schema)
        self._clients = {column: client for client, column in names.items()}
        self._fills = _fills(request, schema)
        self._ignores = request.on_unknown == "ignore"
        self._legacy = bool(self._fills) or self._ignores
        self._renames = any(client != column for client, column in names.items())
        self.is_plain = not (request.path or request.use_cache or request.cache_ttl)
        """Whether the body is the row and nothing else."""
        self.quick = reply.alone if self.is_plain else None
        """Makes the reply from the native one, where a row is all that comes and goes."""
        self._matrix = request.form == "matrix"
        self._shape = Shape(
            request.path, request.batch, request.use_cache, request.cache_ttl, matrix=self._matrix, lax=self._ignores
        )
        self._width = len(schema.columns)
        self._keys = {
            _encode(client) + b":": _encode(column) + b":" for client, column in names.items() if client != column
        }
        self._find_keys = re.compile(rb'"(?<!\\")(?:' + b"|".join([re.escape(key[1:]) for key in self._keys]) + b")")
        quoted = [_encode(name).replace(b"%", b"%%") + b":%b" for name in schema.names()]
        self._row_bytes = b"{" + b",".join(quoted) + b"}"

    @property
    def clients(self) -> Mapping[str, str]:
        """Column to the client's name for it."""
        return self._clients

    def read(self, body: bytes, max_rows: int) -> Asked:
        """The body of `/predict`; InvalidRows with all problems of all rows, BodyError for another shape."""
        if self.is_plain:
            encoded, received, filled, missed = self.read_row(body)
            return Asked(((encoded, received),), True, 0, filled, missed)
        found, ignored = self._shape.read(body)
        return self._asked(found, ignored, max_rows)

    def read_batch(self, body: bytes, max_rows: int) -> list[Asked]:
        """The body of `/predict/batch`: each of its requests, in order."""
        found, ignored = self._shape.read_batch(body)
        if not found:
            raise BodyError("there are no requests in the batch; send at least one", slug="no-rows")
        asked: list[Asked] = []
        problems: list[ValueProblem] = []
        seen = 0
        for envelope in found:
            try:
                one = self._asked(envelope, 0, max_rows - seen)
                asked.append(one)
                seen += len(one.rows)
            except InvalidRows as invalid:
                problems += [_numbered(problem, seen) for problem in invalid.problems]
                seen += len(envelope.rows) if isinstance(envelope.rows, list) else 1
            if seen > max_rows:
                raise _too_many(max_rows)
        if problems:
            raise InvalidRows(problems)
        if ignored:
            asked[0] = asked[0]._replace(ignored=asked[0].ignored + ignored)
        return asked

    def example(self, row: Mapping[str, Any]) -> Any:
        """A body of `/predict` that holds this row."""
        return self._shape.example(self._example_row(row))

    def batch_example(self, row: Mapping[str, Any]) -> Any:
        """A body of `/predict/batch` that holds this row once."""
        return self._shape.batch_example(self._example_row(row))

    def schemas(self, row_schema: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """JSON Schema of a body of `/predict`, and of one of `/predict/batch`."""
        rows = self._matrix_schema(row_schema) if self._matrix else self._object_schema(row_schema)
        return self._shape.schemas(rows)

    def _example_row(self, row: Mapping[str, Any]) -> Any:
        if self._matrix:
            return [[row.get(name) for name in self._schema.names()]]
        return {self._clients.get(column, column): value for column, value in row.items()}

    def _object_schema(self, row_schema: Mapping[str, Any]) -> dict[str, Any]:
        properties = {self._clients[name]: shape for name, shape in row_schema["properties"].items()}
        required = [self._clients[name] for name in row_schema["required"] if name not in self._fills]
        return {**row_schema, "properties": properties, "required": required, "additionalProperties": self._ignores}

    def _matrix_schema(self, row_schema: Mapping[str, Any]) -> dict[str, Any]:
        cells = [row_schema["properties"][name] for name in self._schema.names()]
        row = {"type": "array", "items": any_of(cells), "minItems": self._width, "maxItems": self._width}
        return {"type": "array", "items": row, "minItems": 1}

    def _asked(self, found: Envelope, ignored: int, max_rows: int) -> Asked:
        if self._matrix:
            rows = self._rows(found.rows, max_rows)
            return Asked(rows, found.use_cache, found.ttl, 0, ignored)
        encoded, received, filled, missed = self.read_row(bytes(found.rows))
        return Asked(((encoded, received),), found.use_cache, found.ttl, filled, missed + ignored)

    def _rows(self, matrix: Sequence[Raws], max_rows: int) -> list[tuple[EncodedRow, bytes]]:
        if not matrix:
            raise BodyError("the matrix is empty; send at least one row", slug="no-rows")
        if len(matrix) > max_rows:
            raise _too_many(max_rows)
        width, write, read = self._width, self._row_bytes, self._native
        rows: list[tuple[EncodedRow, bytes]] = []
        problems: list[ValueProblem] = []
        for number, cells in enumerate(matrix):
            if len(cells) != width:
                raise BodyError(
                    f"row {number} has {len(cells)} values; the model takes {width}: {_listed(self._schema.names())}",
                    slug="wrong-shape",
                )
            received = write % cells
            try:
                rows.append((read(received), received))
            except InvalidRows as invalid:
                problems += [msgspec.structs.replace(problem, row=number) for problem in invalid.problems]
        if problems:
            raise InvalidRows(problems)
        return rows

    def read_row(self, body: bytes) -> Read:
        """One row in the client's names. HOT: without renames the bytes go to the native reader as they came."""
        received = body if not self._renames else self._renamed(body)
        if received is not None:
            try:
                return self._native(received), received, 0, 0
            except InvalidRows as invalid:
                if not (self._legacy and any(problem.code in (MISSING, UNKNOWN) for problem in invalid.problems)):
                    raise self._in_clients_words(invalid) from None
        return self._mended(body)

    def _renamed(self, body: bytes) -> bytes | None:
        """The row in column names, every value as it was written; None when a name is of no column. HOT"""
        # A quotation mark inside a text has a backslash before it: what looks like a key with its colon is one.
        received, found = self._find_keys.subn(self._named, body)
        if found == len(self._keys):
            return received
        names = self._names
        try:
            return _encode({names[client]: raw for client, raw in _cells(body).items()})
        except KeyError:
            return None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            decode_object(body)  # says what is wrong with the text itself
            raise

    def _named(self, key: re.Match[bytes]) -> bytes:
        return self._keys[key.group()]

    def _mended(self, body: bytes) -> Read:
        """A row with names that are of no column, or without some that are needed: refused, or mended and said so."""
        decode_object(body)
        cells = _cells(body)
        unknown = [client for client in cells if client not in self._names]
        kept = {self._names[client]: raw for client, raw in cells.items() if client in self._names}
        absent = [column for column in self._fills if column not in kept]
        received = _encode({**kept, **{column: self._fills[column] for column in absent}})
        refused = [] if self._ignores else [_unknown(client, self._names) for client in unknown[:100]]
        try:
            encoded = self._native(received)
        except InvalidRows as invalid:
            raise InvalidRows([*self._in_clients_words(invalid).problems, *refused]) from None
        if refused:
            raise InvalidRows(refused)
        return encoded, received, len(absent), len(unknown)

    def _in_clients_words(self, invalid: InvalidRows) -> InvalidRows:
        if not self._renames:
            return invalid
        return InvalidRows(
            [
                msgspec.structs.replace(problem, column=self._clients.get(problem.column, problem.column))
                for problem in invalid.problems
            ]
        )


def compile_wire(
    document: Any,
    reference: tuple[str, int],
    schema: Schema,
    decision: Decision,
    read: ReadNative,
    *,
    probabilities: bool = True,
) -> Wire:
    """The template made ready for this model; SettingsError names what does not fit it."""
    template = read_template(document)
    if template.request.form == "matrix" and template.request.rename:
        raise SettingsError("the wire template: request.rename is for objects; a matrix has no names")
    if template.request.form == "matrix" and template.request.on_missing != ERROR:
        raise SettingsError("the wire template: request.on_missing is for objects; a cell of a matrix is always there")
    if template.request.form == "matrix" and not template.request.path:
        raise SettingsError("the wire template: request.path must say where the matrix lies, such as `data`")
    facts = _facts(reference, schema)
    labels, numbers = _class_tables(template, decision)
    reply = compile_reply(
        template.reply,
        template.batch_reply,
        facts,
        decision,
        labels,
        numbers,
        matrix=template.request.form == "matrix",
        probabilities=probabilities,
    )
    root = None if template.root is msgspec.UNSET else compile_root(template.root, facts)
    return Wire(template, schema, read, reply, root)


def reply_schemas(
    template: Template,
    reference: tuple[str, int],
    schema: Schema,
    decision: Decision,
    native: Mapping[str, Any],
    warnings: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON Schema of the reply to a request and to a batch; `native` is that of a native prediction."""
    words = Words(_facts(reference, schema), decision, *_class_tables(template, decision), native, warnings)
    return words.replies(template.reply, template.batch_reply, matrix=template.request.form == "matrix")


def _facts(reference: tuple[str, int], schema: Schema) -> Facts:
    kinds = [column.kind for column in schema.columns]
    return Facts(*reference, schema.names(), kinds.count("category"), kinds.count("boolean"))


def _class_tables(template: Template, decision: Decision) -> tuple[dict[str, Any], dict[str, int]]:
    """How each class is written and numbered; SettingsError for a class that there is not."""
    names = decision.names()
    for key, table in (("labels", template.labels), ("class_index", template.class_index)):
        for label in table:
            if label not in names:
                known = f"the classes are {_listed(names)}" if names else "a regression has no classes"
                raise SettingsError(f"the wire template: {key} names {label!r}; {known}")
    labels = {name: template.labels.get(name, label) for name, label in zip(names, decision.classes, strict=True)}
    return labels, {name: template.class_index.get(name, index) for index, name in enumerate(names)}


def _client_names(request: RequestForm, schema: Schema) -> dict[str, str]:
    """Every name that a client may send, to its column."""
    columns = schema.names()
    renamed: dict[str, str] = {}
    for client, column in request.rename.items():
        if column not in columns:
            raise SettingsError(
                f"the wire template: request.rename gives {client!r} to the column {column!r}; the model's columns are "
                f"{_listed(columns)}"
            )
        if column in renamed:
            raise SettingsError(f"the wire template: request.rename gives the column {column!r} two names")
        renamed[column] = client
    names = {renamed.get(column, column): column for column in columns}
    if len(names) != len(columns):
        raise SettingsError("the wire template: request.rename uses a name that another column has already")
    return names


def _fills(request: RequestForm, schema: Schema) -> dict[str, msgspec.Raw]:
    """What stands for each needed column that is not sent, as JSON; SettingsError when a column cannot take it."""
    given = request.on_missing
    if given == ERROR:
        return {}
    if given is None or isinstance(given, list):
        raise SettingsError("the wire template: request.on_missing must be error, a value, or a value by column")
    columns = {column.name: column for column in schema.columns}
    if isinstance(given, Mapping):
        for name in given:
            if name not in columns:
                raise SettingsError(
                    f"the wire template: request.on_missing names {name!r}; the model's columns are "
                    f"{_listed(list(columns))}"
                )
        return {name: _fill(columns[name], value) for name, value in given.items()}
    return {column.name: _fill(column, given) for column in schema.columns if not column.missing}


def _fill(column: Column, value: Any) -> msgspec.Raw:
    if column.kind == "boolean" and type(value) is int and value in (0, 1):
        value = bool(value)
    if column.kind == "category" and isinstance(value, int | float) and not isinstance(value, bool):
        value = f"{value:.15g}"
    try:
        if column.parse(value) is None:
            raise BadValue(MISSING, "is missing itself")
    except BadValue as bad:
        raise SettingsError(
            f"the wire template: request.on_missing cannot stand for {column.name!r}, which {bad.message}; give "
            "a value by column"
        ) from None
    return msgspec.Raw(_encode(value))


def _unknown(client: str, names: Mapping[str, str]) -> ValueProblem:
    return ValueProblem(client[:200], UNKNOWN, f"the model does not take it; it takes {_listed(list(names))}")


def _numbered(problem: ValueProblem, before: int) -> ValueProblem:
    row = problem.row if isinstance(problem.row, int) else 0
    return msgspec.structs.replace(problem, row=before + row)


def _too_many(most: int) -> BodyError:
    return BodyError(f"more rows in one request than the {most} that may be", slug="too-many-rows")


def _listed(names: Sequence[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
