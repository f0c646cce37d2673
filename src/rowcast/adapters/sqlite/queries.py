"""Builds the queries for a selection. Unset fields add no conditions, so that SQLite can use an index."""

from __future__ import annotations

from typing import Any

import msgspec

from rowcast.adapters.sql import index_conditions, query_values
from rowcast.history.entry_filter import Selection

CONDITIONS = {
    "tenant": "e.tenant = :tenant",
    "model": "e.model = :model",
    "version": "e.version = :version",
    "label": "e.label = :label",
    "entity": "e.entity = :entity",
    "first": "e.id >= :first",
    "end": "e.id < :end",
    "ids": "e.id IN (SELECT value FROM json_each(:ids))",
    "models": "e.model IN (SELECT value FROM json_each(:models))",
    "before": "e.id < :before",
    "after": "e.id > :after",
}
SELECT_PAGE = (
    "SELECT w.writer, e.seq, e.head, e.salt, e.row, e.row_hash, e.link "
    "FROM entries AS e JOIN writers AS w ON w.number = e.writer WHERE {where} ORDER BY e.id DESC LIMIT :limit"
)
SELECT_ROWS_TO_ERASE = (
    "SELECT e.writer, e.seq, e.id, e.row IS NOT NULL FROM entries AS e WHERE {where} ORDER BY e.id LIMIT :limit"
)

SELECT_NEWEST_ROW = "SELECT e.id FROM entries AS e WHERE {where} AND e.row IS NOT NULL ORDER BY e.id DESC LIMIT 1"


def page_query(selection: Selection, before: str | None = None) -> tuple[str, dict[str, Any]]:
    """Return the query for a page in descending order of id, and the query's parameters except `limit`."""
    where, values = where_clause(selection, before=before)
    return SELECT_PAGE.format(where=where), values


def where_clause(selection: Selection, **bounds: str | None) -> tuple[str, dict[str, Any]]:
    """Return the WHERE clause for a selection, and its parameters. `bounds` can contain `before` and `after`."""
    values = query_values(selection, bounds)
    for name in ("ids", "models"):
        if name in values:
            values[name] = msgspec.json.encode(values[name]).decode()
    conditions = [CONDITIONS[name] for name in values]
    return " AND ".join([*conditions, *index_conditions(values)] or ["TRUE"]), values
