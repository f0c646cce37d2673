"""The lock that allows only one process per home folder to run jobs. The kernel releases it when the process exits.

The file contains the name of the process that holds the lock or held it most recently.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rowcast.adapters.files.locks import is_unlocked
from rowcast.private_files import make_private_folder

LOCK = "job-runner.lock"


@contextmanager
def runner_lock(folder: Path, name: str) -> Iterator[str | None]:
    """Try to acquire the lock. Yield the name of its previous holder, or None if another process holds the lock."""
    make_private_folder(folder)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        previous = os.pread(descriptor, 100, 0).decode("ascii", "replace")
        os.pwrite(descriptor, name.encode("ascii"), 0)
        os.ftruncate(descriptor, len(name))
        yield previous
    finally:
        os.close(descriptor)


def is_runner_running(folder: Path) -> bool:
    """Return whether a process holds the lock."""
    try:
        with (folder / LOCK).open("rb") as file:
            return not is_unlocked(file)
    except FileNotFoundError:
        return False
