"""The built-in example tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowcast.errors import TableError
from rowcast.tables import examples
from rowcast.tables.read import read_table


@pytest.mark.parametrize(("name", "target"), [("loans", "loan_status"), ("iris", "species")])
def test_an_example_is_written_with_its_target(tmp_path: Path, name: str, target: str) -> None:
    frame = read_table(examples.write_example(name, tmp_path / "table.csv", rows=60)).frame

    assert frame.height == 60
    assert frame.columns[-1] == target


def test_an_example_does_not_overwrite_another_table(tmp_path: Path) -> None:
    path = tmp_path / "loans.csv"
    path.write_text("my,own,table\n")

    with pytest.raises(TableError) as refused:
        examples.write_example("loans", path, rows=60)

    assert (refused.value.slug, path.read_text()) == ("file-exists", "my,own,table\n")
    path.unlink()
    assert examples.write_example("loans", path, rows=60) == examples.write_example("loans", path, rows=60)


def test_the_same_seed_produces_the_same_loan_table() -> None:
    assert examples.loans(20, seed=3) == examples.loans(20, seed=3) != examples.loans(20, seed=4)


def test_an_unknown_example_or_a_missing_folder_is_rejected(tmp_path: Path) -> None:
    for name, path, slug in (
        ("houses", tmp_path / "t.csv", "unknown-example"),
        ("loans", tmp_path / "none" / "t.csv", "not-writable"),
    ):
        with pytest.raises(TableError) as caught:
            examples.write_example(name, path)
        assert caught.value.slug == slug
