"""`make fuzz-onnx`: inspect randomly altered ONNX files. Rowcast must either reject a file or find the same facts in it
as the official `onnx` parser: the number of nodes, the domains of the operators, and whether the file contains external
data, functions or training information. The test suite includes a shorter run.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time

import requirements

from support import onnx_fuzzing


def main() -> int:
    """Inspect the files; return 1 if the two parsers disagree about a file that Rowcast accepts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=500_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-record", action="store_true", help="do not write to results.jsonl")
    options = parser.parse_args()
    began = time.perf_counter()
    verdicts, example = onnx_fuzzing.run(options.files, random.Random(options.seed))
    seconds = time.perf_counter() - began
    kept = not verdicts["different"] and verdicts["agreed"] > 0
    print(json.dumps({**verdicts, "seconds": round(seconds, 1), "kept": kept}))
    if example is not None:
        print(f"the parsers disagree about this file: {example.hex()}", file=sys.stderr)
    if not options.no_record:
        requirements.record("fuzz-onnx", files=options.files, seed=options.seed, **verdicts, kept=kept)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
