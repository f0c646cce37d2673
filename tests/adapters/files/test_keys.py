"""The key file: permissions, concurrent changes and damage."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest

from rowcast.adapters.files.keys import FileKeys
from rowcast.errors import SettingsError
from support.access import new_key


def test_only_the_owner_can_read_the_file_and_no_temporary_file_remains(tmp_path: Path) -> None:
    FileKeys(tmp_path / "keys.json").change(lambda keys: [new_key("a")])

    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.json", "keys.lock"]


def test_no_concurrent_change_is_lost(tmp_path: Path) -> None:
    def add(number: int) -> None:
        FileKeys(tmp_path / "keys.json").change(lambda keys: [*keys, new_key(str(number))])

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {key.id for key in FileKeys(tmp_path / "keys.json").all()} == {str(number) for number in range(12)}


@pytest.mark.parametrize("content", ["{", '{"format":9,"keys":[]}', '{"format":1,"keys":[{"id":1}]}', "[]"])
def test_the_error_for_a_damaged_file_or_an_unknown_format_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys.json").write_text(content)

    with pytest.raises(SettingsError) as refused:
        FileKeys(tmp_path / "keys.json").all()
    assert "keys.json" in refused.value.message


def test_the_file_contains_its_format_and_the_keys_without_default_values(tmp_path: Path) -> None:
    FileKeys(tmp_path / "keys.json").change(lambda keys: [new_key("a")])

    text = (tmp_path / "keys.json").read_text()
    assert json.loads(text) == {
        "format": 1,
        "keys": [{"id": "a", "name": "key a", "hash": new_key("a").hash, "scopes": ["predict"], "created": 0}],
    }
    assert text.startswith('{\n "format": 1,\n')
    assert text.endswith("}\n")


def test_a_missing_file_has_no_keys_and_no_revision(tmp_path: Path) -> None:
    keys = FileKeys(tmp_path / "keys.json")

    assert (keys.all(), keys.revision()) == ((), None)
    keys.change(lambda present: [new_key("a")])
    status = (tmp_path / "keys.json").stat()
    assert keys.revision() == (status.st_ino, status.st_mtime_ns, status.st_size)


def test_a_file_in_a_newer_format_is_neither_read_nor_overwritten(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text('{"format":2,"keys":[]}')

    with pytest.raises(SettingsError) as refused:
        FileKeys(tmp_path / "keys.json").change(lambda keys: [])

    assert refused.value.message.endswith("was written by a newer version of Rowcast (format 2)")
    assert (tmp_path / "keys.json").read_text() == '{"format":2,"keys":[]}'


def test_the_error_for_keys_that_cannot_be_written_names_the_file_and_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(SettingsError) as refused:
        FileKeys(tmp_path / "file" / "keys.json").change(lambda keys: [])

    assert refused.value.message.startswith(f"cannot write the keys to {tmp_path / 'file' / 'keys.json'}: ")


def test_the_folder_of_the_keys_is_private(tmp_path: Path) -> None:
    FileKeys(tmp_path / "home" / "keys.json").change(lambda keys: [])

    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
