"""Builds the queries for a selection. Unset fields add no conditions, so that PostgreSQL can use an index."""

from __future__ import annotations

import re
from typing import Any

from rowcast.adapters.sql import index_conditions, query_values
from rowcast.history.entry_filter import Selection

CONDITIONS = {
    "tenant": "e.tenant = %(tenant)s",
    "model": "e.model = %(model)s",
    "version": "e.version = %(version)s",
    "label": "left(e.label, 200) = left(%(label)s, 200)",
    "entity": "e.entity = %(entity)s",
    "first": "e.id >= %(first)s",
    "end": "e.id < %(end)s",
    "ids": "e.id = ANY (%(ids)s::uuid[])",
    "models": "e.model = ANY (%(models)s)",
    "before": "e.id < %(before)s",
    "after": "e.id > %(after)s",
}
COLUMNS = 'e.seq, e.head, e.salt, e."row", e.row_hash, e.link'
FROM_WRITERS = "FROM rowcast.entries AS e JOIN rowcast.writers AS w ON w.number = e.writer"
SELECT_ENTRY = f"SELECT w.writer, {COLUMNS} {FROM_WRITERS} WHERE e.id = %s"
FROM_CHAIN = (
    "FROM rowcast.entries AS e "
    "WHERE e.writer = (SELECT number FROM rowcast.writers WHERE writer = %s) AND e.seq > %s ORDER BY e.seq LIMIT %s"
)
SELECT_CHAIN = f"SELECT {COLUMNS} {FROM_CHAIN}"
SELECT_COPIES = f"SELECT e.seq, e.head, e.id::text, e.model, e.version, e.label, e.tenant, e.entity {FROM_CHAIN}"
SELECT_PAGE = f"SELECT w.writer, {COLUMNS} {FROM_WRITERS} WHERE {{where}} ORDER BY e.id DESC LIMIT %(limit)s"
SELECT_ROWS_TO_ERASE = (
    'SELECT e.id::text, e."row" IS NOT NULL FROM rowcast.entries AS e WHERE {where} ORDER BY e.id LIMIT %(limit)s'
)
SELECT_NEWEST_ROW = (
    'SELECT e.id::text FROM rowcast.entries AS e WHERE {where} AND e."row" IS NOT NULL ORDER BY e.id DESC LIMIT 1'
)
COPY_ENTRIES = (
    "COPY rowcast.entries (writer, seq, id, model, version, label, tenant, entity, head, salt, "
    '"row", row_hash, link) FROM STDIN (FORMAT BINARY)'
)
COLUMN_TYPES = ("int8", "int8", "uuid", "text", "int8", "text", "text", "text", *["bytea"] * 5)
# VACUUM cannot remove erased rows that an old snapshot can still read. Rowcast always sees its own connections here.
SELECT_BLOCKED = """SELECT EXISTS (
    SELECT FROM pg_stat_activity AS a, rowcast.unscrubbed AS u
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
    AND age(a.backend_xmin) >= age(u.transaction::xid)
)"""
INDEXED_CHARACTERS = 200
"""Only this many leading characters of a label are indexed, because PostgreSQL limits the size of an index entry."""
NUL, REPLACEMENT = "\0", "\ufffd"
"""PostgreSQL cannot store NUL characters; copied fields contain the replacement character instead."""
is_id = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch


def page_query(selection: Selection, before: str | None = None) -> tuple[str, dict[str, Any]]:
    """Return the query for a page in descending order of id, and the query's parameters except `limit`."""
    where, values = where_clause(selection, before=before)
    return SELECT_PAGE.format(where=where), values


def where_clause(selection: Selection, **bounds: str | None) -> tuple[str, dict[str, Any]]:
    """Return the WHERE clause for a selection, and its parameters. `bounds` can contain `before` and `after`."""
    values = query_values(selection, bounds)
    if "ids" in values:
        values["ids"] = [each for each in values["ids"] if is_id(each)]
    if "models" in values:
        values["models"] = list(values["models"])
    for name in ("model", "label", "entity", "tenant"):
        if name in values:
            values[name] = storable(values[name])
    conditions = [CONDITIONS[name] for name in values]
    # The index covers only the start of a long label. For a short label, the extra condition would mislead the planner.
    conditions += ["e.label = %(label)s"] if len(values.get("label", "")) >= INDEXED_CHARACTERS else []
    return " AND ".join([*conditions, *index_conditions(values)] or ["TRUE"]), values


def storable(text: str) -> str:
    """Replace the characters that PostgreSQL cannot store."""
    return text.replace(NUL, REPLACEMENT)
