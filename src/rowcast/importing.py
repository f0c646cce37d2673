"""`python -m rowcast.importing FOLDER MEMORY_MB SECONDS`: a foreign graph looked at, tried and described apart.

FOLDER holds `model.onnx` and `ask.json`; what it becomes is printed as JSON. Like `rowcast.trial` it is no command, and
the process may die of what it looks at.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rowcast import wiring
from rowcast.errors import RowcastError


def main(folder: str, memory_mb: str, seconds: str) -> int:
    """0 and the adopted model on standard output; else 2, and the reason on standard error."""
    try:
        sys.stdout.buffer.write(wiring.describe_foreign(Path(folder), int(memory_mb), float(seconds)))
    except MemoryError:
        sys.stderr.write(f"error: the model needs more than {memory_mb} MB (setting trial_memory_mb)\n")
        return 2
    except RowcastError as error:
        sys.stderr.write(f"error: {' '.join(error.message.split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
