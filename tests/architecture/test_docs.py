"""What the documents say is what the program does: generated pages are fresh, and the commands they show run."""

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
from typing import NamedTuple

import httpx
import pytest

from support import logs
from support.servers import environment, free_port, is_ready
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
ALONE = (
    "howto/data-check.md",
    "howto/import-onnx.md",
    "migrate/from-a-pickle.md",
    "migrate/from-bentoml.md",
    "migrate/from-fastapi.md",
    "migrate/from-mlflow.md",
    "migrate/from-mlserver-kserve.md",
)
HOME = "/home/you/tour"
COLUMNS = 124
FENCE = re.compile(r"^```(\w+) (run|serve|shows)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COLOURS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
MASKS = (
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "ID"),
    (r'"A[A-Za-z0-9_-]{26}"', "CURSOR"),
    (r"\brb1-[0-9a-f]+(…|\.\.\.)?", "DIGEST"),
    (r"\b[0-9a-f]{32}\b", "WRITER"),
    (r"\b[0-9a-f]{12}-[0-9a-f]+\b", "REQUEST"),
    (r"\b\d{4}-\d\d-\d\dT[0-9:.]+(Z|\+00:00)", "WHEN"),
    (r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?", "N"),
    (r"[─━═]+", "─"),
    (r"\s+", " "),
)


class Block(NamedTuple):
    """A fence that the test acts on: `run` and `serve` are started, `shows` is what the one before it printed."""

    language: str
    does: str
    text: str


def blocks(document: Path) -> list[Block]:
    """The tagged fences of a document, in order."""
    return [Block(*found) for found in FENCE.findall(document.read_text(encoding="utf-8"))]


class Tour:
    """One folder in which the documents are followed, as a reader would in a terminal."""

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

    def follow(self, document: Path) -> None:
        """Do what a document says; AssertionError where something else comes of it."""
        printed = ""
        for block in blocks(document):
            if block.does == "run":
                printed = self.run(block)
            elif block.does == "serve":
                self.serve(block)
            else:
                assert masked(printed.replace(str(self.folder), HOME)) == masked(block.text), (
                    f"{document.name}: {printed}"
                )

    def run(self, block: Block) -> str:
        """What a block prints, standard error first; it must end with status 0."""
        command = [sys.executable, "-"] if block.language == "python" else ["bash", "-euo", "pipefail", "-s"]
        screen, terminal = os.openpty()
        termios.tcsetwinsize(terminal, (50, COLUMNS))
        with contextlib.closing(_Reader(screen)) as output:
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
            process.stdin.write(self._quicker(block.text).encode())
            process.stdin.close()
            shown = output.read()
            assert process.stderr is not None
            errors = process.stderr.read().decode()
            process.stderr.close()
        assert process.wait(30) == 0, f"{block.text}{errors}{shown}"
        return (errors + shown).replace(f":{self.port}", ":8000")

    def serve(self, block: Block) -> None:
        """Start a server and wait until it is ready."""
        with logs.opened(self.folder / "server.log") as log:
            command = ["bash", "-c", f"exec {block.text}"]
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.servers.append(process)
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False) as client:
            eventually(lambda: process.poll() is not None or is_ready(client), 20)
        assert process.poll() is None, (self.folder / "server.log").read_text()

    def stop(self) -> None:
        """Stop what was started."""
        while self.servers:
            process = self.servers.pop()
            process.terminate()
            process.wait(20)

    def _quicker(self, text: str) -> str:
        """The same with the test's own port, and with few trials: figures are not compared."""
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}").replace("sleep 1 ", "sleep 0.5 ")
        text = text.replace("trials=4", "trials=1")
        return re.sub(r"^(rowcast train) ", r"\1 --trials 2 ", text, flags=re.MULTILINE)


class _Reader:
    """Reads a pseudo-terminal until its last writer is gone."""

    def __init__(self, screen: int) -> None:
        self._screen = screen

    def read(self) -> str:
        pieces: list[bytes] = []
        with contextlib.suppress(OSError):  # how Linux says that nobody writes any more
            while piece := os.read(self._screen, 65536):
                pieces.append(piece)
        return COLOURS.sub("", b"".join(pieces).decode().replace("\r\n", "\n"))

    def close(self) -> None:
        os.close(self._screen)


def masked(text: str) -> str:
    """A text without what differs from run to run: figures, ids, moments, the width of columns."""
    for pattern, name in MASKS:
        text = re.sub(pattern, name, text)
    return text.strip()


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "docs.py"), *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


def test_generated_pages_are_what_the_program_says() -> None:
    finished = script("--check")

    assert (finished.returncode, finished.stderr) == (0, "")


@pytest.fixture
def tour(tmp_path: Path) -> Iterator[Tour]:
    made = Tour(tmp_path)
    yield made
    made.stop()


def test_the_readme_shows_the_commands_of_the_tutorial() -> None:
    followed = {line for block in blocks(DOCS / "tutorial.md") for line in block.text.splitlines()}
    shown = [line for block in blocks(ROOT / "README.md") for line in block.text.splitlines()]

    assert len(shown) >= 4
    assert [line for line in shown if line not in followed] == []


@pytest.mark.slow
def test_the_tutorial_and_what_builds_on_it_can_be_followed(tour: Tour) -> None:
    for name in TOUR:
        tour.follow(DOCS / name)


@pytest.mark.parametrize("name", ALONE)
def test_a_page_that_stands_alone_can_be_followed(tour: Tour, name: str) -> None:
    tour.follow(DOCS / name)


def test_every_page_with_commands_is_on_the_tour() -> None:
    tagged = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if blocks(path)}

    assert tagged <= {*TOUR, *ALONE}


def constants(pattern: str, *folders: str) -> set[str]:
    """Every string literal that a pattern finds in the code of these folders."""
    texts = [path.read_text(encoding="utf-8") for folder in folders for path in sorted((SOURCE / folder).rglob("*.py"))]
    return {found for text in texts for found in re.findall(pattern, text)}


def listed(document: Path, heading: str) -> set[str]:
    """The first cells of the table below a heading."""
    _, _, below = document.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    return set(re.findall(r"^\| `([^`]+)` \|", below.partition("\n## ")[0], re.MULTILINE))


def test_every_code_of_a_row_error_is_listed() -> None:
    raised = constants(r'BadValue\(\s*"([a-z-]+)"', "schema") | {"missing", "unknown-column"}

    assert listed(DOCS / "reference" / "http.md", "Row errors") == raised


def test_every_finding_of_the_data_check_is_listed() -> None:
    found = constants(r'Finding\(\s*"([a-z-]+)"', "tables", "training")
    chosen = constants(r'code = "([a-z-]+)" if .* else "[a-z-]+"', "tables")
    other = constants(r'code = "[a-z-]+" if .* else "([a-z-]+)"', "tables")

    assert listed(DOCS / "howto" / "data-check.md", "Findings") == found | chosen | other


def test_every_field_of_a_bundle_is_listed() -> None:
    tree = ast.parse((SOURCE / "registry" / "bundle.py").read_text(encoding="utf-8"))
    manifest = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Manifest")
    fields = {
        node.target.id
        for node in manifest.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }

    assert listed(DOCS / "reference" / "bundle.md", "bundle.json") == fields
