"""Wire templates as documents, and functions that check a template against its model's schema.

A wire template describes the JSON of another system: where a request contains its rows, and what a reply looks like. It
consists of paths and placeholders and cannot run code. `wire/codec.py` compiles it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from rowcast.errors import DocumentError
from rowcast.schema.prediction import Decision
from rowcast.schema.schema import MISSING, Column, Schema, list_names
from rowcast.schema.values import BadValue

ERROR: Final = "error"

_encode = msgspec.json.Encoder().encode


class RequestTemplate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The rules for reading a request. A path consists of names joined by dots; an empty path means the whole body."""

    form: Literal["object", "matrix"] = "object"
    path: str = ""
    """The path of the row or the matrix."""
    batch: str = ""
    """The path of the requests in a `/predict/batch` body (`requests[]`) or of their rows (`requests[].data`)."""
    rename: dict[str, str] = {}
    """Maps client names to column names."""
    use_cache: str = ""
    cache_ttl: str = ""
    on_missing: Any = ERROR
    """`error`, or the defaults for missing columns: one value for all columns, or a mapping from columns to values."""
    on_unknown: Literal["error", "ignore"] = ERROR


class Template(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A wire template, as stored under `wire` in a bundle."""

    request: RequestTemplate = RequestTemplate()
    reply: Any = msgspec.UNSET
    batch_reply: Any = msgspec.UNSET
    root: Any = msgspec.UNSET
    labels: dict[str, Any] = {}
    """Maps a class to the value of `$label`; the default is the class itself."""
    class_index: dict[str, int] = {}
    """Maps a class to the value of `$class_index`; the default is the class's position in the list of classes."""


def read_template(document: Any) -> Template:
    """Parse a template; raise DocumentError if a key or value is not allowed."""
    if not isinstance(document, Mapping):
        raise template_error("", "expected a mapping with keys such as `request` and `reply`")
    try:
        template = msgspec.convert(document, Template)
    except msgspec.ValidationError as error:
        raise template_error("", str(error)) from None
    request = template.request
    if request.form == "matrix" and request.rename:
        raise template_error("request.rename", "not allowed for a matrix, which has no column names")
    if request.form == "matrix" and request.on_missing != ERROR:
        raise template_error("request.on_missing", "not allowed for a matrix, in which every cell is present")
    if request.form == "matrix" and not request.path:
        raise template_error("request.path", "required for a matrix; write its path, for example `data`")
    return template


def columns_by_client_name(request: RequestTemplate, schema: Schema) -> dict[str, str]:
    """Return a mapping from the client's column names to the model's column names."""
    columns = schema.names()
    client_names: dict[str, str] = {}
    for client_name, column in request.rename.items():
        if column not in columns:
            message = f"unknown column {column!r} for {client_name!r}; the model's columns are {list_names(columns)}"
            raise template_error("request.rename", message)
        if column in client_names:
            raise template_error("request.rename", f"two client names are mapped to the column {column!r}")
        client_names[column] = client_name
    names = {client_names.get(column, column): column for column in columns}
    if len(names) != len(columns):
        raise template_error("request.rename", "a client name is the same as the name of another column")
    return names


def default_cells(request: RequestTemplate, schema: Schema) -> dict[str, msgspec.Raw]:
    """Return the default of each column that has one, as JSON text."""
    defaults = request.on_missing
    if defaults == ERROR:
        return {}
    if defaults is None or isinstance(defaults, list):
        raise template_error("request.on_missing", "expected `error`, a value, or a mapping from columns to values")
    columns = {column.name: column for column in schema.columns}
    if isinstance(defaults, Mapping):
        for name in defaults:
            if name not in columns:
                message = f"unknown column {name!r}; the model's columns are {list_names(list(columns))}"
                raise template_error("request.on_missing", message)
        return {name: _default_cell(columns[name], value) for name, value in defaults.items()}
    return {column.name: _default_cell(column, defaults) for column in schema.columns if not column.missing}


def _default_cell(column: Column, value: Any) -> msgspec.Raw:
    if column.kind == "boolean" and type(value) is int and value in (0, 1):
        value = bool(value)
    if column.kind == "category" and isinstance(value, int | float) and not isinstance(value, bool):
        value = f"{value:.15g}"
    try:
        if column.parse(value) is None:
            raise BadValue(MISSING, "the default must not be a missing value")
    except BadValue as bad:
        message = f"invalid default for column {column.name!r}: {bad.message}; set a separate default for each column"
        raise template_error("request.on_missing", message) from None
    return msgspec.Raw(_encode(value))


def class_labels(template: Template, decision: Decision) -> dict[str, Any]:
    """Return a mapping from class names to values of `$label`."""
    names = decision.names()
    _check_classes("labels", template.labels, names)
    return {name: template.labels.get(name, label) for name, label in zip(names, decision.classes, strict=True)}


def class_numbers(template: Template, decision: Decision) -> dict[str, int]:
    """Return a mapping from class names to values of `$class_index`."""
    names = decision.names()
    _check_classes("class_index", template.class_index, names)
    return {name: template.class_index.get(name, index) for index, name in enumerate(names)}


def _check_classes(key: str, table: Mapping[str, Any], names: Sequence[str]) -> None:
    for label in table:
        if label not in names:
            reason = f"the classes are {list_names(names)}" if names else "a regression model has no classes"
            raise template_error(key, f"unknown class {label!r}; {reason}")


def template_error(place: str, message: str) -> DocumentError:
    """Return the error for a problem at `place` in a template."""
    return DocumentError("wire template", place, message)
