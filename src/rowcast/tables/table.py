"""The table value, and what was noticed about it."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import polars as pl

from rowcast.errors import TableError
from rowcast.schema.values import BLANKS


class Override(msgspec.Struct, frozen=True):
    """The training option that changes what Rowcast does about a finding."""

    option: str
    """The name of the option, as in `rowcast.train(..., exclude=["age"])`."""
    value: str = ""
    """A value for the option; empty when the user must choose one."""

    def __str__(self) -> str:
        return f"{self.option}={self.value}" if self.value else self.option


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something the data check noticed, the action Rowcast took, and the option that changes it."""

    code: str
    column: str
    """Empty when the finding is about the whole table."""
    message: str
    action: str
    override: Override | None = None


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

    def resolve_columns(self, texts: Sequence[str], option: str) -> list[str]:
        """Return the columns that an option lists; each text holds one name or several joined by commas.

        TableError if a name is not a column.
        """
        names: list[str] = []
        for text in texts:
            whole = text.strip(BLANKS)
            parts = [whole] if whole in self.frame.columns else [part.strip(BLANKS) for part in whole.split(",")]
            for part in parts:
                if part not in self.frame.columns:
                    hint = closest(part, self.frame.columns)
                    raise TableError(f"option {option!r}: {self.name} has no column {part!r}; {hint}")
            names.extend(parts)
        return list(dict.fromkeys(names))

    def without(self, names: Sequence[str]) -> Table:
        """The table with these columns taken away."""
        return replace(self, frame=self.frame.drop(names))


def with_target(table: Table, labels: Table, target: str | None) -> tuple[Table, str]:
    """The table with the labels of another file beside its rows, and the name of their column."""
    if target is None and labels.frame.width > 1:
        raise TableError(
            f"{labels.name} has {labels.frame.width} columns; set the option 'target' to the one that holds the labels"
        )
    name = labels.frame.columns[0] if target is None else target.strip(BLANKS)
    series = labels.require(name)
    if name in table.frame.columns:
        raise TableError(f"{table.name} has a column {name!r} too; remove it from one of the two files")
    if len(series) != table.frame.height:
        counts = f"{labels.name} has {len(series)} labels for the {table.frame.height} rows of {table.name}"
        raise TableError(f"{counts}; both need a header line, then one line a row in the same order")
    sha256 = hashlib.sha256(f"{table.sha256} {labels.sha256}".encode()).hexdigest()
    return Table(table.frame.with_columns(series), table.name, sha256, (*table.findings, *labels.findings)), name


def closest(wanted: str, names: Sequence[str]) -> str:
    """A hint that names the columns which were perhaps meant."""
    folded = {name.casefold(): name for name in names}
    near = [folded[name] for name in difflib.get_close_matches(wanted.strip().casefold(), list(folded), 3, 0.5)]
    if near:
        return "did you mean " + " or ".join(repr(name) for name in near) + "?"
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"it has {shown}"
