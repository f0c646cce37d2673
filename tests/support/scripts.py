"""Loads scripts from outside of the package, such as benchmarks, so that tests can call their functions."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def load_script(path: str) -> ModuleType:
    """Load the script at a path relative to the repository."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and named tuples look up their module, and the benchmarks import each other by these names.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
