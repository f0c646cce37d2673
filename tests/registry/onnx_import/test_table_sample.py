"""A sample of a user's table supplies ranges, levels and rows."""

from __future__ import annotations

from pathlib import Path

from rowcast.registry.onnx_import.table_sample import SAMPLE_ROWS, sample_table


def test_numeric_columns_have_ranges_and_other_columns_have_levels(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("n,t\n1.5,a\n-2,b\n,b\n")

    sample = sample_table(path)

    assert sample.columns == ["n", "t"]
    assert (sample.observed["n"].low, sample.observed["n"].high) == (-2.0, 1.5)
    assert sample.observed["t"].levels == ("b", "a")
    assert sorted(row["t"] for row in sample.rows) == ["a", "b", "b"]


def test_the_sample_of_a_long_table_is_always_the_same(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("n\n" + "\n".join(map(str, range(1000))))

    assert len(sample_table(path).rows) == SAMPLE_ROWS
    assert sample_table(path) == sample_table(path)
