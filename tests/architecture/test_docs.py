"""Check the documentation: generated pages are up to date, and commands produce the output shown."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support import logs, shown_output
from support.servers import environment, free_port, is_ready
from support.shown_output import Block
from support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "rowcast"
DOCS = ROOT / "docs"
TOUR = (
    "tutorial.md",
    "reference/http.md",
    "howto/observe.md",
    "howto/history.md",
    "reference/history.md",
    "reference/bundle.md",
    "howto/train.md",
    "howto/score-a-table.md",
    "howto/python.md",
    "howto/rows.md",
    "howto/call-from-python.md",
)
STANDALONE = (
    "howto/data-check.md",
    "howto/evaluate.md",
    "howto/import-onnx.md",
    "migrate/from-a-pickle.md",
    "migrate/from-bentoml.md",
    "migrate/from-fastapi.md",
    "migrate/from-mlflow.md",
    "migrate/from-mlserver-kserve.md",
)
HOME = "/home/you/tour"
COLUMNS = 124
COLOURS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Tour:
    """Simulates a reader who executes the tagged blocks of documents in a terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.servers: list[subprocess.Popen[bytes]] = []
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        extra = {
            "PATH": path,
            "ROWCAST_PORT": str(self.port),
            "TERM": "xterm",
            "COLUMNS": str(COLUMNS),
            "LC_ALL": "C.UTF-8",
            "NO_PROXY": "127.0.0.1",
        }
        self.environment = environment(**extra)

    def follow(self, document: Path, *, update: bool = False) -> None:
        """Execute the blocks of a document; raise AssertionError if the actual output differs from the output shown.

        With `update`, replace all output shown in the document instead if any of it is outdated.
        """
        output, text = "", document.read_text(encoding="utf-8")
        differences = []
        outputs: list[tuple[Block, str]] = []
        for block in shown_output.blocks(text):
            if block.tag == "run":
                output = self.run(block)
            elif block.tag == "serve":
                output = self.serve(block)
            else:
                actual = output.replace(str(self.folder), HOME)
                difference = shown_output.difference(block.text, actual, block.tolerance)
                assert not difference or (update and "…" not in block.text), f"{document.name}: {difference}\n{actual}"
                differences += [difference] if difference else []
                outputs.append((block, actual))
        if differences:
            document.write_text(shown_output.replaced(text, outputs), encoding="utf-8")

    def run(self, block: Block) -> str:
        """Run a block and return its output, standard error first; fail if the exit status is not 0."""
        command = [sys.executable, "-"] if block.language == "python" else ["bash", "-euo", "pipefail", "-s"]
        screen, terminal = os.openpty()
        termios.tcsetwinsize(terminal, (50, COLUMNS))
        with contextlib.closing(_TerminalReader(screen)) as reader:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=terminal,
                stderr=subprocess.PIPE,
            )
            os.close(terminal)
            assert process.stdin is not None
            process.stdin.write(self._adapted(block.text).encode())
            process.stdin.close()
            output = reader.read()
            assert process.stderr is not None
            errors = process.stderr.read().decode()
            process.stderr.close()
        assert process.wait(30) == 0, f"{block.text}{errors}{output}"
        return (errors + output).replace(f":{self.port}", ":8000")

    def serve(self, block: Block) -> str:
        """Start a server, wait until it is ready and return its output without log lines."""
        with logs.open_log(self.folder / "server.log") as log:
            command = ["bash", "-c", f"exec {block.text}"]
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.servers.append(process)
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False) as client:
            eventually(lambda: process.poll() is not None or is_ready(client), 20)
        output = (self.folder / "server.log").read_text()
        assert process.poll() is None, output
        lines = [line for line in output.splitlines() if not line.startswith("{")]
        return "\n".join(lines).replace(f":{self.port}", ":8000")

    def stop(self) -> None:
        """Stop all servers."""
        while self.servers:
            process = self.servers.pop()
            process.terminate()
            process.wait(20)

    def _adapted(self, text: str) -> str:
        """Replace the port and shorten the pauses."""
        return text.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}").replace("sleep 1 ", "sleep 0.5 ")


