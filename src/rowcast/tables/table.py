"""Tables, and the findings of the data check."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec
import polars as pl

from rowcast.errors import TableError
from rowcast.schema.schema import Schema, list_names
from rowcast.schema.values import BLANKS
from rowcast.suggestions import did_you_mean


class Override(msgspec.Struct, frozen=True):
    """The training option that overrides Rowcast's action for a finding."""

    option: str
    """The name of the option, as in `rowcast.train(..., exclude=["age"])`."""
    value: str = ""
    """The value of the option; empty if the user must choose it."""

    def __str__(self) -> str:
        return f"{self.option}={self.value}" if self.value else self.option


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """A finding from the data check, with the action that Rowcast took and the option that overrides this action."""

    code: str
    column: str
    """The name of the column; empty if the finding concerns the whole table."""
    message: str
    action: str
    override: Override | None = None


@dataclass(frozen=True)
class Table:
    """Rows read from a file or from memory. The column names are trimmed and unique; cells are not trimmed."""

    frame: pl.DataFrame
    name: str
    sha256: str
    findings: tuple[Finding, ...] = ()

    def require(self, column: str) -> pl.Series:
        """Return the column with this name; if there is none, raise TableError with similar names."""
        if column in self.frame.columns:
            return self.frame[column]
        hint = closest(column, self.frame.columns)
        raise TableError(f"{self.name} has no column {column!r}; {hint}", slug="unknown-column")

    def resolve_columns(self, texts: Sequence[str], option: str) -> list[str]:
        """Return the columns that an option lists. Each string contains one name, or several names separated by commas.

        Raise TableError if a column does not exist.
        """
        names: list[str] = []
        for text in texts:
            whole = text.strip(BLANKS)
            parts = [whole] if whole in self.frame.columns else [part.strip(BLANKS) for part in whole.split(",")]
            for part in parts:
                if part not in self.frame.columns:
                    hint = closest(part, self.frame.columns)
                    message = f"option {option!r}: {self.name} has no column {part!r}; {hint}"
                    raise TableError(message, slug="unknown-column")
            names.extend(parts)
        return list(dict.fromkeys(names))

    def without(self, names: Sequence[str]) -> Table:
        """Return the table without these columns."""
        return replace(self, frame=self.frame.drop(names))


def with_target(table: Table, labels: Table, target: str | None) -> tuple[Table, str]:
    """Return the table with a column of labels from another table, and the name of that column.

    `target` may be None if `labels` has a single column.
    """
    if target is None and labels.frame.width > 1:
        raise TableError(
            f"{labels.name} has {labels.frame.width} columns; set the option 'target' to the name of the label column",
            slug="target-required",
        )
    name = labels.frame.columns[0] if target is None else target.strip(BLANKS)
    series = labels.require(name)
    if name in table.frame.columns:
        raise TableError(
            f"{table.name} and {labels.name} both have a column {name!r}; remove it from one of them",
            slug="duplicate-column",
        )
    if len(series) != table.frame.height:
        raise TableError(
            f"{labels.name} has {len(series)} labels for the {table.frame.height} rows of {table.name}; "
            "both files need a header line and one line per row, in the same order",
            slug="row-count",
        )
    sha256 = hashlib.sha256(f"{table.sha256} {labels.sha256}".encode()).hexdigest()
    return Table(table.frame.with_columns(series), table.name, sha256, (*table.findings, *labels.findings)), name


def misspellings(names: Iterable[str], schema: Schema) -> dict[str, str]:
    """Map each absent column to a name that is probably a misspelling of it.

    Other unknown names, such as the target of the training table, are ignored.
    """
    present = list(names)
    known = schema.names()
    folded = {name.casefold(): name for name in present if name not in known}
    found: dict[str, str] = {}
    for column in known:
        near = [] if column in present else difflib.get_close_matches(column.casefold(), folded, 1, 0.8)
        if near:
            found[column] = folded[near[0]]
    return found


def closest(name: str, names: Sequence[str]) -> str:
    """Return a hint with the names most similar to `name`, or with the first available names if none are similar."""
    return did_you_mean(name, tuple(names), 3) or f"available: {list_names(names)}"
