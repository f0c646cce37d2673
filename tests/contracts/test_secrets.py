"""The contract of `SecretStore`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rowcast.adapters.files.secret import FileSecret
from rowcast.adapters.postgresql.secret import PostgresSecret
from rowcast.history.ports import SecretStore

SECRET, OTHER = bytes(range(32)), bytes(32)


@pytest.fixture(params=["file", "postgresql"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], SecretStore]:
    """Return a function that opens a new instance of the same store, as another process would."""
    if request.param == "file":
        return lambda: FileSecret(tmp_path / "home" / "history.key")
    url = request.getfixturevalue("database")
    return lambda: PostgresSecret(url, "history")


def test_looking_for_a_secret_does_not_create_it(open_store: Callable[[], SecretStore]) -> None:
    assert open_store().find() is None
    assert open_store().find() is None


def test_the_first_secret_is_kept(open_store: Callable[[], SecretStore]) -> None:
    assert open_store().keep(SECRET) == SECRET
    assert open_store().keep(OTHER) == SECRET
    assert open_store().find() == SECRET


def test_processes_that_create_the_secret_at_the_same_time_agree(open_store: Callable[[], SecretStore]) -> None:
    with ThreadPoolExecutor(6) as threads:
        kept = set(threads.map(lambda number: open_store().keep(bytes([number]) * 32), range(6)))

    assert kept == {open_store().find()}
