"""Query plans: every history filter uses an index that returns entries in listing order."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from rowcast.adapters.sqlite.queries import page_query
from rowcast.adapters.sqlite.store import SqliteStore
from rowcast.history.entry_filter import Selection
from support.entries import MIXED, identifier, sealed

SELECTIONS = {
    "entries_model": Selection(model="loans", version=2),
    "entries_label": Selection(label="Rejected"),
    "entries_tenant": Selection(tenant="bank"),
    "entries_entity": Selection(entity="customer-3"),
    "entries_id": Selection(first=identifier(20), end=identifier(40)),
}


@pytest.mark.parametrize("before", [None, identifier(30)])
@pytest.mark.parametrize("index", SELECTIONS)
def test_every_filter_uses_its_index_and_needs_no_sort(tmp_path: Path, index: str, before: str | None) -> None:
    with SqliteStore(tmp_path / "history.db") as store:
        store.record("w", sealed("w", MIXED))
    query, values = page_query(SELECTIONS[index], before)

    with sqlite3.connect(tmp_path / "history.db") as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", {**values, "limit": 50})]
    connection.close()

    assert any(f"SEARCH e USING INDEX {index} " in step for step in plan), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan
