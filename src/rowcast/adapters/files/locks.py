"""File locks. The kernel releases a lock when the process that holds it exits or is killed."""

from __future__ import annotations

import fcntl
from typing import IO


def is_unlocked(file: IO[bytes]) -> bool:
    """Return True if no process holds an exclusive lock on this open file."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True
