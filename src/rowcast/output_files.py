"""Prevents a command from overwriting its input files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rowcast.errors import SettingsError


def refuse_overwriting(output: Path, inputs: Iterable[Any]) -> None:
    """Raise SettingsError if the output is one of the inputs. Inputs that are not paths are ignored."""
    for source in inputs:
        if isinstance(source, str | Path) and is_same_file(output, Path(source)):
            raise SettingsError(
                f"{output} is an input of this command and would be overwritten; choose another output file",
                slug="same-file",
            )


def is_same_file(first: Path, second: Path) -> bool:
    """Return whether two paths lead to the same file, directly or through symbolic or hard links."""
    try:
        return first.samefile(second)
    except OSError:  # at least one of them does not exist
        return first.resolve() == second.resolve()
