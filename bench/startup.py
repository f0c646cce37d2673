"""`make bench-startup`: measure the CPU time of `import rowcast` and of `rowcast --help`.

The benchmark compares CPU time, because a busy machine delays a process but hardly increases its CPU time. It runs each
command several times and reports the lowest value. `tests/architecture/test_imports.py` checks which modules each
command loads.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from requirements import Check, record, show
from rich.console import Console

PROCESSES = 5


def main() -> int:
    """Measure, check the requirements and record the figures; return 1 if a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-record", action="store_true", help="do not write to results.jsonl")
    options = parser.parse_args()
    interpreter = best(["-c", "pass"])
    checks = [
        Check("import rowcast, ms", (best(["-c", "import rowcast"]) - interpreter) * 1000, most=50),
        Check("rowcast --help, ms", best(["-m", "rowcast.cli", "--help"]) * 1000, most=400),
    ]
    show(Console(width=110), checks)
    kept = all(check.kept for check in checks)
    if not options.no_record:
        record("startup", checks={check.name: round(check.value, 1) for check in checks}, kept=kept)
    return 0 if kept else 1


def best(arguments: list[str]) -> float:
    """Run this interpreter several times with these arguments and return the lowest CPU time."""
    return min(cpu_seconds([sys.executable, *arguments]) for _ in range(PROCESSES))


def cpu_seconds(command: list[str]) -> float:
    """Run a command and return its user and system time."""
    before = os.times()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


if __name__ == "__main__":
    sys.exit(main())
