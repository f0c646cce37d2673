"""Private folders, and locks with a time limit."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from rowcast.private_files import LockTimeout, locked, make_private_folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_folders_are_private_and_existing_folders_are_unchanged(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    before = os.umask(0)
    try:
        make_private_folder(shared / "home" / "journal")
        make_private_folder(shared)
        make_private_folder(shared / "home" / "journal")
    finally:
        os.umask(before)

    assert [mode(path) for path in (shared, shared / "home", shared / "home" / "journal")] == [0o755, 0o700, 0o700]


def test_a_file_where_a_folder_is_expected_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        make_private_folder(tmp_path / "file" / "folder")


def test_waiting_for_a_lock_times_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    with locked(path), pytest.raises(LockTimeout) as refused, locked(path, 0.05):
        pytest.fail("the lock was acquired twice")

    assert refused.value.strerror == f"another process has held the lock {path} for 0.05 s; find it with `fuser {path}`"
    with locked(path, 0.0):
        assert mode(path) == 0o600


def test_a_lock_that_is_released_in_time_is_acquired(tmp_path: Path) -> None:
    path, held, acquired = tmp_path / "lock", threading.Event(), threading.Event()

    def hold() -> None:
        with locked(path):
            held.set()
            assert not acquired.wait(0.1)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(5)
    with locked(path, 5.0):
        acquired.set()
    holder.join()
