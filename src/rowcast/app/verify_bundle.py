"""`python -m rowcast.app.verify_bundle FOLDER NAME VERSION MEMORY_MB SECONDS`: load a bundle and check its scores.

Servers and importers run this child process, with limited resources, before they use a new bundle. To start quickly,
the process imports neither the CLI nor the settings.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rowcast.adapters.sandbox import limit_this_process
from rowcast.errors import RowcastError
from rowcast.registry.ports import Reference


def main(folder: str, name: str, version: str, memory_mb: str, seconds: str) -> int:
    """Return 0 if the bundle can be served; otherwise, write the reason to standard error and return 2."""
    try:
        limit_this_process(int(memory_mb), float(seconds))
        from rowcast.adapters.onnxruntime.graph import CHUNK, open_graph
        from rowcast.serving.live_models import check_batch, load_folder

        check_batch(load_folder(Reference(name, int(version)), Path(folder), open_graph), CHUNK)
    except RowcastError as error:
        sys.stderr.write(f"error: {' '.join(error.message.split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
