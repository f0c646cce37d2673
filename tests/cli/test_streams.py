"""Tables on standard input and standard output."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from support import models
from support.commands import rowcast

ROWS = "x0,x1\n" + "1,2\n" * 3


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    registry = FolderRegistry(folder / "models")
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    return folder


def predict(home: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[str]:
    return rowcast("predict", "sum", *arguments, "--home", home, cwd=home, given=given)


@pytest.mark.parametrize(
    "given", [ROWS.encode(), gzip.compress(ROWS.encode()), b'{"x0": 1, "x1": 2}\n' * 3], ids=["csv", "gzip", "json"]
)
def test_a_table_can_be_piped_through_predict(home: Path, given: bytes) -> None:
    finished = predict(home, "-", "--out", "-", given=given)

    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "x0,x1,prediction\n" + "1,2,3.0\n" * 3
    assert "wrote standard output" in finished.stderr


def test_nothing_is_written_to_standard_output_if_a_row_is_invalid(home: Path) -> None:
    finished = predict(home, "-", "--out", "-", given=b"x0,x1\n1,2\nbad,3\n")

    assert (finished.returncode, finished.stdout) == (2, "")
    assert "x0" in finished.stderr


def test_the_json_summary_and_the_table_cannot_share_standard_output(home: Path) -> None:
    finished = predict(home, "-", "--out", "-", "--json", given=ROWS.encode())

    assert (finished.returncode, finished.stdout) == (2, "")
