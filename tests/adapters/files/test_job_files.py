"""Job files in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowcast.adapters.files.job_files import FolderFileStore
from rowcast.errors import NotFound, Unavailable


def test_only_stores_with_the_same_folder_have_the_same_place(tmp_path: Path) -> None:
    first, second, other = (FolderFileStore(tmp_path / name) for name in ("a", "a", "b"))

    assert first.place == second.place != other.place


@pytest.mark.parametrize("name", ["../secret", "j/../../secret", "/etc/passwd", "j//a", "j/.hidden", ""])
def test_no_name_refers_to_a_file_outside_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("s")
    files = FolderFileStore(tmp_path / "files")

    with pytest.raises(NotFound):
        files.read(name)
    with pytest.raises(NotFound):
        files.put(name, b"x")


def test_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    FolderFileStore(tmp_path / "files").put("j/a", b"x")

    assert (tmp_path / "files").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "files" / "j" / "a").stat().st_mode & 0o777 == 0o600


def test_new_files_are_refused_if_the_disk_is_almost_full(tmp_path: Path) -> None:
    files = FolderFileStore(tmp_path / "files", min_free=1 << 62)

    with pytest.raises(Unavailable) as refused:
        files.put("j/a", b"x")
    assert refused.value.slug == "disk-low"
    with pytest.raises(Unavailable) as unhealthy:
        files.check()
    assert unhealthy.value.slug == "disk-low"
