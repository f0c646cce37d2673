"""`python -m rowcast.app.describe_onnx FOLDER MEMORY_MB SECONDS`: convert an imported graph.

A malicious graph can crash the process that converts it, so the importer runs this child process with limited
resources. FOLDER contains the request; the result is written to standard output. To start quickly, the process imports
neither the CLI nor the settings.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rowcast.adapters.sandbox import limit_this_process
from rowcast.errors import RowcastError

if TYPE_CHECKING:
    from rowcast.registry.ports import ForeignGraph


def main(folder: str, memory_mb: str, seconds: str) -> int:
    """Write the result and return 0; on failure, write the reason to standard error and return 2."""
    try:
        limit_this_process(int(memory_mb), float(seconds))
        from rowcast.registry.onnx_import.exchange import answer_request

        sys.stdout.buffer.write(answer_request(Path(folder), _open_graph))
    except MemoryError:
        sys.stderr.write(f"error: the model needs more than {memory_mb} MB (setting trial_memory_mb)\n")
        return 2
    except RowcastError as error:
        sys.stderr.write(f"error: {' '.join(error.message.split())}\n")
        return 2
    return 0


def _open_graph(model: bytes) -> ForeignGraph:
    from rowcast.adapters.onnxruntime.graph import ForeignOnnxGraph  # imported only after the graph has been inspected

    return ForeignOnnxGraph(model)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
