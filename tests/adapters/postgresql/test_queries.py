"""Query plans: every history filter and every lookup uses an index, and lists need no sort."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from rowcast.adapters.postgresql.queries import SELECT_CHAIN, SELECT_ENTRY, page_query
from rowcast.adapters.postgresql.store import PostgresStore
from rowcast.history.entry_filter import Selection
from support.entries import draft, identifier, sealed
from support.postgresql import Postgres

COUNT = 3000
SELECTIONS = {
    "model_id": Selection(model="loans", version=2),
    "left_id": Selection(label="Rejected"),
    "tenant_id": Selection(tenant="bank"),
    "entity_id": Selection(entity="customer-3"),
    "id": Selection(first=identifier(20), end=identifier(2990)),
}


@pytest.fixture
def connection(postgres: Postgres, database: str) -> Iterator[psycopg.Connection[Any]]:
    entries = [
        draft(
            number,
            "iris" if number % 20 else "loans",
            version=1 + number % 3,
            label="Approved" if number % 20 else "Rejected",
            tenant="" if number % 20 else "bank",
            entity="" if number % 20 else f"customer-{number // 20 % 2 + 3}",
        )
        for number in range(COUNT)
    ]
    with PostgresStore(database) as store:
        store.record("w", sealed("w", entries))
    postgres.execute("ANALYZE rowcast.entries")
    # The test tables are so small that PostgreSQL would prefer to read and sort them.
    options = "-c enable_sort=off -c enable_bitmapscan=off -c enable_seqscan=off"
    with psycopg.connect(database, options=options) as opened:
        yield opened


def plan(connection: psycopg.Connection[Any], query: str, values: Any) -> str:
    return "\n".join(row[0] for row in connection.execute(f"EXPLAIN {query}", values))


def test_every_filter_uses_its_index_and_needs_no_sort(connection: psycopg.Connection[Any]) -> None:
    for before in (None, identifier(2900)):
        for index, selection in SELECTIONS.items():
            query, values = page_query(selection, before)

            steps = plan(connection, query, {**values, "limit": 10})

            assert f"using entries_2023_11_{index}_idx on entries_2023_11" in steps
            assert "Seq Scan" not in steps
            assert "Sort" not in steps


def test_lookups_by_id_and_chains_use_an_index(connection: psycopg.Connection[Any]) -> None:
    lookup = plan(connection, SELECT_ENTRY, [identifier(7)])
    chain = plan(connection, SELECT_CHAIN, ["w", 100, 200])

    assert "using entries_2023_11_id_idx" in lookup
    assert "entries_2023_12" not in lookup  # only the partition that can contain the id
    assert "using entries_2023_11_writer on entries_2023_11" in chain
    assert "Seq Scan" not in lookup + chain
