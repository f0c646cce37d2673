"""`rowcast predict`: options and summary."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rowcast.cli import scoring
from rowcast.errors import RowcastError, SettingsError
from rowcast.jobs.table_scoring import ColumnWarning, Summary
from rowcast.settings import Settings
from support import models


def summary(rejects: str | None) -> Summary:
    return Summary(
        model="loans",
        version=3,
        digest="d",
        rows=1000,
        rejected=2 if rejects else 0,
        out="out.csv",
        rejects=rejects,
        seconds=0.25,
        rows_per_second=4000.0,
    )


def test_the_summary_names_the_output_files() -> None:
    assert scoring.describe(summary(None)) == "scored 1000 rows with loans@3 in 0.2 s (4,000 rows/s); wrote out.csv"
    assert scoring.describe(summary("bad.csv")).endswith("; wrote out.csv; wrote 2 rejected rows to bad.csv")


def test_the_summary_counts_excluded_lines() -> None:
    assert scoring.describe(msgspec.structs.replace(summary(None), excluded=1)).endswith(
        "; wrote out.csv; excluded 1 line (second header or no values)"
    )


def test_the_summary_names_the_columns_with_values_that_did_not_occur_in_training() -> None:
    warnings = (ColumnWarning("income", "out-of-range", 7), ColumnWarning("purpose", "unseen-category", 1))

    assert scoring.describe(msgspec.structs.replace(summary(None), warnings=warnings)).endswith(
        "; values that did not occur in training: income (7 outside the range), purpose (1 unseen)"
    )


def test_the_strict_and_rejects_options_are_mutually_exclusive(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        scoring.run(
            Settings(),
            "loans",
            table=tmp_path / "t.csv",
            out=tmp_path / "out.csv",
            rejects=tmp_path / "bad.csv",
            columns=None,
            strict=True,
            jobs=1,
            engine="local",
            as_json=False,
        )


@pytest.mark.parametrize(("strict", "is_named"), [(False, True), (True, False)])
def test_an_error_in_a_row_names_the_line_and_the_rejects_option(tmp_path: Path, strict: bool, is_named: bool) -> None:
    registry = models.FolderRegistry(tmp_path / "models")
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    (tmp_path / "t.csv").write_text("x0,x1\n1,2\nbad,2\n")

    with pytest.raises(RowcastError) as caught:
        scoring.run(
            Settings(home=tmp_path),
            "sum",
            table=tmp_path / "t.csv",
            out=tmp_path / "out.csv",
            rejects=None,
            columns=None,
            strict=strict,
            jobs=1,
            engine="local",
            as_json=False,
        )

    assert caught.value.slug == "invalid-row"
    assert caught.value.message.startswith("line 3 (row 1), column 'x0'")
    assert ("--rejects FILE" in caught.value.message) == is_named
