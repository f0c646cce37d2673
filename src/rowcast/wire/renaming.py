"""Replace the client's names in a row with column names, without decoding the values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from rowcast.schema.unique_keys import check_unique_keys

RenameKeys = Callable[[bytes], bytes | None]
"""Returns the row with column names and unchanged values, or None if it is invalid or contains an unknown name.

Raises InvalidRows if a key occurs twice.
"""
INVALID = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_encode = msgspec.json.Encoder().encode
_cells = msgspec.structs.astuple
_is_special = re.compile(r'[\x00-\x1f"\\:]').search


def key_renamer(columns: Mapping[str, str]) -> RenameKeys:
    """Return a function that renames the keys of rows; `columns` maps each client name to its column."""
    if any(_is_special(name) for names in columns.items() for name in names):
        return _rename_in_dict(columns)
    return _rename_in_struct(columns)


def _rename_in_struct(columns: Mapping[str, str]) -> RenameKeys:
    decode = msgspec.json.Decoder(_row_type(columns, forbid_unknown_fields=True)).decode
    native_row = _row_type(columns.values())
    width = len(columns)

    def rename_keys(body: bytes) -> bytes | None:
        """Hot path. The cost is nearly independent of the number of renamed columns."""
        try:
            cells = _cells(decode(body))
        except INVALID:
            return None
        renamed = _encode(native_row(*cells))
        if renamed.count(b":") != body.count(b":"):  # duplicate keys have been merged
            check_unique_keys(body, width - cells.count(UNSET))
        return renamed

    return rename_keys


def _row_type(names: Iterable[str], *, forbid_unknown_fields: bool = False) -> type[Any]:
    """Return a type for rows with these names. Cells contain raw JSON text and can be absent."""
    fields = {f"c{number}": name for number, name in enumerate(names)}
    return msgspec.defstruct(
        "RawRow",
        [(field, msgspec.Raw, msgspec.UNSET) for field in fields],
        rename=fields,
        forbid_unknown_fields=forbid_unknown_fields,
        gc=False,
    )


def _rename_in_dict(columns: Mapping[str, str]) -> RenameKeys:
    """Rename keys by decoding a dict. This is slower, but supports keys that contain colons or characters that JSON
    escapes."""
    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

    def rename_keys(body: bytes) -> bytes | None:
        try:
            cells = decode(body)
            renamed = _encode({columns[name]: cell for name, cell in cells.items()})
        except (KeyError, *INVALID):
            return None
        check_unique_keys(body, len(cells))
        return renamed

    return rename_keys
