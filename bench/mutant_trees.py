"""The copies of a commit that `make mutants` tests, and a map from each line to the tests that execute it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import coverage

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = "test_outcomes"
COVERAGE = """[run]
source_pkgs = rowcast
parallel = true
data_file = {data}
sigterm = true
patch = fork, _exit
context = ${{PYTEST_CURRENT_TEST-}}
disable_warnings = no-data-collected, module-not-imported, module-not-measured, couldnt-parse
"""
START_COVERAGE = "import os, sys; 'COVERAGE_PROCESS_START' in os.environ and __import__('coverage').process_startup()\n"


@dataclass(frozen=True)
class Run:
    """The result of one run of pytest."""

    status: int | None
    """The exit status; None if the run was stopped because it took too long."""
    outcomes: dict[str, tuple[str, float]]

    @property
    def failed(self) -> list[str]:
        return [test for test, (outcome, _) in self.outcomes.items() if outcome == "failed"]


class Tree:
    """A copy of the commit with its own virtual environment; mutations can be tested in several copies at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self) -> None:
        """Copy the commit's files and create the virtual environment.

        The client lock files are given an old modification time, so that scripts/clients.sh keeps the installed
        clients.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        archive = subprocess.Popen(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "-C", str(self.folder)], stdin=archive.stdout, check=True)
        if archive.wait() != 0:
            raise SystemExit("git archive HEAD failed")
        for clients in ROOT.glob(".venv-clients-*"):
            (self.folder / clients.name).symlink_to(clients)
            os.utime(self.folder / "requirements" / f"{clients.name.removeprefix('.venv-')}.txt", (0, 0))
        venv.create(self.folder / ".venv", symlinks=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = self.folder / ".venv" / "lib" / version / "site-packages"
        installed = ROOT / ".venv" / "lib" / version / "site-packages"
        # The sources of this copy take precedence over those of the editable installation.
        (site / "tree.pth").write_text(f"{self.folder / 'src'}\nimport site; site.addsitedir({str(installed)!r})\n")
        (site / "tree_coverage.pth").write_text(START_COVERAGE)
        shutil.copy(ROOT / "bench" / f"{PLUGIN}.py", site)
        self._copy_scripts(ROOT / ".venv" / "bin")

    def _copy_scripts(self, folder: Path) -> None:
        """Copy the installed commands, and make them run this copy's Python."""
        own = self.folder / ".venv" / "bin"
        for script in folder.iterdir():
            target = own / script.name
            if target.exists() or not script.is_file() or script.read_bytes()[:2] != b"#!":
                continue
            _, _, rest = script.read_bytes().partition(b"\n")
            target.write_bytes(f"#!{own / 'python'}\n".encode() + rest)
            target.chmod(0o755)

    def run(self, tests: list[str], *, limit: float, options: tuple[str, ...] = (), **env: str) -> Run:
        """Run these tests; stop all processes after `limit` seconds."""
        outcomes, names = self.folder.with_suffix(".outcomes"), self.folder.with_suffix(".tests")
        outcomes.unlink(missing_ok=True)
        names.write_text("\n".join(tests))
        python = str(self.folder / ".venv" / "bin" / "python")
        command = [python, "-m", "pytest", "-q", "-p", PLUGIN, "-p", "no:cacheprovider", *options, f"@{names}"]
        # Rowcast rejects unknown variables that start with ROWCAST_.
        own = {"TEST_OUTCOMES": str(outcomes), "PYTHONDONTWRITEBYTECODE": "1"}
        with self.folder.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **own, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                _kill_session(process)
        return Run(status, json.loads(outcomes.read_text()) if outcomes.exists() else {})


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill pytest and all processes that its tests have left behind."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        try:
            if os.getsid(pid) == process.pid:
                os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    process.wait()


@dataclass(frozen=True)
class Coverage:
    """Which tests execute each line, and how long each test takes."""

    direct: dict[str, dict[int, list[str]]]
    """For each file and line, the tests that execute the line in the pytest process."""
    indirect: dict[str, dict[int, list[str]]]
    """For each file and line, the test files whose tests execute the line in other processes."""
    seconds: dict[str, float]
    """The duration, in seconds, of each test that passes without a mutation."""
    excluded: list[str]
    """The tests that failed or were skipped in the run without a mutation."""


def measure(tree: Tree, folder: Path, tests: list[str], workers: int) -> Coverage:
    """Run all tests with coverage; the result is stored in the folder and reused for the same commit."""
    stored = folder / "coverage.json"
    if not stored.exists():
        data = folder / "coverage" / "data"
        shutil.rmtree(data.parent, ignore_errors=True)
        data.parent.mkdir(parents=True)
        settings = folder / "coverage.ini"
        settings.write_text(COVERAGE.format(data=data))
        options = ("-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder", "--timeout", "400")
        run = tree.run(tests, limit=3600, options=options, COVERAGE_PROCESS_START=str(settings))
        if run.status not in (0, 1):
            raise SystemExit(f"the tests cannot be run; see {tree.folder.with_suffix('.log')}")
        # Coverage slows tests down. Each failed test is run again without other tests in parallel.
        again = tree.run(run.failed, limit=3600, options=("-n", "1"), COVERAGE_PROCESS_START=str(settings))
        stored.write_text(json.dumps(_evaluate(data, tree, {**run.outcomes, **again.outcomes})))
    found = json.loads(stored.read_text())
    direct, indirect = (
        {path: {int(line): names for line, names in lines.items()} for path, lines in found[kind].items()}
        for kind in ("direct", "indirect")
    )
    return Coverage(direct, indirect, found["seconds"], found["excluded"])


def _evaluate(data: Path, tree: Tree, outcomes: dict[str, tuple[str, float]]) -> dict[str, object]:
    combined = coverage.Coverage(data_file=str(data), config_file=False)
    combined.combine(keep=True)
    measured = combined.get_data()
    seconds = {test: seconds for test, (outcome, seconds) in outcomes.items() if outcome == "passed"}
    direct: dict[str, dict[int, list[str]]] = {}
    indirect: dict[str, dict[int, list[str]]] = {}
    for name in measured.measured_files():
        if not Path(name).is_relative_to(tree.folder):
            continue
        path = str(Path(name).relative_to(tree.folder))
        here: dict[int, set[str]] = defaultdict(set)
        elsewhere: dict[int, set[str]] = defaultdict(set)
        for line, contexts in measured.contexts_by_lineno(name).items():
            for context in contexts:
                if context in seconds:
                    here[line].add(context)
                elif " (" in context:  # a child process has the value of PYTEST_CURRENT_TEST
                    elsewhere[line].add(context.partition("::")[0])
        direct[path] = {line: sorted(names) for line, names in here.items()}
        indirect[path] = {line: sorted(names) for line, names in elsewhere.items()}
    excluded = sorted(test for test, (outcome, _) in outcomes.items() if outcome != "passed")
    return {"direct": direct, "indirect": indirect, "seconds": seconds, "excluded": excluded}
