"""The table value, and what was noticed about it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import polars as pl

from rowcast.errors import TableError


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something the data check noticed: what it is, what Rowcast did about it, and the flag that changes that."""

    code: str
    column: str
    """Empty when the finding is about the whole table."""
    message: str
    action: str
    flag: str = ""


@dataclass(frozen=True)
class Table:
    """Rows as they were read: header names trimmed and unique, cells untouched."""

    frame: pl.DataFrame
    name: str
    sha256: str
    findings: tuple[Finding, ...] = ()

    def require(self, column: str) -> pl.Series:
        """The column of this name; TableError names the closest ones when there is none."""
        if column in self.frame.columns:
            return self.frame[column]
        raise TableError(f"{self.name} has no column {column!r}; {closest(column, self.frame.columns)}")


def closest(wanted: str, names: Sequence[str]) -> str:
    """A hint that names the columns which were perhaps meant."""
    folded = {name.casefold(): name for name in names}
    near = [folded[name] for name in difflib.get_close_matches(wanted.strip().casefold(), list(folded), 3, 0.5)]
    if near:
        return "did you mean " + " or ".join(repr(name) for name in near) + "?"
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"it has {shown}"
