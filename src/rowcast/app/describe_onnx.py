"""`python -m rowcast.app.describe_onnx FOLDER MEMORY_MB SECONDS`: inspect, try and describe a foreign graph.

FOLDER contains `model.onnx` and `ask.json`; the result is printed as JSON. This runs in a bounded child process because
a hostile graph may crash it. It is not a CLI command so that it starts quickly.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rowcast.errors import RowcastError
from rowcast.registry import import_model


def main(folder: str, memory_mb: str, seconds: str) -> int:
    """0 and the adopted model on standard output; else 2, and the reason on standard error."""
    try:
        sys.stdout.buffer.write(import_model.describe_foreign(Path(folder), int(memory_mb), float(seconds)))
    except MemoryError:
        sys.stderr.write(f"error: the model needs more than {memory_mb} MB (setting trial_memory_mb)\n")
        return 2
    except RowcastError as error:
        sys.stderr.write(f"error: {' '.join(error.message.split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
