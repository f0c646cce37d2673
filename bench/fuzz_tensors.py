"""`make fuzz-tensors`: send binary tensors with random errors in their headers, lengths and bytes.

Rowcast must either parse each request exactly as a simple reference parser does, or reject it with an error message,
within limits on time and memory. The test suite includes a shorter run.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time

import requirements

from support import fuzzing


def main() -> int:
    """Send the requests; return 1 if a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-record", action="store_true", help="do not write to results.jsonl")
    options = parser.parse_args()
    began = time.perf_counter()
    figures = fuzzing.run(options.requests, random.Random(options.seed))
    seconds = time.perf_counter() - began
    kept = figures["read"] + figures["refused"] == options.requests and figures["largest_bytes"] < 4_000_000
    print(json.dumps({**figures, "seconds": round(seconds, 1), "kept": kept}))
    if not options.no_record:
        requirements.record("fuzz-tensors", requests=options.requests, seed=options.seed, **figures, kept=kept)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
