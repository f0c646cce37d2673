"""`make mutants`: change the code in 400 places, one at a time, and count the changes that no test notices.

The mutations are drawn from the packages in STRATA, at least one from each file; the hash of the commit is the random
seed. For each mutation, the tests that execute the changed line run: first those that execute it in the pytest process,
then those that execute it in other processes. A failed test kills the mutation if the same test passes without the
mutation. Survivors that are listed in equivalent_mutants.toml, with a reason, are not counted. The figures are appended
to results.jsonl.
"""

from __future__ import annotations

import argparse
import json
import queue
import random
import subprocess
import sys
import threading
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mutant_trees import Coverage, Run, Tree, measure
from mutations import Mutation, find
from requirements import Check, record, show
from rich.console import Console
from rich.markup import escape

ROOT = Path(__file__).resolve().parent.parent
SOURCE = Path("src", "rowcast")
STRATA: dict[str, tuple[int, tuple[str, ...]]] = {
    "serving": (70, ("serving",)),
    "history": (90, ("history", "adapters/sqlite", "adapters/files/journal*.py", "adapters/files/block_segment.py")),
    "access": (50, ("access", "adapters/files/keys.py")),
    "http": (90, ("http",)),
    "registry": (70, ("registry", "adapters/files/registry*.py")),
    "certificate": (30, ("training/certificate.py",)),
}
"""For each stratum, the number of mutations to draw (400 in all), and the files to draw them from."""
TEXT_SHARE = 0.25
"""The relative probability of drawing a mutation of a string. It is low because most strings describe the API."""
DIRECT_SECONDS, INDIRECT_SECONDS = 60.0, 90.0
"""The maximum total duration of a mutation's tests. Tests in the mirrored test file have priority."""
MIN_KILLED, MAX_EQUIVALENT = 0.85, 0.05
console = Console()


@dataclass(frozen=True)
class Verdict:
    """The result of testing one mutation."""

    mutation: Mutation
    killed_by: str
    """The failed test, or the reason why the tests could not finish; empty if the mutation survived."""
    tests: int
    seconds: float


def main() -> int:
    """Test the mutations; return 1 if too many survive."""
    options = arguments()
    began = time.monotonic()
    commit = git("rev-parse", "HEAD")
    folder = ROOT / "build" / "mutants" / commit[:12]
    trees = [Tree(folder / f"tree-{number}") for number in range(options.workers)]
    with console.status("copying the commit"):
        for tree in trees:
            tree.create()
    with console.status("running all tests with coverage"):
        coverage = measure(trees[0], folder, options.tests, options.workers)
    console.print(f"{len(coverage.seconds)} tests pass; {len(coverage.excluded)} others are not used")
    mutations = draw(options.seed or commit, options.count, options.only)
    verdicts = test_all(mutations, trees, coverage)
    return report(verdicts, folder, began, record_figures=not (options.no_record or options.only))


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400, help="the number of mutations")
    parser.add_argument("--seed", help="the seed; default: the commit")
    parser.add_argument(
        "--only", nargs="+", metavar="FILE[:LINE]", help="test every mutation of these files or lines, and no others"
    )
    parser.add_argument("--tests", nargs="+", default=["tests"], help="the tests to use")
    parser.add_argument("--workers", type=int, default=2, help="the number of mutations to test in parallel")
    parser.add_argument("--no-record", action="store_true", help="do not append the figures to results.jsonl")
    return parser.parse_args()


def git(*command: str) -> str:
    """Return the output of a git command."""
    return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def draw(seed: str, count: int, only: list[str] | None) -> list[Mutation]:
    """Return a sample of mutations from all strata, or all mutations at the given positions."""
    chance = random.Random(seed)
    drawn: list[Mutation] = []
    if only:
        for place in only:
            path, _, line = place.partition(":")
            drawn += [found for found in mutations_of(Path(path)) if not line or found.line == int(line)]
        return drawn
    total = sum(share for share, _ in STRATA.values())
    for share, patterns in STRATA.values():
        files = {str(path): mutations_of(path) for path in files_of(patterns)}
        drawn += sample(chance, {path: found for path, found in files.items() if found}, round(count * share / total))
    chance.shuffle(drawn)
    return drawn


