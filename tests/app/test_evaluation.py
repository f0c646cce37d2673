"""`rowcast.evaluate` returns the same metrics as scikit-learn for the scores of the published model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn import metrics as reference

import rowcast
from rowcast.errors import BundleError, InvalidRows, ModelNotFound, RowcastError, SettingsError, TableError
from rowcast.tables import examples
from rowcast.tables.read import read_table
from rowcast.training import table_evaluation
from support import evaluation as tables
from support import models

EXACT = {"rel": 0, "abs": 1e-9}


@pytest.fixture
def new_loans() -> pl.DataFrame:
    """Loan applications and their outcomes; none of them are in the training data."""
    return pl.DataFrame(examples.loans(400, 77))


def values(result: Any) -> dict[str, float]:
    return {name: measure.value for name, measure in result.metrics.items() if name != "calibration_error"}


@pytest.mark.parametrize("weight", [None, "credit_score"])
def test_the_metrics_of_a_binary_model_agree_with_scikit_learn(
    app_home: Path, new_loans: pl.DataFrame, weight: str | None
) -> None:
    result = rowcast.evaluate("loans", new_loans, home=app_home, weight=weight)

    model = rowcast.load("loans", home=app_home)
    scores = model.predict(new_loans)
    w = None if weight is None else new_loans[weight].to_numpy()
    positive = np.array([label == result.positive for label in new_loans["loan_status"]])
    p, predicted = scores["score"].to_numpy(), (scores["prediction"] == result.positive).to_numpy()
    assert values(result) == pytest.approx(
        {
            "accuracy": reference.accuracy_score(positive, predicted, sample_weight=w),
            "f1": reference.f1_score(positive, predicted, sample_weight=w),
            "roc_auc": reference.roc_auc_score(positive, p, sample_weight=w),
            "pr_auc": reference.average_precision_score(positive, p, sample_weight=w),
            "log_loss": reference.log_loss(positive, p, sample_weight=w),
            "brier": reference.brier_score_loss(positive, p, sample_weight=w),
        },
        **EXACT,
    )
    expected = reference.confusion_matrix(new_loans["loan_status"], scores["prediction"], labels=list(model.classes))
    assert result.confusion is not None
    assert result.confusion.counts == expected.tolist()
    assert all(measure.low < measure.value < measure.high for measure in result.metrics.values())
    assert sum(each.rows for each in result.calibration) == result.rows == 400


@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")  # they are float32 values
@pytest.mark.parametrize("weight", [None, "w"])
def test_the_metrics_of_a_multiclass_model_agree_with_scikit_learn(tmp_path: Path, weight: str | None) -> None:
    tables.publish_classifier(tmp_path)
    table = tables.labeled_rows(["a", "b", "c"])

    result = rowcast.evaluate("flowers", table, home=tmp_path, weight=weight)

    model = rowcast.load("flowers", home=tmp_path)
    w = None if weight is None else table[weight].to_numpy()
    true, predicted = table["y"].to_list(), model.predict(table)["prediction"].to_list()
    p = model.predict_proba(table).to_numpy()
    aucs = [reference.roc_auc_score(table["y"] == name, p[:, k], sample_weight=w) for k, name in enumerate("abc")]
    assert values(result) == pytest.approx(
        {
            "accuracy": reference.accuracy_score(true, predicted, sample_weight=w),
            "balanced_accuracy": reference.balanced_accuracy_score(true, predicted, sample_weight=w),
            "f1": reference.f1_score(true, predicted, average="macro", sample_weight=w),
            "roc_auc": np.mean(aucs),
            "log_loss": reference.log_loss(true, p, sample_weight=w),
            "brier": reference.brier_score_loss(true, p, sample_weight=w, labels=list("abc"), scale_by_half=False),
        },
        **EXACT,
    )


@pytest.mark.parametrize("weight", [None, "w"])
def test_the_metrics_of_a_regression_model_agree_with_scikit_learn(tmp_path: Path, weight: str | None) -> None:
    tables.publish_sum(tmp_path)
    table = tables.labeled_rows(None)

    result = rowcast.evaluate("sum", table, home=tmp_path, weight=weight)

    predicted = rowcast.load("sum", home=tmp_path).predict(table)["prediction"].to_numpy()
    w = None if weight is None else table[weight].to_numpy()
    assert values(result) == pytest.approx(
        {
            "rmse": reference.root_mean_squared_error(table["y"], predicted, sample_weight=w),
            "mae": reference.mean_absolute_error(table["y"], predicted, sample_weight=w),
            "r2": reference.r2_score(table["y"], predicted, sample_weight=w),
        },
        **EXACT,
    )
    assert (result.confusion, result.calibration, result.positive, result.threshold) == (None, (), None, None)


def test_groups_widen_the_intervals_and_do_not_change_the_values(tmp_path: Path) -> None:
    tables.publish_sum(tmp_path)
    table = tables.labeled_rows(None).with_columns(y=pl.col("x0") + pl.col("x1") + pl.col("g").hash(0) % 7)

    alone, grouped = (rowcast.evaluate("sum", table, home=tmp_path, group=group) for group in (None, "g"))

    widths = [result.metrics["mae"].high - result.metrics["mae"].low for result in (alone, grouped)]
    assert values(alone) == values(grouped)
    assert widths[1] > 1.5 * widths[0]


def test_the_metrics_are_compared_with_those_on_the_holdout(app_home: Path, new_loans: pl.DataFrame) -> None:
    shuffled = new_loans.with_columns(pl.col("loan_status").reverse())

    same, worse = (rowcast.evaluate("loans", table, home=app_home) for table in (new_loans, shuffled))

    holdout = rowcast.load("loans", home=app_home)._live.manifest.holdout
    assert same.holdout.keys() == same.metrics.keys() == holdout.keys()
    for name, each in same.holdout.items():
        assert each.holdout == holdout[name].value
        assert each.difference.value == pytest.approx(same.metrics[name].value - each.holdout)
        assert each.difference.low < each.difference.value < each.difference.high
    assert same.holdout["roc_auc"].verdict == "within the interval"
    assert {worse.holdout[name].verdict for name in ("roc_auc", "accuracy", "log_loss", "brier")} == {"worse"}


@pytest.mark.parametrize(
    ("metric", "value", "verdict"),
    [("accuracy", 0.9, "better"), ("accuracy", 0.7, "worse"), ("rmse", 0.9, "worse"), ("rmse", 0.7, "better")],
)
def test_a_value_is_better_or_worse_only_if_the_difference_exceeds_both_intervals(
    metric: str, value: float, verdict: str
) -> None:
    def measure(center: float, half: float) -> Any:
        return models.bundle.Measure(center, center - half, center + half)

    near, far = (table_evaluation._compare(metric, measure(value, half), measure(0.8, half)) for half in (0.08, 0.06))

    assert near.verdict == "within the interval"
    assert far.verdict == verdict


def test_rows_that_the_model_was_trained_on_are_counted(app_home: Path, new_loans: pl.DataFrame) -> None:
    known = pl.DataFrame(examples.loans(models.LOAN_ROWS))

    trained, new = (rowcast.evaluate("loans", table, home=app_home) for table in (known, new_loans))

    assert trained.known_rows is not None
    assert trained.known_rows.trained_on == 0.8 * models.LOAN_ROWS
    assert any("too optimistic" in remark for remark in trained.remarks())
    assert new.known_rows is not None
    assert new.known_rows.trained_on == 0
    assert new.remarks() == []


def test_only_a_sample_of_a_large_table_is_compared_with_the_training_rows(
    app_home: Path, new_loans: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_evaluation, "SAMPLE_ROWS", 50)

    result = rowcast.evaluate("loans", new_loans, home=app_home, report=tmp_path / "report.html")

    assert result.known_rows is not None
    assert (result.rows, result.known_rows.examined) == (400, 50)
    assert "A random sample of 50 rows is searched" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_rows_without_a_true_value_or_weight_are_counted_and_written_with_reasons(tmp_path: Path) -> None:
    tables.publish_sum(tmp_path)
    table = tables.labeled_rows(None).with_columns(pl.col("y", "w").cast(pl.String))
    table[3, "y"], table[7, "w"], table[9, "x0"] = "NA", "0", None
    table.write_csv(tmp_path / "rows.csv")

    result = rowcast.evaluate("sum", tmp_path / "rows.csv", home=tmp_path, weight="w", rejects=tmp_path / "rejects.csv")

    assert (result.rows, result.unlabeled, result.weightless, result.rejected) == (tables.ROWS - 3, 1, 1, 1)
    rejects = read_table(tmp_path / "rejects.csv").frame
    assert rejects["rejected_row"].to_list() == ["3", "7", "9"]
    assert rejects["rejected_column"].to_list() == ["y", "w", "x0"]
    assert [remark.partition(" ")[0] for remark in result.remarks()] == ["1", "1", "1"]


def test_a_row_that_cannot_be_scored_is_an_error_without_a_file_for_rejected_rows(tmp_path: Path) -> None:
    tables.publish_sum(tmp_path)
    table = tables.labeled_rows(None)
    table[9, "x0"] = None

    with pytest.raises(InvalidRows) as caught:
        rowcast.evaluate("sum", table, home=tmp_path)

    assert [(problem.row, problem.column) for problem in caught.value.problems] == [(9, "x0")]


def test_true_values_can_be_in_a_separate_file(tmp_path: Path) -> None:
    tables.publish_sum(tmp_path)
    table = tables.labeled_rows(None)
    table.select("x0", "x1").write_csv(tmp_path / "rows.csv")
    table.select(true="y").write_csv(tmp_path / "labels.csv")
    table.select("g", "y").head(5).write_csv(tmp_path / "short.csv")

    result = rowcast.evaluate("sum", tmp_path / "rows.csv", home=tmp_path, target_file=tmp_path / "labels.csv")

    assert values(result) == values(rowcast.evaluate("sum", table, home=tmp_path))
    assert result.target == "true"
    with pytest.raises(TableError) as caught:
        rowcast.evaluate("sum", tmp_path / "rows.csv", home=tmp_path, target_file=tmp_path / "short.csv")
    assert caught.value.slug == "row-count"


def test_labels_can_be_renamed(tmp_path: Path) -> None:
    tables.publish_classifier(tmp_path)
    table = tables.labeled_rows(["a", "b", "c"])
    renamed = table.with_columns(pl.col("y").replace("c", "see"))

    with pytest.raises(TableError) as caught:
        rowcast.evaluate("flowers", renamed, home=tmp_path)
    result = rowcast.evaluate("flowers", renamed, home=tmp_path, map={"see": "c"})

    assert caught.value.slug == "unknown-label"
    assert values(result) == values(rowcast.evaluate("flowers", table, home=tmp_path))


@pytest.mark.parametrize(
    ("arguments", "slug"),
    [
        ({"target": "z"}, "unknown-column"),
        ({"weight": "z"}, "unknown-column"),
        ({"target": "empty"}, "empty-target"),
        ({"target": "x0"}, "unknown-label"),
        ({"weight": "y"}, "not-a-number"),
    ],
)
def test_a_column_that_cannot_be_used_is_an_error(tmp_path: Path, arguments: dict[str, str], slug: str) -> None:
    tables.publish_classifier(tmp_path)
    table = tables.labeled_rows(["a", "b", "c"]).with_columns(empty=pl.lit(None, pl.String))

    with pytest.raises(TableError) as caught:
        rowcast.evaluate("flowers", table, home=tmp_path, **arguments)

    assert caught.value.slug == slug


@pytest.mark.parametrize("suffix", [".rowcast", ""])
def test_a_model_can_be_an_archive_or_a_folder(
    app_home: Path, new_loans: pl.DataFrame, tmp_path: Path, suffix: str
) -> None:
    from rowcast.app import imports
    from rowcast.settings import load

    path = app_home / "models" / "loans" / "1"
    if suffix:
        path = tmp_path / "loans.rowcast"
        imports.export_model(load(home=app_home), "loans", path)

    result = rowcast.evaluate(path, new_loans, home=tmp_path)

    assert values(result) == values(rowcast.evaluate("loans", new_loans, home=app_home))
    assert (result.model, result.version, result.reference) == ("loans", None, "loans")


def test_a_damaged_folder_is_an_error(tmp_path: Path, new_loans: pl.DataFrame) -> None:
    with pytest.raises(BundleError) as caught:
        rowcast.evaluate(tmp_path, new_loans, home=tmp_path)

    assert caught.value.slug == "not-a-bundle"


def test_a_loaded_model_can_be_evaluated(app_home: Path, new_loans: pl.DataFrame, tmp_path: Path) -> None:
    model = rowcast.load("loans", home=app_home)
    other = tmp_path / "other"
    tables.publish_classifier(other, "loans")

    result = rowcast.evaluate(model, new_loans, home=app_home)

    assert (result.reference, result.digest) == ("loans@1", model.digest)
    with pytest.raises(ModelNotFound):
        rowcast.evaluate(model, tables.labeled_rows(["a", "b", "c"]), home=other)


def test_the_report_shows_every_metric_and_is_written_only_if_the_evaluation_succeeds(
    app_home: Path, new_loans: pl.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"

    result = rowcast.evaluate("loans", new_loans, home=app_home, report=path)
    with pytest.raises(TableError):
        rowcast.evaluate("loans", new_loans.drop("loan_status"), home=app_home, report=tmp_path / "failed.html")

    page = path.read_text(encoding="utf-8")
    for text in ("loans@1", "400 rows", "Comparison with the holdout", "ROC curve", "Confusion matrix", "within the"):
        assert text in page
    assert result.report == str(path)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_the_report_of_any_task_is_complete(tmp_path: Path) -> None:
    tables.publish_sum(tmp_path)
    tables.publish_classifier(tmp_path)
    pages = []
    for name, targets in (("sum", None), ("flowers", ["a", "b", "c"])):
        path = tmp_path / f"{name}.html"
        rowcast.evaluate(name, tables.labeled_rows(targets), home=tmp_path, report=path)
        pages.append(path.read_text(encoding="utf-8"))

    assert all(text in pages[0] for text in ("Residuals", "RMSE", "mean absolute error"))
    assert all(text in pages[1] for text in ("Quality by class", "Confusion matrix", "share of wrong labels"))
    assert not any("Comparison with the holdout" in page for page in pages)


@pytest.mark.parametrize(("option", "name"), [("report", "rows.html"), ("rejects", "rows.csv")])
def test_no_input_file_is_overwritten(tmp_path: Path, option: str, name: str) -> None:
    tables.publish_sum(tmp_path)
    source = tmp_path / name
    tables.labeled_rows(None).write_csv(source)
    before = source.read_bytes()

    with pytest.raises(SettingsError) as caught:
        rowcast.evaluate("sum", source, home=tmp_path, **{option: source})

    assert caught.value.slug == "same-file"
    assert source.read_bytes() == before


def test_a_report_must_be_an_html_file_in_an_existing_folder(tmp_path: Path) -> None:
    tables.publish_sum(tmp_path)
    slugs = []
    for name in ("report.pdf", "none/report.html"):
        with pytest.raises(RowcastError) as caught:
            rowcast.evaluate("sum", tables.labeled_rows(None), home=tmp_path, report=tmp_path / name)
        slugs.append(caught.value.slug)

    assert slugs == ["unknown-extension", "not-writable"]


def test_a_result_has_a_summary_for_notebooks(app_home: Path, new_loans: pl.DataFrame) -> None:
    result = rowcast.evaluate("loans", new_loans, home=app_home)

    assert repr(result).startswith("<Evaluation of loans@1 on 400 rows: accuracy 0.")
    assert "holdout 0." in result._repr_html_()
