"""Rows in memory get the same scores as single rows, and the results have the same type as the input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from msgspec import UNSET
from msgspec.structs import replace

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.errors import InvalidRows, NoAnswer, RequestError, TableError
from rowcast.jobs import memory_scoring
from rowcast.jobs.memory_scoring import predict, predict_proba
from rowcast.registry.bundle import Output
from rowcast.registry.ports import Reference
from rowcast.registry.resolve import resolve
from rowcast.serving.live_models import LiveModel, load
from support import models

RESULTS = ["prediction", "probability", "score", "probability.Approved", "probability.Rejected"]


def load_model(home: Path, name: str) -> LiveModel:
    registry = FolderRegistry(home / "models")
    return load(resolve(name, registry), registry, open_graph)


@pytest.fixture(scope="module")
def loans(app_home: Path) -> LiveModel:
    return load_model(app_home, "loans")


@pytest.fixture(scope="module")
def rows(loans: LiveModel) -> list[dict[str, Any]]:
    return [{**loans.example(), "credit_score": score} for score in (350, 600, 850)]


def one_by_one(model: LiveModel, rows: list[dict[str, Any]]) -> list[Any]:
    return [model.score([model.encoder.parse(row)])[0] for row in rows]


def test_a_list_of_rows_returns_a_list_of_scores(loans: LiveModel, rows: list[dict[str, Any]]) -> None:
    assert predict(loans, rows) == predict(loans, tuple(rows)) == one_by_one(loans, rows)
    assert predict(loans, []) == []


def test_one_row_returns_one_score(loans: LiveModel, rows: list[dict[str, Any]]) -> None:
    assert predict(loans, rows[0]) == one_by_one(loans, rows)[0]


def test_a_polars_frame_returns_a_polars_frame(loans: LiveModel, rows: list[dict[str, Any]]) -> None:
    frame = predict(loans, pl.DataFrame(rows))

    assert isinstance(frame, pl.DataFrame)
    assert frame.columns == RESULTS
    assert frame["prediction"].to_list() == [score.prediction for score in one_by_one(loans, rows)]
    assert frame["score"].to_list() == [score.score for score in one_by_one(loans, rows)]
    assert predict(loans, pl.DataFrame(rows).clear()).shape == (0, 5)


def test_a_pandas_frame_returns_a_pandas_frame_with_the_same_index(
    loans: LiveModel, rows: list[dict[str, Any]]
) -> None:
    data = pd.DataFrame(rows, index=["a", "b", "c"])

    frame = predict(loans, data)
    probabilities = predict_proba(loans, data)

    assert type(frame) is pd.DataFrame
    assert list(frame.columns) == RESULTS
    assert list(frame.index) == ["a", "b", "c"] == list(probabilities.index)
    assert frame["score"].tolist() == [score.score for score in one_by_one(loans, rows)]
    assert list(probabilities.columns) == ["Approved", "Rejected"]
    assert predict(loans, data.iloc[:0]).shape == (0, 5)


def test_every_pandas_type_is_read(loans: LiveModel, rows: list[dict[str, Any]]) -> None:
    expected = predict(loans, [{**row, "commercial_assets": None} for row in rows])
    data = pd.DataFrame(rows).assign(commercial_assets=pd.array([pd.NA] * 3, "Int64"))
    data = data.astype({"education": "category", "loan_term": "Int64", "purpose": "string", "credit_score": "float32"})

    assert predict(loans, data)["score"].tolist() == [score.score for score in expected]
    with pytest.raises(TableError, match="several columns with the same name"):
        predict(loans, pd.concat([data, data], axis=1))


def test_a_mapping_of_columns_returns_a_mapping_of_columns(loans: LiveModel, rows: list[dict[str, Any]]) -> None:
    columns = {name: [row[name] for row in rows] for name in rows[0]}

    assert list(predict(loans, columns)) == RESULTS
    assert predict(loans, columns)["prediction"] == [score.prediction for score in one_by_one(loans, rows)]


def test_an_array_returns_an_array(loans: LiveModel, rows: list[dict[str, Any]]) -> None:
    array = np.array([[row[name] for name in loans.schema.names()] for row in rows], object)

    assert predict(loans, array).tolist() == [score.prediction for score in one_by_one(loans, rows)]
    assert predict_proba(loans, array).shape == (3, 2)
    assert predict_proba(loans, array).dtype == np.float64
    with pytest.raises(TableError, match="credit_score"):
        predict(loans, array[:, :2])


def test_the_path_of_a_table_returns_a_polars_frame(
    loans: LiveModel, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    pl.DataFrame(rows).write_csv(tmp_path / "new.csv")

    assert predict(loans, str(tmp_path / "new.csv")).equals(predict(loans, pl.DataFrame(rows)))


def test_values_are_read_as_in_training(loans: LiveModel, rows: list[dict[str, Any]]) -> None:
    [expected] = predict(loans, [{**rows[0], "commercial_assets": None}])
    texts = {name: str(value) for name, value in rows[0].items()}

    for missing in (math.nan, np.float64("nan"), "NA", ""):
        assert predict(loans, [{**texts, "commercial_assets": missing}]) == [expected]
    numbers = {name: np.array([value])[0] if type(value) is int else value for name, value in rows[0].items()}
    assert predict(loans, [{**numbers, "commercial_assets": None}]) == [expected]


def test_a_row_of_the_training_table_is_accepted_with_its_target(loans: LiveModel, rows: list[dict[str, Any]]) -> None:
    labelled = [{**row, "loan_status": "Approved", "loan_id": 7} for row in rows]

    assert predict(loans, labelled) == predict(loans, rows)
    without_optional = {name: value for name, value in labelled[0].items() if name != "commercial_assets"}
    assert predict(loans, without_optional) == predict(loans, {**rows[0], "commercial_assets": None})
    assert predict(loans, pl.DataFrame(labelled)).equals(predict(loans, pl.DataFrame(rows)))


def test_a_misspelled_column_is_reported(loans: LiveModel, rows: list[dict[str, Any]]) -> None:
    misspelled = {name.replace("commercial", "comercial"): value for name, value in rows[0].items()}

    with pytest.raises(InvalidRows) as rejected:
        predict(loans, [misspelled])
    assert [(problem.column, problem.row) for problem in rejected.value.problems] == [("comercial_assets", 0)]
    with pytest.raises(InvalidRows) as rejected:
        predict(loans, [misspelled, {**rows[0], "loan_term": "long"}])
    assert [problem.row for problem in rejected.value.problems] == [0, 1]
    with pytest.raises(InvalidRows) as rejected:
        predict(loans, [rows[0], {**misspelled, "loan_term": "long"}])

    found = [(problem.column, problem.code, problem.row) for problem in rejected.value.problems]
    assert found == [("loan_term", "wrong-type", 1), ("comercial_assets", "unknown-column", 1)]
    with pytest.raises(TableError, match="'comercial_assets' is the same column, rename it"):
        predict(loans, pl.DataFrame([misspelled]))


def test_the_problems_of_a_single_row_have_no_row_number(loans: LiveModel, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidRows, match=r"^column 'loan_term'"):
        predict(loans, {**rows[0], "loan_term": "long"})
    with pytest.raises(InvalidRows, match=r"^row 1, column 'loan_term'"):
        predict(loans, [rows[0], {**rows[0], "loan_term": "long"}])


def test_spaces_around_column_names_are_ignored_as_in_training(loans: LiveModel, rows: list[dict[str, Any]]) -> None:
    spaced = [{f" {name}\t": value for name, value in row.items()} for row in rows]

    assert predict(loans, spaced) == predict(loans, rows)
    assert predict(loans, pl.DataFrame(spaced)).equals(predict(loans, pl.DataFrame(rows)))


@pytest.mark.parametrize("data", [{}, {"education": "bachelor", "purpose": "home"}], ids=repr)
def test_a_mapping_of_cells_is_one_row(loans: LiveModel, data: Any) -> None:
    with pytest.raises(InvalidRows, match=r"^column 'annual_income': value is required"):
        predict(loans, data)


@pytest.mark.parametrize("data", [7, b"rows", None, {1, 2}], ids=repr)
def test_other_values_are_rejected(loans: LiveModel, data: Any) -> None:
    with pytest.raises(TableError, match=f"cannot read rows from {type(data).__name__}; expected a data frame"):
        predict(loans, data)


@pytest.mark.parametrize("data", [[1], ["a"], [{"a": 1}, None]], ids=repr)
def test_every_row_of_a_list_must_be_a_mapping(loans: LiveModel, data: Any) -> None:
    with pytest.raises(TableError, match="every row must be a mapping"):
        predict(loans, data)


def test_rows_without_a_finite_score_are_reported(app_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(app_home, "sum")
    names = model.schema.names()
    good, bad = (dict.fromkeys(names, value) for value in (1.0, 3e38))
    monkeypatch.setattr(memory_scoring, "ROWS_PER_RUN", 2)

    with pytest.raises(NoAnswer) as failed:
        predict(model, [good, bad, good, bad])
    assert failed.value.rows == [1, 3]
    with pytest.raises(NoAnswer) as failed:
        predict(model, pl.DataFrame([good, good, bad]))
    assert [problem.row for problem in failed.value.problems] == [2]
    with pytest.raises(NoAnswer) as failed:
        predict(model, bad)
    assert [problem.row for problem in failed.value.problems] == [UNSET]


def test_rows_on_which_the_graph_fails_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, schema = models.picking_graph(2), models.number_columns(1)
    model = models.live(tmp_path, "picks", graph, schema, models.REGRESSION, "values")
    good, bad = {"x0": 1}, {"x0": 7}
    monkeypatch.setattr(memory_scoring, "ROWS_PER_RUN", 2)

    assert [score.prediction for score in predict(model, [good] * 3)] == [1.0] * 3
    with pytest.raises(NoAnswer) as failed:
        predict(model, [good, bad, good, bad])
    assert failed.value.rows == [1, 3]


def test_a_model_that_returns_only_labels_has_no_class_probabilities(tmp_path: Path) -> None:
    graph, schema = models.picking_graph(2), models.number_columns(1)
    values = models.live(tmp_path, "picks", graph, schema, models.REGRESSION, "values")
    manifest = replace(values.manifest, decision=models.classes("a", "b"), output=Output("out", "labels"))
    model = LiveModel(Reference("picks", 1), manifest, open_graph(graph, "out"))

    assert predict(model, np.array([[0], [1]])).tolist() == ["a", "b"]
    assert predict(model, pl.DataFrame({"x0": [1, 0]})).to_dict(as_series=False) == {"prediction": ["b", "a"]}
    assert predict(model, pl.DataFrame({"x0": []})).shape == (0, 1)
    with pytest.raises(RequestError, match="returns only labels"):
        predict_proba(model, {"x0": 0})


def test_class_probabilities_are_returned_in_the_same_form_as_the_rows(
    loans: LiveModel, rows: list[dict[str, Any]]
) -> None:
    expected = [score.probabilities for score in one_by_one(loans, rows)]

    assert predict_proba(loans, rows) == expected
    assert predict_proba(loans, rows[0]) == expected[0]
    assert predict_proba(loans, pl.DataFrame(rows)).to_dicts() == expected


def test_a_regression_model_has_no_class_probabilities(app_home: Path) -> None:
    model = load_model(app_home, "sum")
    row = {column.name: 1.5 for column in model.schema.columns}

    assert predict(model, np.array([list(row.values())])).tolist() == [3.0]
    assert predict(model, row).prediction == 3.0
    with pytest.raises(RequestError, match="regression"):
        predict_proba(model, row)


def test_large_tables_are_scored_in_chunks(
    loans: LiveModel, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict(loans, rows)
    monkeypatch.setattr(memory_scoring, "ROWS_PER_RUN", 2)

    assert predict(loans, rows) == whole