def files_of(patterns: Iterable[str]) -> list[Path]:
    """Return the files of a stratum, relative to the repository."""
    found: set[Path] = set()
    for pattern in patterns:
        for path in (ROOT / SOURCE).glob(pattern):
            found.update(path.rglob("*.py") if path.is_dir() else [path])
    return sorted(path.relative_to(ROOT) for path in found)


def mutations_of(path: Path) -> list[Mutation]:
    """Return all mutations of a file in the commit."""
    content = subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True, check=True).stdout
    return find(str(path), content)


def sample(chance: random.Random, files: dict[str, list[Mutation]], count: int) -> list[Mutation]:
    """Draw one mutation from each file and the rest from all files; never draw two mutations at the same position."""
    drawn: dict[tuple[str, int], Mutation] = {}
    for path in chance.sample(sorted(files), min(count, len(files))):
        first = pick(chance, files[path])
        drawn[first.path, first.start] = first
    everything = [mutation for path in sorted(files) for mutation in files[path]]
    while len(drawn) < min(count, len(everything)):
        one = pick(chance, everything)
        drawn.setdefault((one.path, one.start), one)
    return list(drawn.values())


def pick(chance: random.Random, mutations: list[Mutation]) -> Mutation:
    """Draw one mutation."""
    weights = [TEXT_SHARE if mutation.kind == "text" else 1.0 for mutation in mutations]
    return chance.choices(mutations, weights)[0]


def test_all(mutations: list[Mutation], trees: list[Tree], coverage: Coverage) -> list[Verdict]:
    """Test each mutation in a copy that is not in use, and print the verdicts."""
    free: queue.SimpleQueue[Tree] = queue.SimpleQueue()
    for tree in trees:
        free.put(tree)
    done: list[Verdict] = []
    lock = threading.Lock()

    def test(mutation: Mutation) -> None:
        tree = free.get()
        try:
            verdict = test_one(mutation, tree, coverage)
        finally:
            free.put(tree)
        with lock:
            done.append(verdict)
            killed = sum(bool(other.killed_by) for other in done)
            result = "[green]killed" if verdict.killed_by else "[red]survived"
            counts = f"{len(done)}/{len(mutations)}, {killed / len(done):.1%} killed"
            console.print(
                f"{counts}: {result}[/] in {verdict.seconds:.0f} s:",
                escape(str(mutation)),
                soft_wrap=True,
                highlight=False,
            )

    with ThreadPoolExecutor(len(trees)) as pool:
        for future in [pool.submit(test, mutation) for mutation in mutations]:
            future.result()
    return done


def test_one(mutation: Mutation, tree: Tree, coverage: Coverage) -> Verdict:
    """Apply a mutation, run the tests that execute it until one fails, and restore the file."""
    began = time.monotonic()
    path = tree.folder / mutation.path
    original = path.read_bytes()
    killed_by, count = "", 0
    try:
        for tests in (direct_tests(mutation, coverage), indirect_tests(mutation, coverage)):
            if not tests or killed_by:
                continue
            count += len(tests)
            path.write_bytes(mutation.apply(original))
            expected = sum(coverage.seconds[test] for test in tests)
            run = tree.run(tests, limit=60 + 3 * expected, options=("-x", "-n", "0"))
            path.write_bytes(original)
            killed_by = cause(run, tree, coverage)
    finally:
        path.write_bytes(original)
    return Verdict(mutation, killed_by, count, time.monotonic() - began)


def cause(run: Run, tree: Tree, coverage: Coverage) -> str:
    """Return why the mutation was killed, or an empty string if it survived. A slow test counts only if it passes
    without the mutation."""
    if run.status == 0:
        return ""
    if run.status is None:
        return "the tests took too long"
    if run.status == 1 and run.failed:
        test = run.failed[0]
        if coverage.seconds.get(test, 0.0) > 1.0 and tree.run([test], limit=300, options=("-n", "0")).status != 0:
            return ""
        return test
    return f"pytest cannot load the tests (status {run.status})"


