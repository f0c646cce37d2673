"""Columns with a role set by a training option: excluded, kept, time, group and weight columns.

A group or weight column is a feature only if the option `keep` lists it. A time column is a feature unless the option
`exclude` lists it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.errors import TableError
from rowcast.schema.schema import Column
from rowcast.schema.values import BLANKS, MISSING_WORDS
from rowcast.tables.infer import infer_schema
from rowcast.tables.table import Finding, Override, Table
from rowcast.training.options import TrainingOptions
from rowcast.training.split import SplitColumn

MIN_GROUPS: Final = 20
MIN_GROUP_SIZE: Final = 1.2
"""The minimum average number of rows per value. If values are repeated less often, they hardly bias a random split."""
_is_id_name = re.compile(r"(^|[ _.\-])(?i:id|uid|guid|uuid)$|[a-z](ID|Id)$").search


def resolve_exclude_and_keep(table: Table, target: str, options: TrainingOptions) -> tuple[list[str], list[str]]:
    """Return the columns to exclude and the columns to keep; raise TableError if the options contradict each other."""
    exclude = table.resolve_columns(options.exclude, "exclude")
    keep = table.resolve_columns(options.keep, "keep")
    for name in exclude:
        if name == target:
            raise _target_error("exclude", name)
        if name in keep:
            message = f"column {name!r} is listed in both 'keep' and 'exclude'; remove it from one of these options"
            raise TableError(message, slug="kept-and-excluded")
    for option, text in (("time", options.time), ("group", options.group), ("weight", options.weight)):
        if text is not None:
            name = text.strip(BLANKS)
            if name == target:
                raise _target_error(option, name)
            table.require(name)
            if option != "time" and name not in (*keep, *exclude):
                exclude.append(name)
    return exclude, keep


def resolve_optional(table: Table, target: str, options: TrainingOptions) -> list[str]:
    """Return the columns listed in the option `optional`; raise TableError if a column does not exist."""
    names = table.frame.columns
    if "all" in options.optional and "all" not in names:
        return [name for name in names if name != target]
    optional = table.resolve_columns(options.optional, "optional")
    if target in optional:
        raise _target_error("optional", target)
    return optional


def _target_error(option: str, name: str) -> TableError:
    return TableError(f"option {option!r}: column {name!r} is the target; choose another column", slug="target-column")


def drop_weightless_rows(table: Table, options: TrainingOptions) -> tuple[Table, list[Finding]]:
    """Return the table without the rows whose weight is 0; raise TableError if a weight is invalid."""
    if options.weight is None:
        return table, []
    name, values = _weights(table, options.weight)
    if values.min() < 0:
        first = int(np.flatnonzero(values < 0)[0])
        message = f"option 'weight': column {name!r} has a negative value in row {first}; weights must be 0 or more"
        raise TableError(message, slug="negative-weight")
    positive = values > 0
    if not positive.any():
        message = f"option 'weight': column {name!r} contains only zeros; at least one weight must be positive"
        raise TableError(message, slug="zero-weights")
    if positive.all():
        return table, []
    rows = replace(table, frame=table.frame.filter(pl.Series(positive)))
    message = f"is 0 in {int((~positive).sum())} of {len(positive)} rows"
    return rows, [Finding("weightless", name, message, "these rows are excluded")]


def row_weights(table: Table, options: TrainingOptions) -> NDArray[np.float64] | None:
    """Return the row weights, scaled to a mean of 1, or None if the option `weight` is not set."""
    if options.weight is None:
        return None
    _, values = _weights(table, options.weight)
    return np.asarray(values / values.mean())


def _weights(table: Table, text: str) -> tuple[str, NDArray[np.float64]]:
    name = text.strip(BLANKS)
    column, values = _ordered_values(table, name, "weight")
    if column.kind == "datetime":
        message = f"option 'weight': column {name!r} contains dates; weights must be numbers"
        raise TableError(message, slug="column-kind")
    return name, values


def read_split_column(table: Table, options: TrainingOptions) -> SplitColumn | None:
    """Return the column that determines the split, or None for a random split."""
    if options.time is not None:
        name = options.time.strip(BLANKS)
        return SplitColumn("time", name, _ordered_values(table, name, "time")[1])
    if options.group is not None:
        name = options.group.strip(BLANKS)
        return SplitColumn("group", name, _group_numbers(table, name))
    return None


def _ordered_values(table: Table, name: str, option: str) -> tuple[Column, NDArray[np.float64]]:
    """Return a column and its values as floats; raise TableError unless every row has a number or a date."""
    series = table.require(name)
    if series.null_count() == len(series):
        raise TableError(f"option {option!r}: column {name!r} has no values", slug="empty-column")
    column = infer_schema(replace(table, frame=series.to_frame(), findings=()), keep=[name]).schema.columns[0]
    if column.kind not in ("datetime", "integer", "number"):
        expected = "numbers or dates" if option == "time" else "numbers"
        message = f"option {option!r}: column {name!r} is of kind {column.kind}; it must contain {expected}"
        raise TableError(message, slug="column-kind")
    if column.missing:
        message = f"option {option!r}: column {name!r} has no value in some rows; fill in the values or remove the rows"
        raise TableError(message, slug="missing-values")
    distinct = {cell: column.parse(cell, text=True) for cell in series.unique().to_list()}
    return column, np.array([distinct[cell] for cell in series.to_list()], np.float64)


def _group_numbers(table: Table, name: str) -> NDArray[np.intp]:
    """Return the group index of each row; raise TableError if a row has no group."""
    series = _with_nulls(table.require(name))
    missing = series.null_count()
    if missing:
        counts = f"{missing} of {len(series)} rows"
        message = f"option 'group': column {name!r} has no value in {counts}; fill in the values or remove the rows"
        raise TableError(message, slug="missing-values")
    return series.rank("dense").to_numpy().astype(np.intp)


def _with_nulls(series: pl.Series) -> pl.Series:
    """Replace every missing-value marker with null."""
    if series.dtype == pl.String:
        trimmed = series.str.strip_chars(BLANKS)
        return trimmed.set(trimmed.is_in(list(MISSING_WORDS)), None)
    return series.fill_nan(None) if series.dtype.is_float() else series


def check_special_columns(
    table: Table, *, target: str, features: Collection[str], options: TrainingOptions
) -> list[Finding]:
    """Report the time, group and weight columns, and identifiers that could serve as the group column."""
    findings = []
    if options.time is not None:
        name = options.time.strip(BLANKS)
        message = (
            "determines the order of the rows; the holdout and all validation rows are later than the rows used for "
            "training"
        )
        findings.append(Finding("time", name, message, *_use(name, features, None)))
    if options.group is not None:
        name = options.group.strip(BLANKS)
        groups, rows = table.frame[name].n_unique(), table.frame.height
        message = f"{groups} groups in {rows} rows; rows of the same group are always on the same side of a split"
        findings.append(Finding("group", name, message, *_use(name, features, Override("keep", name))))
    if options.weight is not None:
        name = options.weight.strip(BLANKS)
        message = "is the weight of each row in training and in all metrics"
        findings.append(Finding("weight", name, message, *_use(name, features, Override("keep", name))))
    if options.time is None and options.group is None:
        findings += repeated_ids(table, features, skip=(target, options.weight))
    return findings


def _use(name: str, features: Collection[str], override: Override | None) -> tuple[str, Override | None]:
    """Return the action and the override for a column; `override` turns an unused column into a feature."""
    if name in features:
        return "also used as a feature", Override("exclude", name)
    return "not used as a feature", override


def repeated_ids(table: Table, features: Collection[str], skip: Collection[str | None] = ()) -> list[Finding]:
    """Report identifiers with repeated values. A random split could separate rows with the same value."""
    findings = []
    for name in table.frame.columns:
        if name in skip or not _is_id_name(name) or table.frame[name].dtype.is_float():
            continue
        series = _with_nulls(table.frame[name]).drop_nulls()
        values = series.n_unique()
        if values < MIN_GROUPS or len(series) < MIN_GROUP_SIZE * values:
            continue
        message = f"looks like an identifier with repeated values: {values} distinct values in {len(series)} rows"
        use = "used as a feature" if name in features else "excluded"
        action = f"{use}; rows with the same value can be on both sides of a split"
        findings.append(Finding("repeated-id", name, message, action, Override("group", name)))
    return findings
