"""Page assets: fetch them by name and version with npm, check their sha256, copy the few files that pages need.

python scripts/vendor.py            fetch what vendor.json names; a digest that differs is an error
python scripts/vendor.py --update   the same, but write the digests found (after raising a version)
python scripts/vendor.py --check    no network: do the files here have the recorded digests?
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).resolve().parent.parent / "src" / "rowcast" / "http" / "static" / "vendor"
LIST = VENDOR / "vendor.json"

Read = Callable[[str], bytes]


def main(arguments: list[str]) -> int:
    """Do what the only argument says; 1 when a digest differs."""
    packages: list[dict[str, Any]] = json.loads(LIST.read_text(encoding="utf-8"))
    update, check = "--update" in arguments, "--check" in arguments
    wrong: list[str] = []
    for package in packages:
        with tempfile.TemporaryDirectory() as folder:
            read = here(package) if check else fetched(package, Path(folder))
            wrong += copied(package, read, update=update, write=not check)
    if update:
        LIST.write_text(json.dumps(packages, indent=2) + "\n", encoding="utf-8")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def here(package: dict[str, Any]) -> Read:
    """Read the copies in this tree."""
    return lambda name: (VENDOR / package["folder"] / Path(name).name).read_bytes()


def fetched(package: dict[str, Any], folder: Path) -> Read:
    """Fetch the package's archive and read from it."""
    wanted = f"{package['name']}@{package['version']}"
    subprocess.run(["npm", "pack", "--silent", wanted], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    archive = next(folder.glob("*.tgz"))

    def read(name: str) -> bytes:
        with tarfile.open(archive) as tar:
            member = tar.extractfile(f"package/{name}")
            if member is None:
                raise FileNotFoundError(f"{wanted} has no {name}")
            return member.read()

    return read


def copied(package: dict[str, Any], read: Read, *, update: bool, write: bool) -> list[str]:
    """Copy one package's files; the lines say which digests differ."""
    wrong = []
    folder = VENDOR / package["folder"]
    for name, expected in package["files"].items():
        content = read(name)
        digest = hashlib.sha256(content).hexdigest()
        if update:
            package["files"][name] = digest
        elif digest != expected:
            wrong.append(f"{package['name']} {name}: sha256 is {digest}, vendor.json says {expected}")
            continue
        if write:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Path(name).name).write_bytes(content)
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
