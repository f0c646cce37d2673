"""What an import costs and what it must never bring along. The floors themselves are held by import-linter."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rowcast

SOURCE = Path(__file__).resolve().parents[2] / "src" / "rowcast"
# A training library in a server costs seconds of start and hundreds of megabytes.
TRAINING = {"lightgbm", "matplotlib", "onnx", "optuna", "pandas", "polars", "scipy", "skl2onnx", "sklearn", "torch"}
# The core decides; it has no clock, no randomness, no IO, no tasks.
SERVER_PACKAGES = ("app", "serving", "history", "http", "runtime", "adapters")
PURE = ("schema", "access")
FORBIDDEN_STDLIB = {
    *("asyncio", "concurrent", "io", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "shutil"),
    *("socket", "sqlite3", "subprocess", "tempfile", "threading", "time", "urllib"),
}


def loaded_by(statement: str) -> set[str]:
    """Every module in sys.modules after a statement in an interpreter of its own."""
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return set(finished.stdout.split())


def cpu_seconds(command: list[str]) -> float:
    """User and system time of one process: a busy machine makes it wait, not work."""
    before = os.times()
    finished = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    after = os.times()
    assert finished.returncode == 0, finished.stderr
    return after.children_user - before.children_user + after.children_system - before.children_system


def best(command: list[str], times: int = 5) -> float:
    return min(cpu_seconds(command) for _ in range(times))


def test_importing_rowcast_takes_under_50_ms() -> None:
    bare = best([sys.executable, "-c", "pass"])

    assert best([sys.executable, "-c", "import rowcast"]) - bare < 0.05


def test_help_takes_under_400_ms() -> None:
    assert best([sys.executable, "-m", "rowcast.cli", "--help"]) < 0.4


def modules(package: str) -> str:
    """The names of all modules of a package, for an import statement."""
    paths = sorted((SOURCE / package).rglob("[!_]*.py"))
    return ", ".join(".".join(["rowcast", *path.relative_to(SOURCE).with_suffix("").parts]) for path in paths)


@pytest.mark.parametrize(
    "names",
    ["rowcast.asgi", *map(modules, SERVER_PACKAGES)],
    ids=["asgi", *SERVER_PACKAGES],
)
def test_a_server_brings_no_training_library(names: str) -> None:
    found = loaded_by(f"import {names}")

    assert {name for name in found if name.partition(".")[0] in TRAINING} == set()
    assert {name for name in found if name.startswith(("rowcast.training", "rowcast.tables"))} == set()


def test_asking_a_server_loads_neither_server_nor_numpy() -> None:
    assert "httpx" not in loaded_by("import rowcast")
    found = loaded_by("import rowcast; rowcast.Client, rowcast.AsyncClient")

    assert found & {"numpy", "onnxruntime", "fastapi", "pydantic", "polars"} == set()


def test_the_gateway_validates_without_numpy() -> None:
    assert "numpy" not in loaded_by("import rowcast.schema.schema, rowcast.schema.values")


@pytest.mark.parametrize(
    "path", [path for package in PURE for path in sorted((SOURCE / package).glob("*.py"))], ids=lambda path: path.name
)
def test_the_core_imports_only_plain_things(path: Path) -> None:
    allowed = (set(sys.stdlib_module_names) - FORBIDDEN_STDLIB) | {"msgspec", "numpy"}

    for name in imported(path):
        top = name.partition(".")[0]
        ours = name.startswith("rowcast.")
        assert ours or top in allowed, f"{path.name} imports {name}"


def imported(path: Path) -> list[str]:
    """Full names of what a file imports, anywhere in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or ".")
    return names


def test_the_version_is_the_one_that_is_packaged() -> None:
    packaged = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["version"]

    assert rowcast.__version__ == packaged
