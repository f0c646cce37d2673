"""Import rules that import-linter does not cover: modules loaded at run time, and imports in the pure core."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rowcast
from rowcast.adapters.files.registry import FolderRegistry
from support import models

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "rowcast"
# These libraries would add seconds to a server's startup time and hundreds of megabytes to its memory use.
TRAINING = {"lightgbm", "matplotlib", "onnx", "optuna", "pandas", "polars", "scipy", "skl2onnx", "sklearn", "torch"}
HEAVY = TRAINING | {
    "fastapi",
    "httpx",
    "jinja2",
    "numpy",
    "onnxruntime",
    "pydantic",
    "redis",
    "rich",
    "starlette",
    "structlog",
    "uvicorn",
}
SERVER_PACKAGES = ("app", "serving", "history", "http", "runtime", "adapters")
# The pure core does not use clocks, randomness, I/O or tasks.
PURE = ("schema", "access")
FORBIDDEN_STDLIB = {
    *("asyncio", "concurrent", "io", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "shutil"),
    *("socket", "sqlite3", "subprocess", "tempfile", "threading", "time", "urllib"),
}
HELP = """
import contextlib, os, runpy, sys
sys.argv = ["rowcast", "--help"]
with contextlib.redirect_stdout(open(os.devnull, "w")), contextlib.suppress(SystemExit):
    runpy.run_module("rowcast.cli", run_name="__main__")
"""


def modules_loaded_by(code: str) -> set[str]:
    """Run code in a new interpreter and return the names of all loaded modules."""
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return set(finished.stdout.split())


def top_level(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def package_modules(package: str, skipped: str = "") -> str:
    """Return the module names of a package, separated by commas, except modules whose files match `skipped`."""
    paths = sorted(path for path in (SOURCE / package).rglob("[!_]*.py") if not (skipped and path.match(skipped)))
    return ", ".join(".".join(["rowcast", *path.relative_to(SOURCE).with_suffix("").parts]) for path in paths)


def test_importing_rowcast_loads_only_the_version_module_and_no_libraries() -> None:
    added = modules_loaded_by("import rowcast") - modules_loaded_by("pass")

    assert {name for name in added if name.startswith("rowcast")} == {"rowcast", "rowcast.version"}
    assert top_level(added) - sys.stdlib_module_names == {"rowcast"}


def test_the_help_option_loads_few_rowcast_packages_and_no_heavy_libraries() -> None:
    loaded = modules_loaded_by(HELP)

    assert "rowcast.cli.commands" in loaded
    assert top_level(loaded) & HEAVY == set()
    packages = {name.split(".")[1] for name in loaded if name.startswith("rowcast.")}
    assert packages == {"cli", "errors", "version"}


@pytest.mark.parametrize(
    "modules",
    ["rowcast.asgi", *map(package_modules, SERVER_PACKAGES)],
    ids=["asgi", *SERVER_PACKAGES],
)
def test_server_modules_do_not_load_training_libraries(modules: str) -> None:
    loaded = modules_loaded_by(f"import {modules}")

    assert top_level(loaded) & TRAINING == set()
    assert {name for name in loaded if name.startswith(("rowcast.training", "rowcast.tables"))} == set()


def test_a_server_without_a_setting_for_redis_does_not_load_it() -> None:
    code = "from rowcast import settings; from rowcast.app import server, sharing, routes, health_checks\n"
    loaded = modules_loaded_by(code + "sharing.shared_parts(settings.load(cache='memory'), lambda event: None)")

    assert "rowcast.adapters.memory.cache" in loaded
    assert "redis" not in top_level(loaded)


@pytest.mark.parametrize(("queue", "expected"), [("'redis://127.0.0.1:1'", set()), ("None", {"fastapi"})])
def test_an_api_of_a_queue_loads_fastapi_only_for_cold_routes(tmp_path: Path, queue: str, expected: set[str]) -> None:
    models.publish(
        FolderRegistry(tmp_path / "models"),
        "sum",
        models.sum_graph(2),
        models.number_columns(2),
        models.REGRESSION,
        "values",
    )
    code = "from rowcast import settings; from rowcast.app import server\n"
    loaded = modules_loaded_by(f"{code}server.build_server(settings.load(home={str(tmp_path)!r}, queue={queue}))")

    assert top_level(loaded) & {"fastapi"} == expected


def test_the_client_loads_neither_a_server_library_nor_numpy() -> None:
    loaded = modules_loaded_by("import rowcast; rowcast.Client, rowcast.AsyncClient")

    assert loaded & {"numpy", "onnxruntime", "fastapi", "pydantic", "polars"} == set()


def test_the_client_and_http_packages_load_neither_numpy_nor_onnxruntime() -> None:
    """A gateway imports these packages without the V2 dialect, which uses NumPy."""
    modules = ["rowcast.http, rowcast.client", package_modules("http", "dialects/v2*.py"), package_modules("client")]

    loaded = modules_loaded_by(f"import {', '.join(modules)}")

    assert "rowcast.http.dialects.native" in loaded
    assert top_level(loaded) & {"jinja2", "numpy", "onnxruntime", "redis"} == set()


def test_the_schema_modules_do_not_load_numpy() -> None:
    assert "numpy" not in modules_loaded_by("import rowcast.schema.schema, rowcast.schema.values")


@pytest.mark.parametrize(
    "path", [path for package in PURE for path in sorted((SOURCE / package).glob("*.py"))], ids=lambda path: path.name
)
def test_the_pure_core_imports_only_allowed_modules(path: Path) -> None:
    allowed = (set(sys.stdlib_module_names) - FORBIDDEN_STDLIB) | {"msgspec", "numpy", "rowcast"}

    assert {name for name in imports_of(path) if name.partition(".")[0] not in allowed} == set()


def imports_of(path: Path) -> set[str]:
    """Return the full names of all modules that a file imports, including those imported inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or ".")
    return names


def test_the_package_version_matches_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert rowcast.__version__ == project["version"]
