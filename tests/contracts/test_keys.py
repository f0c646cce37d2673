"""The contract of `KeyReader` and `KeyWriter`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rowcast.access.keys import Key
from rowcast.access.ports import KeyWriter
from rowcast.access.quotas import parse_quota
from rowcast.adapters.files.keys import FileKeys
from rowcast.adapters.memory.keys import MemoryKeys
from rowcast.adapters.postgresql.keys import PostgresKeys
from rowcast.errors import SettingsError
from support.access import new_key


@pytest.fixture(params=["memory", "file", "postgresql"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> KeyWriter:
    if request.param == "postgresql":
        return PostgresKeys(request.getfixturevalue("database"))
    return MemoryKeys() if request.param == "memory" else FileKeys(tmp_path / "home" / "keys.json")


def test_a_new_key_store_is_empty(keys: KeyWriter) -> None:
    assert list(keys.all()) == []


def test_a_change_takes_effect_and_updates_the_revision(keys: KeyWriter) -> None:
    first = keys.revision()
    keys.change(lambda present: [*present, new_key("a"), new_key("b")])
    second = keys.revision()
    keys.change(lambda present: present[1:])

    assert [key.id for key in keys.all()] == ["b"]
    assert len({first, second, keys.revision()}) == 3


def test_a_failed_change_leaves_the_keys_unchanged(keys: KeyWriter) -> None:
    keys.change(lambda present: [new_key("a")])

    def fail(present: Sequence[Key]) -> Sequence[Key]:
        raise SettingsError("no")

    with pytest.raises(SettingsError):
        keys.change(fail)
    assert [key.id for key in keys.all()] == ["a"]


def test_a_key_is_read_as_it_was_written(keys: KeyWriter) -> None:
    options = {"tenant": "acme", "models": ("loans",), "quota": parse_quota("20 requests/60s"), "expires": 17}
    key = new_key("a", name='Ä "quoted" name', scopes=("predict", "read"), revoked=3, old_hash="ab" * 32, **options)

    keys.change(lambda present: [key])

    assert list(keys.all()) == [key]


@pytest.mark.parametrize("keys", ["file", "postgresql"], indirect=True)
def test_no_concurrent_change_is_lost(keys: KeyWriter) -> None:
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda number: keys.change(lambda present: [*present, new_key(str(number))]), range(6)))

    assert sorted(key.id for key in keys.all()) == list("012345")
