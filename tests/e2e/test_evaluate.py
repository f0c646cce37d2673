"""`rowcast evaluate`: every kind of model can be evaluated on files, and every row is accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from onnx import helper
from sklearn import metrics as reference

from rowcast.tables import examples
from support import evaluation as tables
from support import onnx_graphs
from support.commands import rowcast

EXACT = {"rel": 0, "abs": 1e-9}


def evaluated(*arguments: str | Path, cwd: Path) -> Any:
    """Run `rowcast evaluate` with --json and return the parsed output."""
    finished = rowcast("evaluate", *arguments, "--json", cwd=cwd)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def predicted(model: str, table: Path, home: Path) -> pl.DataFrame:
    finished = rowcast("predict", model, table, "--out", home / "scored.parquet", "--home", home, cwd=home)
    assert finished.returncode == 0, finished.stderr
    return pl.read_parquet(home / "scored.parquet")


def test_a_multiclass_and_a_regression_model_are_evaluated_on_their_predictions(tmp_path: Path) -> None:
    tables.publish_classifier(tmp_path)
    tables.publish_sum(tmp_path)
    tables.labeled_rows(["a", "b", "c"]).write_csv(tmp_path / "flowers.csv")
    tables.labeled_rows(None).write_parquet(tmp_path / "sum.parquet")

    classes = evaluated("flowers", "flowers.csv", "--weight", "w", "--home", tmp_path, cwd=tmp_path)
    numbers = evaluated("sum@1", "sum.parquet", "--home", tmp_path, cwd=tmp_path)

    scored = predicted("flowers", tmp_path / "flowers.csv", tmp_path)
    w = scored["w"].cast(pl.Float64)
    accuracy = reference.accuracy_score(scored["y"], scored["prediction"], sample_weight=w)
    assert classes["metrics"]["accuracy"]["value"] == pytest.approx(accuracy, **EXACT)
    assert (classes["task"], classes["rows"], classes["weight"]) == ("multiclass", tables.ROWS, "w")
    scored = predicted("sum", tmp_path / "sum.parquet", tmp_path)
    error = reference.mean_absolute_error(scored["y"], scored["prediction"])
    assert numbers["metrics"]["mae"]["value"] == pytest.approx(error, **EXACT)


def test_rows_without_a_label_are_counted_and_an_invalid_row_stops_the_command(home: Path) -> None:
    table = pl.DataFrame(examples.loans(120, 5)).cast(pl.String)
    table[4, "loan_status"], table[9, "loan_status"] = None, "NA"
    table.write_csv(home / "gaps.csv")
    table[20, "loan_term"] = "long"
    table.write_csv(home / "wrong.csv")

    printed = rowcast("evaluate", "loans", "gaps.csv", "--home", home, cwd=home)
    stopped = rowcast("evaluate", "loans", "wrong.csv", "--home", home, cwd=home)
    rejected = evaluated("loans", "wrong.csv", "--rejects", "bad.jsonl", "--home", home, cwd=home)

    assert printed.returncode == 0
    assert printed.stdout.splitlines()[-2:] == [
        "measured loans@1 on 118 rows of gaps.csv",
        "2 of the 120 rows have no value in the column 'loan_status' and were not evaluated",
    ]
    assert printed.stdout.splitlines()[0].split("\t")[:4] == ["metric", "value", "95% interval", "holdout"]
    assert (stopped.returncode, stopped.stdout) == (2, "")
    assert stopped.stderr.startswith("error: line 22 (row 20), column 'loan_term': expected a number; ")
    assert "add --rejects FILE" in stopped.stderr
    assert (rejected["rows"], rejected["unlabeled"], rejected["rejected"]) == (117, 2, 1)
    rows = [json.loads(line)["rejected_row"] for line in (home / "bad.jsonl").read_text().splitlines()]
    assert rows == [4, 9, 20]


def test_an_unknown_label_is_an_error_that_says_what_to_do(home: Path) -> None:
    table = pl.DataFrame(examples.loans(60, 5))
    table[7, "loan_status"] = "approved?"
    table.write_csv(home / "rows.csv")

    wrong = rowcast("evaluate", "loans", "rows.csv", "--home", home, cwd=home)
    mapped = evaluated("loans", "rows.csv", "--map", "approved?=Approved", "--home", home, cwd=home)

    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "'approved?' (row 7)" in wrong.stderr
    assert "the option 'map'" in wrong.stderr
    assert mapped["rows"] == 60


@pytest.mark.parametrize("kind", ["probabilities", "labels"])
def test_an_imported_model_needs_the_name_of_its_target(tmp_path: Path, kind: str) -> None:
    nodes = [helper.make_node("ArgMax", ["s"], ["label"], axis=1, keepdims=0)]
    outputs = {"probabilities": ("p", onnx_graphs.FLOAT, ["N", 3]), "labels": ("label", onnx_graphs.INT, ["N"])}
    graph = onnx_graphs.classifier(3, *nodes, outputs=[outputs[kind]])
    (tmp_path / "net.onnx").write_bytes(graph)
    metadata = {"features": ["f0", "f1", "f2", "f3"], "class_names": ["a", "b", "c"]}
    (tmp_path / "meta.json").write_text(json.dumps(metadata))
    imported = rowcast("models", "import", "net.onnx", "--metadata", "meta.json", "--home", tmp_path, cwd=tmp_path)
    assert imported.returncode == 0, imported.stderr
    rng = np.random.default_rng(0)
    table = pl.DataFrame(rng.normal(size=(90, 4)), schema=metadata["features"])
    table.with_columns(species=rng.choice(["a", "b", "c"], 90)).write_csv(tmp_path / "rows.csv")

    unnamed = rowcast("evaluate", "net", "rows.csv", "--home", tmp_path, cwd=tmp_path)
    result = evaluated("net", "rows.csv", "--target", "species", "--report", "r.html", "--home", tmp_path, cwd=tmp_path)

    assert unnamed.returncode == 2
    assert "the option 'target'" in unnamed.stderr
    scored = predicted("net", tmp_path / "rows.csv", tmp_path)
    expected = {
        "accuracy": reference.accuracy_score(scored["species"], scored["prediction"]),
        "balanced_accuracy": reference.balanced_accuracy_score(scored["species"], scored["prediction"]),
        "f1": reference.f1_score(scored["species"], scored["prediction"], average="macro"),
    }
    assert {name: result["metrics"][name]["value"] for name in expected} == pytest.approx(expected, **EXACT)
    assert ("roc_auc" in result["metrics"], bool(result["calibration"])) == (kind == "probabilities",) * 2
    assert (result["holdout"], result["known_rows"]) == ({}, None)
    assert "Confusion matrix" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_model_can_be_evaluated_on_a_table_from_standard_input(home: Path) -> None:
    content = pl.DataFrame(examples.loans(60, 5)).write_csv().encode()

    finished = rowcast("evaluate", "loans", "-", "--json", "--home", home, cwd=home, given=content)

    assert json.loads(finished.stdout)["rows"] == 60


def test_predict_accepts_the_same_models(home: Path) -> None:
    pl.DataFrame(examples.loans(30, 5)).write_csv(home / "rows.csv")

    finished = rowcast(
        "predict", "./models/loans/1", "rows.csv", "--out", "out.csv", "--json", "--home", home, cwd=home
    )

    assert finished.returncode == 0, finished.stderr
    assert (json.loads(finished.stdout)["model"], json.loads(finished.stdout)["version"]) == ("loans", None)
