"""The setting `store` selects the history store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rowcast.adapters.postgresql.store import PostgresStore
from rowcast.adapters.sqlite.store import SqliteStore
from rowcast.app.history import store
from rowcast.errors import SettingsError
from rowcast.settings import load


@pytest.mark.parametrize(("url", "path"), [("sqlite:///a/b.db", "a/b.db"), ("sqlite:////a/b.db", "/a/b.db")])
def test_a_sqlite_url_names_a_file(url: str, path: str) -> None:
    configured = store(load(store=url))

    assert isinstance(configured, SqliteStore)
    assert configured.path == Path(path)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_postgresql_url_names_a_database(scheme: str) -> None:
    configured = store(load(store=f"{scheme}://user:not-to-be-shown@host/db"))

    assert isinstance(configured, PostgresStore)
    assert (configured.location, configured.disk_folder) == ("postgresql://host/db", None)


@pytest.mark.parametrize(
    "url", ["mysql://u:not-to-be-shown@h/d", "sqlite:///", "sqlite://a.db", "postgresql:h", "a.db"]
)
def test_other_urls_are_refused_without_their_passwords(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        store(load(store=url))

    assert "expected sqlite:///PATH or postgresql://" in refused.value.message
    assert "not-to-be-shown" not in refused.value.message


def test_without_the_driver_only_a_postgresql_store_is_refused(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["psycopg"] = None  # importing it raises ImportError
from rowcast.app.history import store
from rowcast.errors import SettingsError
from rowcast.settings import load
assert store(load(store="sqlite:///history.db")).count() == 0
try:
    store(load(store="postgresql://user@host/db"))
except SettingsError as error:
    print(error.message)
"""
    finished = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert finished.stderr == ""
    assert "rowcast[postgres]" in finished.stdout