def direct_tests(mutation: Mutation, coverage: Coverage) -> list[str]:
    """Return the tests that execute the line in the pytest process; if there are too many, return the fastest."""
    lines = coverage.direct.get(mutation.path, {})
    tests = lines_of(mutation, lines)
    mirror = mirrored_file(mutation.path)
    order = sorted(tests, key=lambda test: (not test.startswith(mirror), coverage.seconds[test], test))
    return limited(order, coverage.seconds, DIRECT_SECONDS)


def indirect_tests(mutation: Mutation, coverage: Coverage) -> list[str]:
    """Return the tests in the files whose tests execute the line in other processes."""
    files = lines_of(mutation, coverage.indirect.get(mutation.path, {}))
    by_file: dict[str, list[str]] = defaultdict(list)
    for test in coverage.seconds:
        if (file := test.partition("::")[0]) in files:
            by_file[file].append(test)
    seconds = {file: sum(coverage.seconds[test] for test in tests) for file, tests in by_file.items()}
    mirror = mirrored_file(mutation.path)
    order = sorted(by_file, key=lambda file: (file != mirror, seconds[file], file))
    return [test for file in limited(order, seconds, INDIRECT_SECONDS) for test in by_file[file]]


def lines_of(mutation: Mutation, lines: dict[int, list[str]]) -> set[str]:
    """Return the tests that execute the mutation; for code that runs on import, return the tests that use its file."""
    for line in reversed(mutation.covered_by):
        if tests := lines.get(line):
            return set(tests)
    return set() if mutation.covered_by else {test for tests in lines.values() for test in tests}


def mirrored_file(path: str) -> str:
    """Return the test file of a module: tests/x/test_y.py for src/rowcast/x/y.py."""
    module = Path(path).relative_to(SOURCE)
    return str(Path("tests") / module.with_name(f"test_{module.name}"))


def limited(names: list[str], seconds: dict[str, float], limit: float) -> list[str]:
    """Return as many of the first names as can be tested within the time limit, but at least one."""
    chosen: list[str] = []
    total = 0.0
    for name in names:
        total += seconds[name]
        if chosen and total > limit:
            break
        chosen.append(name)
    return chosen


def report(verdicts: list[Verdict], folder: Path, began: float, *, record_figures: bool) -> int:
    """Print the survivors and the figures; return 1 if a requirement is not met."""
    survivors = sorted((one for one in verdicts if not one.killed_by), key=lambda one: str(one.mutation))
    argued = equivalents()
    lines = [(one, argued.get(key(one.mutation))) for one in survivors]
    unexplained = [one for one, reason in lines if reason is None]
    for one, reason in lines:
        note = f"argued equivalent: {reason}" if reason else f"{one.tests} tests passed" if one.tests else "no test"
        print(f"survived: {one.mutation} ({note})")
    (folder / "killed.json").write_text(
        json.dumps({str(one.mutation): one.killed_by for one in verdicts if one.killed_by}, indent=1)
    )
    equivalent = len(survivors) - len(unexplained)
    counted = len(verdicts) - equivalent
    checks = [
        Check("mutations tested", len(verdicts)),
        Check("killed", (counted - len(unexplained)) / max(counted, 1), least=MIN_KILLED),
        Check("argued equivalent", equivalent / max(len(verdicts), 1), most=MAX_EQUIVALENT),
        Check("minutes", (time.monotonic() - began) / 60),
    ]
    show(console, checks)
    kept = all(check.kept for check in checks)
    if record_figures:
        survived = [str(one.mutation) for one in unexplained]
        figures = {check.name: round(check.value, 4) for check in checks}
        record("mutants", checks=figures, survived=survived, kept=kept)
    return 0 if kept else 1


def equivalents() -> dict[tuple[str, str, str, str], str]:
    """Return the mutations listed as equivalent, with the reasons."""
    entries = tomllib.loads((ROOT / "bench" / "equivalent_mutants.toml").read_text()).get("mutant", [])
    return {(one["path"], one["line"], one["before"], one["after"]): one["reason"] for one in entries}


def key(mutation: Mutation) -> tuple[str, str, str, str]:
    """Return a key that identifies a mutation even if lines are added above it."""
    line = git("show", f"HEAD:{mutation.path}").splitlines()[mutation.line - 1]
    return mutation.path, line.strip(), mutation.before, mutation.after


if __name__ == "__main__":
    sys.exit(main())
