"""Check repository rules that other tools do not cover.

No file may contain the host name of a package registry. Lock files may contain only pinned, hashed packages and must
not contain CUDA packages. In `src/rowcast`, public class names must be unique, a function may have at most 60 lines and
a file may have at most 450 lines, or fewer if it is listed in SHORT_FILES.

python scripts/check_tree.py [FILE ...]      search these files for registry host names; default: all files that git
does not ignore
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "lock.txt"
LOCKS = (LOCK, *sorted(path for path in LOCK.parent.glob("*.txt") if path != LOCK))
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)")
# The host names are split into parts, because this check also reads its own source file.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pypi", "python", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs"),
        ("registry", "yarnpkg"),
        ("deb", "debian"),
        ("security", "debian"),
        ("archive", "ubuntu"),
        ("proxy", "golang"),
        ("index", "crates"),
        ("static", "crates"),
    )
]
# These packages install gigabytes of CUDA libraries that Rowcast does not need.
DISALLOWED = ("nvidia", "cuda", "torch", "triton")
ALLOWED = ("tritonclient",)
"""Packages that are allowed although their names begin with a disallowed prefix, because they are small."""
SOURCE = ROOT / "src" / "rowcast"
MAX_FUNCTION_LINES, MAX_FILE_LINES = 60, 450
SHORT_FILES = {"app/server.py": 99}
"""The maximum length of files that must stay short. The server's composition root contains no features."""
PENDING: frozenset[str] = frozenset()
"""Known violations of the structure rules. Do not add entries."""


def main(arguments: list[str]) -> int:
    """Print one problem per line; return 1 if there are any."""
    files = [Path(argument) for argument in arguments] or repository_files()
    problems = list(find_registry_names(files))
    for lock in LOCKS:
        problems += check_lock(lock.read_text(encoding="utf-8"), lock.name)
    problems += check_structure(SOURCE, PENDING)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def repository_files() -> list[Path]:
    """Return every file that git does not ignore."""
    finished = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = (ROOT / name for name in finished.stdout.decode().split("\0") if name)
    return [path for path in paths if path.is_file()]


def find_registry_names(files: list[Path]) -> Iterator[str]:
    """Yield each occurrence of a package registry's host name in the files."""
    pattern = re.compile("|".join(map(re.escape, REGISTRIES)).encode(), re.IGNORECASE)
    for path in files:
        content = path.read_bytes()
        for match in pattern.finditer(content):
            line = content.count(b"\n", 0, match.start()) + 1
            yield f"{path}:{line}: contains {match[0].decode()}, the host name of a package registry"


def check_lock(text: str, name: str = LOCK.name) -> Iterator[str]:
    """Yield the problems in a lock file: URLs, options, packages without a hash and disallowed packages."""
    # An entry consists of a package and its hashes, on lines joined by backslashes.
    for entry in re.sub(r"\\\n", " ", text).splitlines():
        if not entry.strip() or entry.lstrip().startswith("#"):
            continue
        match = PINNED.match(entry)
        if not match:
            yield f"requirements/{name}: not a pinned package: {entry[:80]}"
        elif "--hash=sha256:" not in entry:
            yield f"requirements/{name}: {match[1]} has no hash"
        elif match[1].lower().startswith(DISALLOWED) and match[1] not in ALLOWED:
            yield f"requirements/{name}: {match[1]} is not allowed"
        if "://" in entry:
            yield f"requirements/{name}: contains a URL: {entry[:80]}"


def check_structure(source: Path, pending: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield structure violations that are not in `pending`, and entries in `pending` that are no longer violations."""
    violations = structure_violations(source)
    yield from (f"{subject}: {problem}" for subject, problem in violations.items() if subject not in pending)
    yield from (f"{subject}: no longer a violation; remove it from PENDING" for subject in pending - violations.keys())


def structure_violations(source: Path) -> dict[str, str]:
    """Return a problem for each duplicate public class name, and for each function or file that is too long."""
    violations: dict[str, str] = {}
    modules: dict[str, list[str]] = {}
    for path in sorted(source.rglob("*.py")):
        name = str(path.relative_to(source))
        text = path.read_text(encoding="utf-8")
        limit = SHORT_FILES.get(name, MAX_FILE_LINES)
        if (lines := len(text.splitlines())) > limit:
            violations[name] = f"{lines} lines; the limit is {limit}"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules.setdefault(node.name, []).append(name)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    violations[f"{name}:{node.name}"] = f"{lines} lines; the limit is {MAX_FUNCTION_LINES}"
    for class_name, names in sorted(modules.items()):
        if len(names) > 1:
            violations[class_name] = f"defined {len(names)} times, in {', '.join(names)}"
    return violations


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
