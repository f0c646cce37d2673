"""Download the page assets listed in vendor.json, verify their SHA-256 digests and copy the required files.

Downloading requires npm.

python scripts/vendor.py            download the assets; fail if a digest differs
python scripts/vendor.py --update   download the assets and update the digests in vendor.json (after a version change)
python scripts/vendor.py --check    verify the files in the repository without network access
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
    """Run the selected mode; return 1 if a digest differs."""
    packages: list[dict[str, Any]] = json.loads(LIST.read_text(encoding="utf-8"))
    update, check = "--update" in arguments, "--check" in arguments
    errors: list[str] = []
    for package in packages:
        with tempfile.TemporaryDirectory() as folder:
            read = repository_reader(package) if check else download(package, Path(folder))
            errors += copy_files(package, read, update=update, write=not check)
    if update:
        LIST.write_text(json.dumps(packages, indent=2) + "\n", encoding="utf-8")
    for error in errors:
        print(error, file=sys.stderr)
    return 1 if errors else 0


def repository_reader(package: dict[str, Any]) -> Read:
    """Return a function that reads the copies in the repository."""
    return lambda name: (VENDOR / package["folder"] / Path(name).name).read_bytes()


def download(package: dict[str, Any], folder: Path) -> Read:
    """Download the package's archive and return a function that reads its files."""
    requirement = f"{package['name']}@{package['version']}"
    subprocess.run(["npm", "pack", "--silent", requirement], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    archive = next(folder.glob("*.tgz"))

    def read(name: str) -> bytes:
        with tarfile.open(archive) as tar:
            member = tar.extractfile(f"package/{name}")
            if member is None:
                raise FileNotFoundError(f"{requirement} has no file {name}")
            return member.read()

    return read


def copy_files(package: dict[str, Any], read: Read, *, update: bool, write: bool) -> list[str]:
    """Copy a package's files; return a message for each digest that differs."""
    errors = []
    folder = VENDOR / package["folder"]
    for name, expected in package["files"].items():
        content = read(name)
        digest = hashlib.sha256(content).hexdigest()
        if update:
            package["files"][name] = digest
        elif digest != expected:
            errors.append(f"{package['name']} {name}: SHA-256 digest is {digest}, expected {expected}")
            continue
        if write:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Path(name).name).write_bytes(content)
    return errors


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