class _TerminalReader:
    """Reads a pseudo-terminal until the last writer closes it."""

    def __init__(self, screen: int) -> None:
        self._screen = screen

    def read(self) -> str:
        pieces: list[bytes] = []
        with contextlib.suppress(OSError):  # Linux raises EIO after the last writer has closed the terminal
            while piece := os.read(self._screen, 65536):
                pieces.append(piece)
        return COLOURS.sub("", b"".join(pieces).decode().replace("\r\n", "\n"))

    def close(self) -> None:
        os.close(self._screen)


def blocks(document: Path) -> list[Block]:
    """Return the tagged blocks of a document, in order."""
    return shown_output.blocks(document.read_text(encoding="utf-8"))


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "docs.py"), *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


def test_generated_pages_are_up_to_date() -> None:
    finished = script("--check")

    assert (finished.returncode, finished.stderr) == (0, "")


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    """Whether the tests replace outdated output in the documentation instead of failing."""
    return bool(request.config.getoption("--update-docs"))


@pytest.fixture
def tour(tmp_path: Path) -> Iterator[Tour]:
    tour = Tour(tmp_path)
    yield tour
    tour.stop()


def test_every_command_in_the_readme_is_also_in_the_tutorial() -> None:
    executed = {line for block in blocks(DOCS / "tutorial.md") for line in block.text.splitlines()}
    shown = [line for block in blocks(ROOT / "README.md") for line in block.text.splitlines()]

    assert len(shown) >= 4
    assert [line for line in shown if line not in executed] == []


@pytest.mark.slow
@pytest.mark.timeout(400)  # 85 seconds on an idle machine
def test_the_tutorial_and_its_follow_up_pages_produce_the_output_shown(tour: Tour, update: bool) -> None:
    for name in TOUR:
        tour.follow(DOCS / name, update=update)


@pytest.mark.parametrize("name", STANDALONE)
def test_a_standalone_page_produces_the_output_shown(tour: Tour, update: bool, name: str) -> None:
    tour.follow(DOCS / name, update=update)


def test_every_page_with_tagged_blocks_is_executed() -> None:
    tagged = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if blocks(path)}

    assert tagged <= {*TOUR, *STANDALONE}


PAGES = (ROOT / "README.md", *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "examples").rglob("README.md")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_output_shown_after_a_command_is_compared_or_says_why_not(page: Path) -> None:
    assert shown_output.unchecked(page.read_text(encoding="utf-8")) == []


def literals(pattern: str, *folders: str) -> set[str]:
    """Return the string literals that the pattern captures in the Python files in these folders."""
    texts = [path.read_text(encoding="utf-8") for folder in folders for path in sorted((SOURCE / folder).rglob("*.py"))]
    return {literal for text in texts for literal in re.findall(pattern, text)}


def listed(document: Path, heading: str) -> set[str]:
    """Return the cells in the first column of the tables below a heading."""
    _, _, below = document.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    return set(re.findall(r"^\| `([^`]+)` \|", below.partition("\n## ")[0], re.MULTILINE))


def test_every_row_error_code_is_documented() -> None:
    raised = literals(r'BadValue\(\s*"([a-z-]+)"', "schema") | {
        "missing",
        "unknown-column",
        "too-long",
        "duplicate-key",
    }

    assert listed(DOCS / "reference" / "http.md", "Row errors") == raised


def test_every_finding_of_the_data_check_is_documented() -> None:
    direct = literals(r'Finding\(\s*"([a-z-]+)"', "tables", "training")
    conditional = literals(r'code = "([a-z-]+)" if .* else "[a-z-]+"', "tables")
    alternative = literals(r'code = "[a-z-]+" if .* else "([a-z-]+)"', "tables")

    assert listed(DOCS / "howto" / "data-check.md", "Findings") == direct | conditional | alternative


def test_every_field_of_a_bundle_manifest_is_documented() -> None:
    tree = ast.parse((SOURCE / "registry" / "bundle.py").read_text(encoding="utf-8"))
    manifest = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Manifest")
    fields = {
        node.target.id
        for node in manifest.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }

    assert listed(DOCS / "reference" / "bundle.md", "bundle.json") == fields
