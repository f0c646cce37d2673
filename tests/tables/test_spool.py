"""Large files are profiled like small files, but in constant memory."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from rowcast.errors import TableError
from rowcast.tables import spool, stream
from rowcast.tables.profile import profile_columns
from support.tables import write_table

ROWS = 900


@pytest.fixture
def frame() -> pl.DataFrame:
    """A table whose last 100 rows are copies of its first 100 rows."""
    numbers = [number % 800 for number in range(ROWS)]
    return pl.DataFrame({"n": numbers, "t": [f"t{number % 7}" for number in numbers], "d": ["2025-01-02"] * ROWS})


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat every file as a large file with small chunks."""
    monkeypatch.setattr(spool, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(spool, "SAMPLE_ROWS", 50)
    monkeypatch.setattr(stream, "BLOCK", 500)
    monkeypatch.setattr(stream, "ROWS", 64)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl", "csv.gz"])
def test_a_large_file_has_the_same_profile_as_a_small_file(
    tmp_path: Path, frame: pl.DataFrame, ending: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / f"rows.{ending}"
    write_table(frame, path)
    with spool.open_columns(path) as small:
        expected = profile_columns(small, small.names, ["t"], threads=1)
        assert (small.rows, small.copies, small.sample.frame.height) == (ROWS, 100, ROWS)

    request.getfixturevalue("large")
    with spool.open_columns(path) as store:
        assert isinstance(store, spool.SpooledColumns)
        assert profile_columns(store, store.names, ["t"], threads=2) == expected
        assert (list(store.names), store.rows, store.copies) == (["n", "t", "d"], ROWS, 100)


@pytest.mark.usefixtures("large")
def test_the_sample_of_a_large_file_is_evenly_spaced(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_table(pl.DataFrame({"n": range(ROWS)}), path)

    with spool.open_columns(path) as store:
        sample = [int(cell) for cell in store.sample.frame["n"]]

    step = sample[1] - sample[0]
    assert sample == list(range(0, ROWS, step))
    assert 50 <= len(sample) <= 100


@pytest.mark.usefixtures("large")
def test_the_temporary_file_is_removed(tmp_path: Path, frame: pl.DataFrame) -> None:
    write_table(frame, tmp_path / "rows.csv")

    with spool.open_columns(tmp_path / "rows.csv") as store:
        assert isinstance(store, spool.SpooledColumns)
        path = store.path
        assert path.exists()

    assert not path.parent.exists()


@pytest.mark.usefixtures("large")
def test_lines_without_values_are_counted(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,y\n" + "1,2\n,\n" * 200)

    with spool.open_columns(tmp_path / "rows.csv") as store:
        findings = store.sample.findings

    assert [finding.code for finding in findings] == ["blank-rows"]
    assert findings[0].message.startswith("200 lines")


@pytest.mark.usefixtures("large")
def test_a_large_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,y\n")
    slugs = []
    for name in ("rows.csv", "none.csv"):
        with pytest.raises(TableError) as caught, spool.open_columns(tmp_path / name):
            pass
        slugs.append(caught.value.slug)

    assert slugs == ["empty-table", "file-not-found"]
