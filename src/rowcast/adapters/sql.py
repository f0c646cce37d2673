"""Code shared by the SQLite and PostgreSQL stores: query conditions and the conversion of column values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from rowcast.history.chain import SealedEntry
from rowcast.history.copied_fields import CopiedFields, copied_fields
from rowcast.history.entry_filter import Selection
from rowcast.history.ports import StoredEntry


def query_values(selection: Selection, bounds: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the fields and bounds that are set. Unset ones add no conditions, so that a query can use an index."""
    fields = {**msgspec.structs.asdict(selection), **bounds}
    return {name: value for name, value in fields.items() if value is not None and value != ()}


def index_conditions(values: Mapping[str, Any]) -> list[str]:
    """Return the conditions that allow a query to use the partial indexes, which omit empty strings."""
    return [f"e.{name} <> ''" for name in ("tenant", "label", "entity") if values.get(name)]


def changed_fields(
    rows: Iterable[Sequence[Any]], as_stored: Callable[[CopiedFields], CopiedFields] = lambda fields: fields
) -> Iterator[tuple[int, str]]:
    """Yield the `seq` and the name of each copied field that differs from the entry.

    Each row consists of `seq`, the head and the copied fields. `as_stored` converts fields as the store does.
    """
    for seq, head, *copies in rows:
        try:
            originals = as_stored(copied_fields(head))
        except msgspec.MsgspecError:
            continue  # the verification of the chain reports a damaged entry
        for name, copy, original in zip(CopiedFields._fields, copies, originals, strict=True):
            if copy != original:
                yield seq, name


def to_entry(row: Sequence[Any]) -> StoredEntry:
    """Convert a database row, which contains the writer and the parts of a sealed entry, into a stored entry."""
    return StoredEntry(row[0], SealedEntry(*row[1:]))


def encode_names(journals: frozenset[str]) -> bytes:
    """Encode the names of journals."""
    return msgspec.json.encode(sorted(journals))


def decode_names(content: bytes | None) -> frozenset[str] | None:
    """Decode the names of journals."""
    return None if content is None else msgspec.json.decode(content, type=frozenset[str])
