"""The findings of the data check that do not need a target."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from rowcast.errors import TableError
from rowcast.schema.encoding import own_plan
from rowcast.schema.schema import Column, Schema
from rowcast.tables.encode import encode_table
from rowcast.tables.infer import UNIQUE_SHARE, identifier_finding, inspect_column
from rowcast.tables.profile import ColumnProfile
from rowcast.tables.spool import ColumnStore
from rowcast.tables.table import Finding, Override, Table
from rowcast.training.data_check import check, special_columns
from rowcast.training.problem import HIDDEN, QUOTING


def find_in_columns(
    store: ColumnStore,
    columns: Sequence[ColumnProfile],
    *,
    exclude: Sequence[str],
    keep: Collection[str],
    sensitive: Collection[str],
) -> list[Finding]:
    """Return the findings, most severe first.

    In a large table, they come from a sample of the rows, except for findings about identifiers. Findings that the
    profile of all rows contradicts are omitted.
    """
    sample = store.sample.without(exclude)
    profiles = {column.name: column for column in columns}
    usable, findings = _inspect(sample, keep)
    if sample.frame.height < store.rows:
        identifiers = _identifiers(store, [column for column in usable if column.name not in keep], profiles)
        usable = [column for column in usable if not any(each.column == column.name for each in identifiers)]
        findings = [*(each for each in findings if each.code != "unique-numbers"), *identifiers]
    if usable:
        schema = Schema(tuple(usable))
        plan = own_plan(schema)
        findings += check.check_columns(schema, plan, encode_table(sample, schema, plan))
    findings += special_columns.repeated_ids(sample, [column.name for column in usable])
    kept = [each for finding in findings if (each := _for_all_rows(finding, profiles, store.rows)) is not None]
    shown = [_without_values(each) if each.column in sensitive else each for each in [*_copies(store), *kept]]
    return list(check.sort_by_severity(shown))


def _inspect(table: Table, keep: Collection[str]) -> tuple[list[Column], list[Finding]]:
    """Return the columns that training would use, and the findings from reading and from inspecting each column."""
    usable, findings = [], list(table.findings)
    for series in table.frame.get_columns():
        try:
            column, found = inspect_column(series, is_kept=series.name in keep)
        except TableError as error:
            override = Override("exclude", series.name)
            found = [Finding("unusable-column", series.name, error.message, "training fails", override)]
            column = None
        findings += found
        if column is not None:
            usable.append(column)
    return usable, findings


def _identifiers(store: ColumnStore, columns: Sequence[Column], profiles: Mapping[str, ColumnProfile]) -> list[Finding]:
    """Check all cells; return findings about columns that contain a different whole number in every row."""
    findings = []
    for column in columns:
        profile = profiles[column.name]
        if profile.kind == "integer" and profile.distinct == store.rows - profile.missing:
            finding = identifier_finding(store.read(column.name), column)
            findings += [] if finding is None else [finding]
    return findings


def _copies(store: ColumnStore) -> list[Finding]:
    if not store.copies:
        return []
    message = f"{store.copies} of {store.rows} rows are copies of other rows"
    action = "used; if copies describe the same case, the score is too optimistic"
    return [Finding("duplicate-rows", "", message, action)]


def _for_all_rows(finding: Finding, profiles: Mapping[str, ColumnProfile], rows: int) -> Finding | None:
    """Return a finding from the sample, updated with counts from all rows, or None if it does not hold for all rows."""
    column = profiles.get(finding.column)
    if column is None:
        return finding
    present = rows - column.missing
    holds = True
    if finding.code in ("all-missing", "constant"):
        holds = column.distinct <= 1
    elif finding.code == "mostly-missing":
        holds = column.distinct == 1 or column.missing > rows / 2
    elif finding.code in ("id", "free-text") and column.distinct < present:
        message = f"has {column.distinct} different values in {present} rows"
        finding = msgspec.structs.replace(finding, code="free-text", message=message)
        holds = column.distinct >= UNIQUE_SHARE * present
    return finding if holds else None


def _without_values(finding: Finding) -> Finding:
    return msgspec.structs.replace(finding, message=HIDDEN) if finding.code in QUOTING else finding
