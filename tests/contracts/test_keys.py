"""What every book of API keys promises."""

from __future__ import annotations

import stat
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from rowcast.access.keys_and_quotas import Key
from rowcast.access.ports import KeyWriter
from rowcast.adapters.files.keys import FileKeys
from rowcast.adapters.memory import MemoryKeys
from rowcast.errors import SettingsError


def key(name: str) -> Key:
    return Key(id=name, name=name, hash="00", scopes=("predict",), created=1)


@pytest.fixture(params=["memory", "file"])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> KeyWriter:
    return MemoryKeys() if request.param == "memory" else FileKeys(tmp_path / "home" / "keys.json")


def test_an_empty_book_has_no_keys(book: KeyWriter) -> None:
    assert list(book.all()) == []


def test_what_is_changed_is_seen_and_marked(book: KeyWriter) -> None:
    before = book.mark()
    book.change(lambda keys: [*keys, key("a"), key("b")])
    between = book.mark()
    book.change(lambda keys: keys[1:])

    assert [found.name for found in book.all()] == ["b"]
    assert len({before, between, book.mark()}) == 3


def test_a_change_that_fails_changes_nothing(book: KeyWriter) -> None:
    book.change(lambda keys: [key("a")])

    def refuse(keys: Sequence[Key]) -> Sequence[Key]:
        raise SettingsError("no")

    with pytest.raises(SettingsError):
        book.change(refuse)
    assert [found.name for found in book.all()] == ["a"]


def test_only_its_owner_can_read_the_file_and_nothing_else_stays(tmp_path: Path) -> None:
    FileKeys(tmp_path / "keys.json").change(lambda keys: [key("a")])

    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.json", "keys.lock"]


def test_changes_at_once_are_all_kept(tmp_path: Path) -> None:
    def add(number: int) -> None:
        FileKeys(tmp_path / "keys.json").change(lambda keys: [*keys, key(str(number))])

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {found.name for found in FileKeys(tmp_path / "keys.json").all()} == {str(n) for n in range(12)}


@pytest.mark.parametrize("content", ["{", '{"format":9,"keys":[]}', '{"format":1,"keys":[{"id":1}]}', "[]"])
def test_a_damaged_file_is_said_and_opens_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys.json").write_text(content)

    with pytest.raises(SettingsError, match=r"keys\.json"):
        FileKeys(tmp_path / "keys.json").all()
