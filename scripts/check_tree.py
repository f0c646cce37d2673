"""What `make check` asserts of the tree itself: no file names a package registry, the lock is hashed and small.

python scripts/check_tree.py [FILE ...]      without files: everything git tracks, or would
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "lock.txt"
LOCKS = (LOCK, *sorted(path for path in LOCK.parent.glob("*.txt") if path != LOCK))
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)")
# Written in two parts, or this file would name them itself.
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
# Gigabytes of CUDA come with these; no part of Rowcast needs them.
UNWANTED = ("nvidia", "cuda", "torch", "triton")
WANTED = ("tritonclient",)
"""Named like one of them, and small."""


def main(arguments: list[str]) -> int:
    """Print every finding, one a line; 1 when there is any."""
    files = [Path(argument) for argument in arguments] or tracked()
    findings = list(registry_names(files))
    for lock in LOCKS:
        findings += lock_findings(lock.read_text(encoding="utf-8"), lock.name)
    for finding in findings:
        print(finding, file=sys.stderr)
    return 1 if findings else 0


def tracked() -> list[Path]:
    """Every file that is committed or could be, ignored ones left out."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return [path for path in paths if path.is_file()]


def registry_names(files: list[Path]) -> Iterator[str]:
    """Places where a package registry's host is named."""
    pattern = re.compile("|".join(map(re.escape, REGISTRIES)).encode(), re.IGNORECASE)
    for path in files:
        content = path.read_bytes()
        for match in pattern.finditer(content):
            line = content.count(b"\n", 0, match.start()) + 1
            yield f"{path}:{line}: names the package registry {match[0].decode()}"


def lock_findings(text: str, name: str = LOCK.name) -> Iterator[str]:
    """What is wrong with the lock: an address, an option, a package without a hash or one that drags CUDA in."""
    # A logical line is the package with its hashes, joined by backslashes; comments stand apart.
    for entry in re.sub(r"\\\n", " ", text).splitlines():
        if not entry.strip() or entry.lstrip().startswith("#"):
            continue
        found = PINNED.match(entry)
        if not found:
            yield f"requirements/{name}: not a pinned package: {entry[:80]}"
        elif "--hash=sha256:" not in entry:
            yield f"requirements/{name}: {found[1]} has no hash"
        elif found[1].lower().startswith(UNWANTED) and found[1] not in WANTED:
            yield f"requirements/{name}: {found[1]} is not wanted"
        if "://" in entry:
            yield f"requirements/{name}: an address: {entry[:80]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
