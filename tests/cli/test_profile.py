"""The output of `rowcast check` without a target."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rowcast.cli import profile
from support.commands import rowcast


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    lines = [f"{n},{'west' if n % 3 else 'east'},2025-01-{n % 28 + 1:02},{'' if n % 4 else n * 1.5}" for n in range(60)]
    path.write_text("id,region,day,price\n" + "\n".join(lines) + "\n")
    return path


def test_the_profile_is_tab_separated_if_it_is_piped(table: Path) -> None:
    finished = rowcast("check", table, cwd=table.parent)

    assert finished.returncode == 0, finished.stderr
    lines = [line.split("\t") for line in finished.stdout.splitlines()]
    assert lines[0] == list(profile.HEADINGS)
    assert lines[1] == [
        *("id", "integer", "0", "60", "0 to 59, median 29", "0, 1, 2"),
        "5 5 5 5 5 5 5 5 5 5 5 5",
    ]
    assert lines[2] == ["region", "category", "0", "2", "west (40), east (20)", "east, west", "40 20"]
    assert lines[3][:5] == ["day", "datetime", "0", "28", "2025-01-01 to 2025-01-28, median 2025-01-13"]
    assert lines[4][:5] == ["price", "number", "45 (75.0%)", "15", "0 to 84, median 42"]
    assert lines[5] == ["column", "finding", "action", "override"]
    assert "id\tcontains consecutive row numbers\texcluded\t--keep id" in finished.stdout


def test_the_json_document_contains_every_number(table: Path) -> None:
    finished = rowcast("check", table, "--json", "--sensitive", "region", cwd=table.parent)

    document = json.loads(finished.stdout)
    columns = {column["name"]: column for column in document["columns"]}
    assert (document["table"], document["rows"], document["duplicates"]) == ("rows.csv", 60, 0)
    assert columns["price"]["missing"] == 45
    assert sum(columns["price"]["histogram"]["rows"]) == 15
    assert columns["region"] == {
        **columns["region"],
        "sensitive": True,
        "distinct": 2,
        "frequent": [],
        "examples": [],
    }
    assert "west" not in finished.stdout
    assert {finding["code"] for finding in document["findings"]} >= {"id", "mostly-missing"}


def test_the_profile_of_standard_input_is_printed(table: Path) -> None:
    finished = rowcast("check", "-", "--json", cwd=table.parent, given=table.read_bytes())

    assert json.loads(finished.stdout)["rows"] == 60


def test_with_a_target_the_columns_are_checked_against_it(table: Path) -> None:
    finished = rowcast("check", table, "--target", "region", "--json", cwd=table.parent)

    assert json.loads(finished.stdout)["target"] == "region"


@pytest.mark.parametrize(
    "arguments", [["--time", "day"], ["--positive", "west"], ["--map", "a=b"], ["--weight", "id"], ["--group", "id"]]
)
def test_an_option_that_requires_a_target_is_rejected_if_there_is_no_target(table: Path, arguments: list[str]) -> None:
    finished = rowcast("check", table, *arguments, cwd=table.parent)

    assert (finished.returncode, finished.stdout) == (2, "")
    assert f"{arguments[0]} requires --target" in finished.stderr


def test_the_heights_of_the_blocks_are_proportional_to_the_numbers() -> None:
    assert profile.blocks([0, 1, 40, 80]) == " ▁▄█"
    assert profile.blocks([]) == ""
