"""Create history stores for tests that every kind of store must pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowcast.adapters.memory.store import MemoryStore
from rowcast.adapters.postgresql.store import PostgresStore
from rowcast.adapters.sqlite.store import SqliteStore
from rowcast.history.ports import Store


def new_store(request: pytest.FixtureRequest, folder: Path) -> Store:
    """Return an empty store of the kind given by the fixture's parameter."""
    if request.param == "postgresql":
        return PostgresStore(request.getfixturevalue("database"))
    return MemoryStore() if request.param == "memory" else SqliteStore(folder / "history.db")


def another(store: Store) -> Store:
    """Open a new instance of the same store, as another process would."""
    if isinstance(store, PostgresStore):
        return PostgresStore(store.url)
    return SqliteStore(store.path) if isinstance(store, SqliteStore) else store


def url(store: Store) -> str:
    """Return the value of the setting `store` that selects this store."""
    if isinstance(store, PostgresStore):
        return store.url
    assert isinstance(store, SqliteStore)
    return f"sqlite:///{store.path}"
