"""`python -m rowcast.app.verify_bundle FOLDER NAME VERSION MEMORY_MB SECONDS`: open and verify a bundle apart.

A running server starts it before it takes a new version up. It is no command, because it must start quickly: it imports
neither the command line nor the settings.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rowcast.app import server as app_server
from rowcast.errors import RowcastError
from rowcast.registry.ports import Reference


def main(folder: str, name: str, version: str, memory_mb: str, seconds: str) -> int:
    """0 when the bundle can be served; else 2, and the reason on standard error."""
    try:
        app_server.try_bundle(Reference(name, int(version)), Path(folder), int(memory_mb), float(seconds))
    except RowcastError as error:
        sys.stderr.write(f"error: {' '.join(error.message.split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
