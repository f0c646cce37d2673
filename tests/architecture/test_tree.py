"""Check the repository: lock files, vendored assets, documents and scripts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.scripts import load_script

ROOT = Path(__file__).resolve().parents[2]


check_tree = load_script("scripts/check_tree.py")


def test_no_file_contains_the_host_name_of_a_package_registry() -> None:
    if not (ROOT / ".git").exists():
        files = [path for path in (ROOT / "src").rglob("*") if path.is_file()]
    else:
        files = check_tree.repository_files()

    assert list(check_tree.find_registry_names(files)) == []


def test_the_host_name_of_a_package_registry_is_reported(tmp_path: Path) -> None:
    document = tmp_path / "notes.md"
    document.write_text("fine\nsee https://" + check_tree.REGISTRIES[0].upper() + "/simple\n")

    (problem,) = check_tree.find_registry_names([document])

    assert problem.startswith(f"{document}:2:")


@pytest.mark.parametrize("lock", check_tree.LOCKS, ids=lambda path: path.name)
def test_a_lock_file_contains_only_hashed_packages(lock: Path) -> None:
    assert list(check_tree.check_lock(lock.read_text(), lock.name)) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("requests==2.0", "has no hash"),
        ("nvidia-nccl==1 --hash=sha256:00", "is not allowed"),
        ("--index-url https://example.test/simple", "not a pinned package"),
        ("six @ https://example.test/six.whl --hash=sha256:00", "not a pinned package"),
        ("six>=1 --hash=sha256:00", "not a pinned package"),
    ],
)
def test_an_invalid_line_in_a_lock_file_is_reported(line: str, problem: str) -> None:
    assert problem in next(iter(check_tree.check_lock(line + "\n")))


def test_the_source_code_follows_the_structure_rules() -> None:
    assert list(check_tree.check_structure(check_tree.SOURCE, check_tree.PENDING)) == []


def write_modules(source: Path, **modules: str) -> None:
    for name, text in modules.items():
        (source / f"{name}.py").write_text(text)


def test_public_classes_with_the_same_name_are_reported(tmp_path: Path) -> None:
    write_modules(tmp_path, a="class Door: ...\nclass _Reader: ...\n", b="class Door: ...\nclass _Reader: ...\n")

    (problem,) = check_tree.check_structure(tmp_path)

    assert "Door" in problem
    assert "a.py" in problem
    assert "b.py" in problem


def test_functions_and_files_that_exceed_the_limits_are_reported(tmp_path: Path) -> None:
    function = "def f():\n" + "    x = 1\n" * check_tree.MAX_FUNCTION_LINES
    write_modules(tmp_path, function=function, file="x = 1\n" * (check_tree.MAX_FILE_LINES + 1))

    problems = list(check_tree.check_structure(tmp_path))

    assert [problem.partition(": ")[0] for problem in problems] == ["file.py", "function.py:f"]


def test_pending_violations_are_accepted_until_they_are_fixed(tmp_path: Path) -> None:
    write_modules(tmp_path, a="class Door: ...\n", b="class Door: ...\n")
    assert list(check_tree.check_structure(tmp_path, frozenset({"Door"}))) == []

    write_modules(tmp_path, b="class Gate: ...\n")
    (problem,) = check_tree.check_structure(tmp_path, frozenset({"Door"}))

    assert "remove it from PENDING" in problem


def test_functions_and_files_within_the_limits_are_not_reported(tmp_path: Path) -> None:
    function = "def f():\n" + "    x = 1\n" * (check_tree.MAX_FUNCTION_LINES - 1)
    write_modules(tmp_path, function=function, file="x = 1\n" * check_tree.MAX_FILE_LINES)

    assert list(check_tree.check_structure(tmp_path)) == []


def test_the_lock_file_satisfies_the_requirements_in_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    requirements = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["train"],
        *project["build-system"]["requires"],
        *(line for group in project["dependency-groups"].values() for line in group if isinstance(line, str)),
    ]
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", check_tree.LOCK.read_text(), re.MULTILINE):
        locked.setdefault(canonicalize_name(name), []).append(version)

    for requirement in map(Requirement, requirements):
        versions = locked.get(canonicalize_name(requirement.name), [])
        assert versions, f"{requirement.name} is missing from the lock file; run `make lock`"
        for version in versions:
            assert requirement.specifier.contains(version), f"{requirement}: {version} is locked; run `make lock`"


def test_vendored_assets_match_their_digests() -> None:
    finished = subprocess.run(
        [sys.executable, ROOT / "scripts" / "vendor.py", "--check"], capture_output=True, text=True, check=False
    )

    assert (finished.returncode, finished.stderr) == (0, "")


def test_every_vendored_asset_is_listed() -> None:
    vendor = load_script("scripts/vendor.py")
    packages = vendor.json.loads(vendor.LIST.read_text())
    listed = {f"{package['folder']}/{Path(name).name}" for package in packages for name in package["files"]}
    present = {str(path.relative_to(vendor.VENDOR)) for path in vendor.VENDOR.glob("*/**/*") if path.is_file()}

    assert present == listed


def documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_make_targets_in_documents_are_valid(document: Path) -> None:
    text = document.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    mentioned = set(re.findall(r"`make ([a-z-]+)", text)) | set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]

    assert mentioned <= targets
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_source_files_named_in_documents_exist(document: Path) -> None:
    paths = re.findall(r"`([a-z_]+(?:/[a-z_0-9]+)+\.(?:py|sh|sql))`", document.read_text())

    assert [path for path in paths if not (ROOT / path).exists() and not (ROOT / "src/rowcast" / path).exists()] == []


def test_decision_records_are_short() -> None:
    long = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "docs" / "decisions").glob("*.md")}

    assert {name: lines for name, lines in long.items() if lines > 15} == {}


@pytest.mark.parametrize("path", [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"], ids=lambda p: p.name)
def test_shell_scripts_are_valid_and_executable(path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None

    finished = subprocess.run([bash, "-n", str(path)], capture_output=True, text=True, check=False)

    assert finished.stderr == ""
    assert path.stat().st_mode & 0o111


def test_the_composition_root_of_the_server_has_fewer_than_100_lines(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    root = tmp_path / "app" / "server.py"
    root.write_text("x = 1\n" * 99)
    assert list(check_tree.check_structure(tmp_path)) == []

    root.write_text("x = 1\n" * 100)

    assert list(check_tree.check_structure(tmp_path)) == ["app/server.py: 100 lines; the limit is 99"]
