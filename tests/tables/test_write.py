"""Predictions beside their rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rowcast import tables
from rowcast.errors import TableError
from rowcast.schema.prediction import Decision
from rowcast.schema.scores import score_rows

FRAME = pl.DataFrame({"a": [" 1", "2 ", None]})
OUTPUT = np.array([[0.25, 0.75], [0.5, 0.5], [0.75, 0.25]], np.float32)


def test_a_binary_model_adds_label_probability_score_and_each_class() -> None:
    decision = Decision(task="binary", classes=("no", "yes"), positive=1, threshold=0.5)

    result = tables.with_predictions(FRAME, decision, OUTPUT)

    assert result.to_dict(as_series=False) == {
        "a": [" 1", "2 ", None],
        "prediction": ["yes", "yes", "no"],
        "probability": [0.75, 0.5, 0.75],
        "score": [0.75, 0.5, 0.25],
        "probability.no": [0.25, 0.5, 0.75],
        "probability.yes": [0.75, 0.5, 0.25],
    }


def test_predictions_equal_the_outcomes_of_the_decision() -> None:
    decision = Decision(task="multiclass", classes=(1, 2, 3))
    output = np.random.default_rng(0).dirichlet([1, 1, 1], 50).astype(np.float32)

    result = tables.with_predictions(pl.DataFrame({"x": range(50)}), decision, output)

    for row, outcome in zip(result.to_dicts(), score_rows(decision, output), strict=True):
        assert (row["prediction"], row["probability"]) == (outcome.prediction, outcome.probability)
        assert {name: row[f"probability.{name}"] for name in "123"} == outcome.probabilities
    assert "score" not in result.columns


def test_a_regression_model_adds_the_value_alone() -> None:
    result = tables.with_predictions(FRAME, Decision(task="regression"), np.array([1, 2.5, 3], np.float32))

    assert result.columns == ["a", "prediction"]
    assert result["prediction"].to_list() == [1.0, 2.5, 3.0]


def test_columns_are_never_overwritten() -> None:
    frame = pl.DataFrame({"prediction": [1]})

    with pytest.raises(TableError, match="already has columns named prediction"):
        tables.with_predictions(frame, Decision(task="regression"), np.zeros(1, np.float32))


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl", "arrow"])
def test_what_is_written_reads_back(tmp_path: Path, ending: str) -> None:
    frame = pl.DataFrame({"t": ["x", None], "n": [0.1, 2.5]})
    path = tmp_path / f"out.{ending}"

    tables.write(frame, path)

    cells = tables.read(path).frame.cast({"n": pl.Float64}).rows()
    assert cells == [("x", 0.1), (None, 2.5)]


def test_unknown_endings_and_folders_that_are_not_there_are_said(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="must end in"):
        tables.write(FRAME, tmp_path / "out.xlsx")
    with pytest.raises(TableError, match="cannot be written"):
        tables.write(FRAME, tmp_path / "none" / "out.csv")
