"""The tree itself: the lock, the assets, the documents. What a stranger relies on before running anything."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_tree = script("check_tree")


def test_no_file_names_a_package_registry() -> None:
    if not (ROOT / ".git").exists():
        files = [path for path in (ROOT / "src").rglob("*") if path.is_file()]
    else:
        files = check_tree.tracked()

    assert list(check_tree.registry_names(files)) == []


def test_a_registry_name_would_be_found(tmp_path: Path) -> None:
    named = tmp_path / "notes.md"
    named.write_text("fine\nsee https://" + check_tree.REGISTRIES[0].upper() + "/simple\n")

    (finding,) = check_tree.registry_names([named])

    assert finding.startswith(f"{named}:2:")


@pytest.mark.parametrize("lock", check_tree.LOCKS, ids=lambda path: path.name)
def test_a_lock_holds_hashed_packages_and_nothing_else(lock: Path) -> None:
    assert list(check_tree.lock_findings(lock.read_text(), lock.name)) == []


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("requests==2.0", "has no hash"),
        ("nvidia-nccl==1 --hash=sha256:00", "is not wanted"),
        ("--index-url https://example.test/simple", "not a pinned package"),
        ("six @ https://example.test/six.whl --hash=sha256:00", "not a pinned package"),
        ("six>=1 --hash=sha256:00", "not a pinned package"),
    ],
)
def test_a_bad_lock_would_be_found(line: str, finding: str) -> None:
    assert finding in next(iter(check_tree.lock_findings(line + "\n")))


def test_the_lock_satisfies_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["train"],
        *project["build-system"]["requires"],
        *(line for group in project["dependency-groups"].values() for line in group if isinstance(line, str)),
    ]
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", check_tree.LOCK.read_text(), re.MULTILINE):
        locked.setdefault(canonicalize_name(name), []).append(version)

    for requirement in map(Requirement, wanted):
        versions = locked.get(canonicalize_name(requirement.name), [])
        assert versions, f"{requirement.name} is not in the lock: run make lock"
        for version in versions:
            assert requirement.specifier.contains(version), f"{requirement} but the lock has {version}: run make lock"


def test_vendored_assets_are_what_the_list_says() -> None:
    finished = subprocess.run(
        [sys.executable, ROOT / "scripts" / "vendor.py", "--check"], capture_output=True, text=True, check=False
    )

    assert (finished.returncode, finished.stderr) == (0, "")


def test_vendored_assets_are_all_listed() -> None:
    vendor = script("vendor")
    packages = vendor.json.loads(vendor.LIST.read_text())
    listed = {f"{package['folder']}/{Path(name).name}" for package in packages for name in package["files"]}
    found = {str(path.relative_to(vendor.VENDOR)) for path in vendor.VENDOR.glob("*/**/*") if path.is_file()}

    assert found == listed


def documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_what_exists(document: Path) -> None:
    text = document.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    named = set(re.findall(r"`make ([a-z-]+)", text)) | set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]

    assert named <= targets
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_decisions_are_short() -> None:
    long = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "docs" / "decisions").glob("*.md")}

    assert {name: lines for name, lines in long.items() if lines > 15} == {}


@pytest.mark.parametrize("path", [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"], ids=lambda p: p.name)
def test_shell_scripts_parse_and_can_be_run(path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None

    finished = subprocess.run([bash, "-n", str(path)], capture_output=True, text=True, check=False)

    assert finished.stderr == ""
    assert path.stat().st_mode & 0o111
