"""The data check without a target: only findings about columns, and only if they hold for all rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rowcast.app.profiles import profile_table
from rowcast.tables import spool, stream
from rowcast.tables.profile import TableProfile
from support.tables import write_table

ROWS = 600
RNG = np.random.default_rng(0)


def checked(folder: Path, columns: dict[str, Any], **options: Any) -> TableProfile:
    write_table(pl.DataFrame(columns), folder / "rows.csv")
    return profile_table(folder / "rows.csv", **options)


def codes(result: TableProfile) -> set[tuple[str, str]]:
    return {(finding.code, finding.column) for finding in result.findings}


COLUMNS: dict[str, Sequence[Any]] = {
    "row": range(ROWS),
    "same": ["x"] * ROWS,
    "none": [None] * ROWS,
    "gaps": [n if n % 10 == 0 else None for n in range(ROWS)],
    "size": RNG.integers(1, 4, ROWS).tolist(),
    "customer_id": [f"c{n % 200}" for n in range(ROWS)],
    "price": [f"${value}.5" for value in RNG.integers(1, 99, ROWS)],
}


def test_findings_that_need_no_target_are_reported(tmp_path: Path) -> None:
    twin = ["SML"[value - 1] for value in COLUMNS["size"]]

    result = checked(tmp_path, COLUMNS | {"twin": twin})

    assert codes(result) >= {
        ("id", "row"),
        ("constant", "same"),
        ("all-missing", "none"),
        ("mostly-missing", "gaps"),
        ("repeated-id", "customer_id"),
        ("number-formats", "price"),
        ("same-fact", "twin"),
    }
    assert result.findings_rows == result.rows == ROWS


def test_duplicate_rows_are_counted(tmp_path: Path) -> None:
    result = checked(tmp_path, {"a": [1, 2, 1, 1], "b": ["x", "y", "x", "x"]})

    assert result.duplicates == 2
    assert ("duplicate-rows", "") in codes(result)


@pytest.mark.parametrize("name", ["same", "none", "row", "rows"])
def test_a_table_without_a_usable_column_has_a_profile(tmp_path: Path, name: str) -> None:
    cells = COLUMNS.get(name, [1, 2, 3])

    result = checked(tmp_path, {name: cells, "extra": ["k"] * len(cells)})

    assert [column.name for column in result.columns] == [name, "extra"]


def test_a_column_that_training_rejects_is_a_finding(tmp_path: Path) -> None:
    result = checked(tmp_path, {"huge": ["1e60", "2", "3"], "n": [1, 2, 3]})

    assert ("unusable-column", "huge") in codes(result)


def test_excluded_columns_are_not_examined_and_kept_columns_are_not_excluded(tmp_path: Path) -> None:
    result = checked(tmp_path, COLUMNS, exclude=["same,none"], keep=["row"])

    assert [column.name for column in result.columns] == [name for name in COLUMNS if name not in ("same", "none")]
    assert not {column for _, column in codes(result)} & {"same", "none"}
    assert ("id", "row") not in codes(result)


def test_findings_quote_no_values_of_sensitive_columns(tmp_path: Path) -> None:
    columns = {"secret": ["hush"] * ROWS, "n": range(ROWS)}

    shown, hidden = (checked(tmp_path, columns, sensitive=names) for names in ([], ["secret"]))

    assert "hush" in str(shown)
    assert "hush" not in str(hidden)
    assert codes(shown) == codes(hidden)


def test_findings_in_a_sample_that_do_not_hold_for_all_rows_are_omitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(spool, "SAMPLE_ROWS", 30)
    monkeypatch.setattr(stream, "BLOCK", 500)
    nearly = ["x"] * ROWS
    nearly[1] = "y"
    few = [None] * ROWS
    few[1] = 3
    halves = [f"t{n // 2}" for n in range(ROWS)]
    notes = [f"t{n or 1}" for n in range(ROWS)]

    result = checked(tmp_path, COLUMNS | {"nearly": nearly, "few": few, "halves": halves, "notes": notes})

    assert result.findings_rows < result.rows == ROWS
    assert codes(result) >= {("constant", "same"), ("all-missing", "none"), ("id", "row")}
    assert not {("constant", "nearly"), ("id", "halves")} & codes(result)
    assert {column.name: column.distinct for column in result.columns}["halves"] == ROWS / 2
    (note,) = [finding for finding in result.findings if finding.column == "notes"]
    assert (note.code, note.message) == ("free-text", "has 599 different values in 600 rows")
