"""Checks for a fresh machine without installed packages. Each check raises AssertionError if the project's own scripts
fail."""

from __future__ import annotations

import shutil
from pathlib import Path

from product import Product, expect

SCRIPT = Path("scripts", "system-packages.sh")


def a_missing_package_is_named_as_it_is(product: Product) -> None:
    """21: a probe that contains `||` is parsed as a single probe, so the script installs the correct package."""
    root = _root(product)
    folder = product.folder / "bare"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "bin").mkdir(parents=True)
    log = folder / "installed"
    programs = {
        "apt-get": f'[ "$1" = update ] || echo "${{@: -1}}" >> {log}',
        "id": "echo 0",
        "env": 'shift; exec "$@"',
    }
    for name, text in programs.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    for name in ("bash", "mktemp", "tail", "rm"):
        (folder / "bin" / name).symlink_to(str(shutil.which(name)))
    done = product.run(folder / "bin" / "bash", root / SCRIPT, "test", cwd=folder, PATH=str(folder / "bin"))
    names = log.read_text().splitlines() if log.exists() else []
    expect(done.status == 0, f"the script failed: {done.err[-300:]}")
    expect(names and all(names), f"it installs {names}")
    expect("prometheus-pushgateway" in names, f"it does not install the Pushgateway: {names}")


def no_mapping_is_searched(product: Product) -> None:
    """2, 21: no module calls `mmap.find`, which reads past the end of the map in Python 3.11.2 (Debian 12)."""
    for path in (_root(product) / "src" / "rowcast").rglob("*.py"):
        text = path.read_text()
        expect("mmap.mmap" not in text or ".find(" not in text, f"{path.name} calls find while it uses a memory map")


def _root(product: Product) -> Path:
    """Return the checkout to which the installation belongs."""
    root = product.python.parents[2]
    expect((root / SCRIPT).exists(), f"{root} is not a checkout")
    return root


CHECKS = (a_missing_package_is_named_as_it_is, no_mapping_is_searched)
