"""Whether another process holds a file: the kernel lets go of its lock however that process ends."""

from __future__ import annotations

import fcntl
from typing import IO


def is_unlocked(file: IO[bytes]) -> bool:
    """Whether nobody holds this open file alone."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True
