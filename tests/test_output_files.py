"""Output files never overwrite input files."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowcast.errors import SettingsError
from rowcast.output_files import is_same_file, refuse_overwriting


def test_paths_to_the_same_file_are_recognized(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("a")
    (tmp_path / "soft").symlink_to("a")
    (tmp_path / "hard").hardlink_to(tmp_path / "a")
    (tmp_path / "broken").symlink_to("new")

    assert is_same_file(tmp_path / "a", tmp_path / "soft")
    assert is_same_file(tmp_path / "a", tmp_path / "hard")
    assert is_same_file(tmp_path / "new", tmp_path / "." / "new")
    assert is_same_file(tmp_path / "new", tmp_path / "broken")
    assert not is_same_file(tmp_path / "a", tmp_path / "b")
    assert not is_same_file(tmp_path / "a", tmp_path / "new")


def test_an_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    refuse_overwriting(table, [tmp_path / "other.csv", None, {"a": [1]}])

    with pytest.raises(SettingsError, match=r"rows\.csv is an input"):
        refuse_overwriting(table, [None, str(table)])
