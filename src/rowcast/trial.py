"""`python -m rowcast.trial FOLDER NAME VERSION MEMORY_MB SECONDS`: a bundle opened and proven in a process of its own.

A running server starts it before it takes a new version up. It is no command, because it must start quickly: it imports
neither the command line nor the settings.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rowcast import wiring
from rowcast.errors import RowcastError
from rowcast.ports import Reference


def main(folder: str, name: str, version: str, memory_mb: str, seconds: str) -> int:
    """0 when the bundle can be served; else 2, and the reason on standard error."""
    try:
        wiring.try_bundle(Reference(name, int(version)), Path(folder), int(memory_mb), float(seconds))
    except RowcastError as error:
        sys.stderr.write(f"error: {' '.join(error.message.split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
