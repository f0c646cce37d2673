"""`make fuzz-tensors`: binary tensors whose heads, lengths and bytes were made wrong at random.

Each request is read exactly as a plain reader reads it, or refused with a sentence of ours; nothing else may happen, in
no more than a blink and a few megabytes. A smaller run is among the tests.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time

import promises

from support import fuzzing


def main() -> int:
    """So many requests; 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-record", action="store_true", help="leave results.jsonl alone")
    options = parser.parse_args()
    began = time.perf_counter()
    found = fuzzing.run(options.requests, random.Random(options.seed))
    seconds = time.perf_counter() - began
    kept = found["read"] + found["refused"] == options.requests and found["largest_bytes"] < 4_000_000
    print(json.dumps({**found, "seconds": round(seconds, 1), "kept": kept}))
    if not options.no_record:
        promises.record("fuzz-tensors", requests=options.requests, seed=options.seed, **found, kept=kept)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
