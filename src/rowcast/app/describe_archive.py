"""`python -m rowcast.app.describe_archive FOLDER MAX_NODES MEMORY_MB SECONDS`: check an unpacked archive.

The importer runs this child process with limited resources, because even a small archive can require a lot of memory.
It writes the result to standard output. To start quickly, the process imports neither the CLI nor the settings.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rowcast.adapters.sandbox import limit_this_process
from rowcast.errors import RowcastError


def main(folder: str, max_nodes: str, memory_mb: str, seconds: str) -> int:
    """Write the description and return 0; on failure, write the reason to standard error and return 2."""
    try:
        limit_this_process(int(memory_mb), float(seconds))
        from rowcast.registry.archive import description

        sys.stdout.buffer.write(description(Path(folder), int(max_nodes)))
    except MemoryError:
        sys.stderr.write(f"error: the archive needs more than {memory_mb} MB (setting trial_memory_mb)\n")
        return 2
    except RowcastError as error:
        sys.stderr.write(f"error: {' '.join(error.message.split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
