"""The key file: permissions, concurrent changes and damage."""

from __future__ import annotations

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
