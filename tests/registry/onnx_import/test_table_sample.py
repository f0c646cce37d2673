"""A sample of a user's table supplies ranges, levels and rows."""

from __future__ import annotations

from pathlib import Path

from rowcast.registry.onnx_import.signature import ObservedColumn
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


def test_only_the_thousand_most_common_levels_of_a_column_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("t\n" + "\n".join([f"level{number}" for number in range(1001)] * 2 + ["level1000"]) + "\n")

    levels = sample_table(path).observed["t"].levels

    assert len(levels) == 1000
    assert levels[0] == "level1000"


def test_a_column_without_values_has_no_range_and_no_levels(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("empty,mixed,n\n,1,1\n,a,2\n,,3\n")

    sample = sample_table(path)

    assert sample.observed["empty"] == ObservedColumn()
    assert (sample.observed["mixed"].low, set(sample.observed["mixed"].levels)) == (None, {"1", "a"})
    assert sample.observed["n"] == ObservedColumn(low=1.0, high=3.0)


def test_a_table_of_exactly_64_rows_is_not_sampled_and_a_longer_table_is_reduced_to_64_rows(tmp_path: Path) -> None:
    for rows in (64, 65):
        path = tmp_path / f"{rows}.csv"
        path.write_text("n\n" + "\n".join(map(str, range(rows))) + "\n")
        numbers = [int(row["n"]) for row in sample_table(path).rows]
        assert len(set(numbers)) == len(numbers) == 64
