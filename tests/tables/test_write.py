"""Writing tables with predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rowcast.errors import TableError
from rowcast.schema.prediction import Decision
from rowcast.schema.scores import score_rows
from rowcast.tables.read import read_table
from rowcast.tables.write import open_writer, with_predictions
from support.tables import write_table

FRAME = pl.DataFrame({"a": [" 1", "2 ", None]})
OUTPUT = np.array([[0.25, 0.75], [0.5, 0.5], [0.75, 0.25]], np.float32)


def test_predictions_scores_and_probabilities_are_added_for_a_binary_model() -> None:
    decision = Decision(task="binary", classes=("no", "yes"), positive=1, threshold=0.5)

    result = with_predictions(FRAME, decision, OUTPUT)

    assert result.to_dict(as_series=False) == {
        "a": [" 1", "2 ", None],
        "prediction": ["yes", "yes", "no"],
        "probability": [0.75, 0.5, 0.75],
        "score": [0.75, 0.5, 0.25],
        "probability.no": [0.25, 0.5, 0.75],
        "probability.yes": [0.75, 0.5, 0.25],
    }


def test_predictions_for_a_table_equal_the_predictions_for_its_rows() -> None:
    decision = Decision(task="multiclass", classes=(1, 2, 3))
    output = np.random.default_rng(0).dirichlet([1, 1, 1], 50).astype(np.float32)

    result = with_predictions(pl.DataFrame({"x": range(50)}), decision, output)

    for row, score in zip(result.to_dicts(), score_rows(decision, output), strict=True):
        assert (row["prediction"], row["probability"]) == (score.prediction, score.probability)
        assert {name: row[f"probability.{name}"] for name in "123"} == score.probabilities
    assert "score" not in result.columns


def test_only_the_predicted_value_is_added_for_a_regression_model() -> None:
    result = with_predictions(FRAME, Decision(task="regression"), np.array([1, 2.5, 3], np.float32))

    assert result.columns == ["a", "prediction"]
    assert result["prediction"].to_list() == [1.0, 2.5, 3.0]


def test_only_the_label_is_added_for_a_model_without_probabilities() -> None:
    decision = Decision(task="binary", classes=("no", "yes"))

    result = with_predictions(FRAME, decision, np.array([1.0, 0.0, 1.0]))

    assert result.columns == ["a", "prediction"]
    assert result["prediction"].to_list() == ["yes", "no", "yes"]


def test_existing_columns_are_never_overwritten() -> None:
    frame = pl.DataFrame({"prediction": [1]})

    with pytest.raises(TableError) as caught:
        with_predictions(frame, Decision(task="regression"), np.zeros(1, np.float32))

    assert caught.value.slug == "duplicate-column"


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl", "arrow"])
def test_a_written_table_can_be_read_back(tmp_path: Path, ending: str) -> None:
    frame = pl.DataFrame({"t": ["x", None], "n": [0.1, 2.5]})
    path = tmp_path / f"out.{ending}"

    write_table(frame, path)

    cells = read_table(path).frame.cast({"n": pl.Float64}).rows()
    assert cells == [("x", 0.1), (None, 2.5)]


def test_an_unknown_extension_or_a_missing_folder_is_rejected(tmp_path: Path) -> None:
    paths = {tmp_path / "out.xlsx": "unknown-extension"} | {
        tmp_path / "none" / f"out.{ending}": "not-writable" for ending in ("csv", "parquet")
    }
    for path, slug in paths.items():
        with pytest.raises(TableError) as caught:
            write_table(FRAME, path)
        assert caught.value.slug == slug


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_is_created_only_if_writing_succeeds(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out.{ending}"

    def fail_while_writing() -> None:
        with open_writer(path) as writer:
            writer.append(writer.prepare(FRAME, first=True))
            raise KeyError

    with pytest.raises(KeyError):
        fail_while_writing()

    assert list(tmp_path.iterdir()) == []
