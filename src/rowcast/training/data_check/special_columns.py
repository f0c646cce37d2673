"""Columns that say something of the rows, not of the case: what ties rows together, what weighs them, what is left out.

A group or a weight is not learnt from unless `--keep` names it; a time is, unless `--exclude` does.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast import tables
from rowcast.errors import TableError
from rowcast.schema.schema import Column
from rowcast.schema.values import BLANKS, MISSING_WORDS
from rowcast.tables import Finding, Override, Table
from rowcast.training.options import TrainingOptions
from rowcast.training.split import SplitColumn

GROUP_LEVELS: Final = 20
GROUP_REPEATS: Final = 1.2
"""Rows a value, below which repeats of an identifier are no groups worth a word."""
_id_name = re.compile(r"(^|[ _.\-])(?i:id|uid|guid|uuid)$|[a-z](ID|Id)$").search


def named(table: Table, target: str, options: TrainingOptions) -> tuple[list[str], list[str]]:
    """The columns to leave out and those to keep; TableError for names that make no sense."""
    exclude = table.resolve_columns(options.exclude, "exclude")
    keep = table.resolve_columns(options.keep, "keep")
    for name in exclude:
        if name == target:
            raise TableError(f"--exclude names {name!r}, which is the target")
        if name in keep:
            raise TableError(f"column {name!r} is named by --keep and by --exclude; choose one")
    for option, asked in (("--time", options.time), ("--group", options.group), ("--weight", options.weight)):
        if asked is not None:
            name = asked.strip(BLANKS)
            if name == target:
                raise TableError(f"{option} names {name!r}, which is the target")
            table.require(name)
            if option != "--time" and name not in (*keep, *exclude):
                exclude.append(name)
    return exclude, keep


def weighed(table: Table, options: TrainingOptions) -> tuple[Table, list[Finding]]:
    """The table without the rows that weigh nothing; TableError when the weights are none."""
    if options.weight is None:
        return table, []
    name = options.weight.strip(BLANKS)
    column, values = _numbers(table, name, "--weight", "numbers")
    if column.kind == "datetime":
        raise TableError(f"--weight names {name!r}, which does not hold numbers")
    if values.min() < 0:
        first = int(np.flatnonzero(values < 0)[0])
        raise TableError(f"--weight names {name!r}, which is negative in row {first}; a weight is 0 or more")
    heavy = values > 0
    if not heavy.any():
        raise TableError(f"--weight names {name!r}, which is 0 in every row; there is nothing to learn from")
    if heavy.all():
        return table, []
    rows = replace(table, frame=table.frame.filter(pl.Series(heavy)))
    message = f"is 0 in {int((~heavy).sum())} of {len(heavy)} rows"
    return rows, [Finding("weightless", name, message, "those rows were left out")]


def weights(table: Table, options: TrainingOptions) -> NDArray[np.float64] | None:
    """How much each row counts, 1 on average."""
    if options.weight is None:
        return None
    _, values = _numbers(table, options.weight.strip(BLANKS), "--weight", "numbers")
    return np.asarray(values / values.mean())


def tie(table: Table, options: TrainingOptions) -> SplitColumn | None:
    """What the split goes by beside chance."""
    if options.time is not None:
        name = options.time.strip(BLANKS)
        return SplitColumn("time", name, _numbers(table, name, "--time", "dates nor numbers")[1])
    return (
        None
        if options.group is None
        else SplitColumn("group", options.group.strip(BLANKS), _groups(table, options.group))
    )


def _numbers(table: Table, name: str, option: str, what: str) -> tuple[Column, NDArray[np.float64]]:
    """A column of moments or numbers as numbers in order, none missing."""
    series = table.require(name)
    if series.null_count() == len(series):
        raise TableError(f"{option} names {name!r}, which holds no value at all")
    alone = replace(table, frame=series.to_frame(), findings=())
    column = tables.infer(alone, keep=[name]).schema.columns[0]
    if column.kind not in ("datetime", "integer", "number"):
        said = f"neither {what}" if " nor " in what else f"something else than {what}"
        raise TableError(f"{option} names {name!r}, which holds {said}")
    if column.missing:
        raise TableError(f"{option} names {name!r}, which is missing in some rows; leave those rows out")
    distinct = {cell: column.parse(cell, text=True) for cell in series.unique().to_list()}
    return column, np.array([distinct[cell] for cell in series.to_list()], np.float64)


def _groups(table: Table, asked: str) -> NDArray[np.intp]:
    """A number for each group, in the order of their values."""
    name = asked.strip(BLANKS)
    series = _present(table.require(name))
    lost = series.null_count()
    if lost:
        raise TableError(
            f"--group names {name!r}, which is missing in {lost} of {len(series)} rows; fill it or leave them out"
        )
    return series.rank("dense").to_numpy().astype(np.intp)


def _present(series: pl.Series) -> pl.Series:
    """The column with every way to say "missing" as null."""
    if series.dtype == pl.String:
        trimmed = series.str.strip_chars(BLANKS)
        return trimmed.set(trimmed.is_in(list(MISSING_WORDS)), None)
    return series.fill_nan(None) if series.dtype.is_float() else series


def findings(table: Table, target: str, learnt: Collection[str], options: TrainingOptions) -> list[Finding]:
    """What is said of the columns that tie or weigh, and of one that looks as if it should tie."""
    found = []
    if options.time is not None:
        name = options.time.strip(BLANKS)
        message = "orders the rows: the last are kept aside, and every fold is judged by later rows"
        found.append(Finding("time", name, message, *_use(name, learnt, None)))
    if options.group is not None:
        name = options.group.strip(BLANKS)
        message = f"{table.frame[name].n_unique()} groups in {table.frame.height} rows, none on both sides of a split"
        found.append(Finding("group", name, message, *_use(name, learnt, Override("keep", name))))
    if options.weight is not None:
        name = options.weight.strip(BLANKS)
        message = "says how much each row counts: all figures are weighted"
        found.append(Finding("weight", name, message, *_use(name, learnt, Override("keep", name))))
    if options.time is None and options.group is None:
        found += _tying(table, target, learnt, options)
    return found


def _use(name: str, learnt: Collection[str], otherwise: Override | None) -> tuple[str, Override | None]:
    """Whether a column is learnt from beside what it is for, and the option that changes that."""
    return ("learnt from as well", Override("exclude", name)) if name in learnt else ("not learnt from", otherwise)


def _tying(table: Table, target: str, learnt: Collection[str], options: TrainingOptions) -> list[Finding]:
    """Identifiers, by their names, that many rows share: rows of one customer on both sides flatter the figures."""
    found = []
    for name in table.frame.columns:
        if name in (target, options.weight) or not _id_name(name) or table.frame[name].dtype.is_float():
            continue
        series = _present(table.frame[name]).drop_nulls()
        levels = series.n_unique()
        if levels < GROUP_LEVELS or len(series) < GROUP_REPEATS * levels:
            continue
        message = f"identifies something, by its name, and repeats: {levels} values in {len(series)} rows"
        action = ("learnt from" if name in learnt else "left out") + "; rows of one value are on both sides of a split"
        found.append(Finding("repeated-id", name, message, action, Override("group", name)))
    return found
