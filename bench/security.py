"""`make check-security`: attack a server and its files, and use the product as a new user would. The checks do not
depend on the code: they run commands, send bytes and read files. `--python` selects the installation to check, for
example the interpreter of another commit's environment.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import security_machine
import security_manners
import security_safety
from product import Product
from rich.console import Console
from rich.markup import escape
from rich.table import Table

GROUPS: dict[str, tuple[Callable[[Product], None], ...]] = {
    "A": security_safety.CHECKS,
    "B": security_machine.CHECKS,
    "C": security_manners.CHECKS,
}
TITLES = {"A": "safety", "B": "fresh machines", "C": "manners"}


def main() -> int:
    """Run the checks; return 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", nargs="+", choices=GROUPS, default=list(GROUPS), help="the groups of checks to run")
    parser.add_argument("--check", nargs="+", default=[], metavar="NAME", help="run only these checks")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="the interpreter of the installation")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rowcast-security-") as scratch:
        product = Product(options.python.absolute(), Path(scratch))
        product.prepare()
        results = [
            (group, check, *outcome(check, product))
            for group in options.group
            for check in GROUPS[group]
            if not options.check or check.__name__ in options.check
        ]
    failed = [result for result in results if result[2]]
    if options.json:
        print(json.dumps([{"group": g, "check": c.__name__, "problem": problem} for g, c, problem, _ in results]))
    else:
        print_results(results)
        print(f"{len(results) - len(failed)} of {len(results)} checks passed")
    return 1 if failed or not results else 0


def outcome(check: Callable[[Product], None], product: Product) -> tuple[str, float]:
    """Run one check; return the problem found (empty if there was none) and the check's duration."""
    began = time.monotonic()
    print(f"{check.__name__} ...", file=sys.stderr)
    try:
        check(product)
    except (AssertionError, OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
        return f"{error}" or type(error).__name__, time.monotonic() - began
    return "", time.monotonic() - began


def print_results(results: list[tuple[str, Callable[[Product], None], str, float]]) -> None:
    """Print a table of all checks."""
    table = Table("", "check", "result", "seconds", title="black-box checks")
    for group, check, problem, seconds in results:
        point, _, text = (check.__doc__ or "").partition(": ")
        verdict = f"[red]FAILED:[/] {escape(problem[:300])}" if problem else "[green]passed"
        table.add_row(
            f"{group}{point}", f"{check.__name__.replace('_', ' ')}\n[dim]{escape(text)}", verdict, f"{seconds:.1f}"
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    sys.exit(main())
