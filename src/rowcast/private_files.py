"""Folders and locks that other users of the machine cannot open."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LOCK_SECONDS: Final = 30.0
"""The default timeout for acquiring a lock. Most locks are held for milliseconds."""
LONGEST_PAUSE: Final = 0.05


class LockTimeout(OSError):
    """Another process has held a lock for too long."""

    def __init__(self, path: Path, seconds: float) -> None:
        message = f"another process has held the lock {path} for {seconds:g} s; find it with `fuser {path}`"
        super().__init__(errno.EAGAIN, message, str(path))


def make_private_folder(path: Path) -> None:
    """Create a folder, and its parents if necessary, that only its owner can access. An existing folder is not
    changed."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(exist_ok=True)  # raises FileExistsError if the path is a file


@contextmanager
def locked(path: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold an exclusive lock on a file; create the file if necessary. Raise LockTimeout after `seconds`."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        acquire_lock(descriptor, path, seconds)
        yield
    finally:
        os.close(descriptor)


def acquire_lock(descriptor: int, path: Path, seconds: float = LOCK_SECONDS) -> None:
    """Lock an open file. Raise LockTimeout after `seconds`. This function polls, because a blocking lock call has no
    timeout."""
    end = time.monotonic() + seconds
    pause = 0.001
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise LockTimeout(path, seconds) from None
        else:
            return
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
