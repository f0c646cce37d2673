"""Derived columns, end to end: from the command line to the server's replies."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import numpy as np
import pytest

import rowcast
from rowcast.registry import bundle
from rowcast.schema.encoding import NUMBERS, TEXTS
from rowcast.schema.expressions import parse_definitions
from rowcast.tables.encode import encode_table
from rowcast.tables.read import read_table, table_from_memory
from rowcast.training import ensemble
from rowcast.training.options import TrainingOptions
from rowcast.training.presets import PRESETS
from rowcast.training.problem import build_problem
from rowcast.training.search import search
from support import servers
from support.commands import rowcast as run

DERIVE = (
    "burden = `loan amount` / annual_income",
    "age = decided - opened",
    "heavy = burden > 0.5",
)
OPTIONS: dict[str, Any] = {"candidates": ("logistic", "boosting"), "trials": 2, "derive": DERIVE}


def write_table(path: Path, rows: int = 500) -> None:
    """Write a table of loans whose status depends on the burden and on the days until the decision."""
    rng = np.random.default_rng(11)
    opened = np.datetime64("2020-01-01") + rng.integers(0, 900, rows)
    days = rng.integers(0, 60, rows)
    income, amount = rng.integers(0, 50, rows) * 1000, rng.integers(1, 40, rows) * 1000
    burden = amount / np.maximum(income, 1)
    with path.open("w", newline="") as file:
        write = csv.writer(file).writerow
        write(["loan amount", "annual_income", "opened", "decided", "purpose", "status"])
        for row in range(rows):
            bad = burden[row] > 0.5 + 0.02 * days[row] + 0.1 * rng.normal()
            missing = rng.random() < 0.05
            write(
                [
                    amount[row],
                    "" if missing else f"{income[row]:.1f}",
                    opened[row],
                    opened[row] + days[row],
                    rng.choice(["car", "home"]),
                    "bad" if bad else "good",
                ]
            )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a trained model; the table is in the same folder."""
    folder = tmp_path_factory.mktemp("derived")
    write_table(folder / "loans.csv")
    options = [text for definition in DERIVE for text in ("--derive", definition)]
    finished = run(
        *("train", "loans.csv", "--target", "status", "--candidates", "logistic,boosting", "--trials", "2", "--json"),
        *options,
        *("--home", folder),
        cwd=folder,
    )
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert [finding["column"] for finding in result["findings"] if finding["code"] == "derived"] == [
        "burden",
        "age",
        "heavy",
    ]
    assert result["parity"]["label_flips"] == 0
    return folder


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[httpx.Client]:
    with servers.running(home) as server, server.client() as http_client:
        yield http_client


ROW = {
    "loan amount": 9000,
    "annual_income": 12000,
    "opened": "2021-02-03",
    "decided": "2021-03-05",
    "purpose": "car",
}
ROWS: list[dict[str, Any]] = [
    ROW,
    {**ROW, "annual_income": 0},
    {**ROW, "annual_income": None},
    {**ROW, "annual_income": None, "loan amount": 0},
    {**ROW, "annual_income": 0, "loan amount": 0},
    {**ROW, "annual_income": 1e-40, "loan amount": 3e38},
    {**ROW, "decided": "1999-12-31"},
    {**ROW, "purpose": "never seen"},
]


def test_served_predictions_agree_with_the_trained_model_in_python(home: Path, client: httpx.Client) -> None:
    options = TrainingOptions(target="status", name="loans", **OPTIONS)
    problem = build_problem(read_table(home / "loans.csv"), options)
    result, setting = search(problem, options, lambda event: None)
    trained = ensemble.train_choice(problem, ensemble.choose(result, problem, "roc_auc", PRESETS["balanced"]), setting)
    table = table_from_memory({name: [row[name] for row in ROWS] for name in ROW})
    tensors = encode_table(table, problem.schema, problem.plan)

    expected = trained.predict(tensors[NUMBERS], tensors[TEXTS])[:, problem.positive]
    reply = client.post("/predict", json={"rows": ROWS})

    assert reply.status_code == 200, reply.text
    scores = [prediction["score"] for prediction in reply.json()["predictions"]]
    assert scores == pytest.approx(expected.tolist(), abs=1e-5)
    assert np.isnan(problem.derivation.append(tensors[NUMBERS])[1:6, -3]).all()
    model = rowcast.load("loans", home=home)
    assert [score.score for score in model.predict(ROWS)] == pytest.approx(scores, abs=1e-9)


def test_a_derived_column_is_shown_but_cannot_be_sent(home: Path, client: httpx.Client) -> None:
    shown = client.get("/models/loans").json()
    document = client.get("/openapi.json").json()
    refused = client.post("/predict", json={**ROW, "burden": 0.75})

    assert shown["derived"] == [
        {"name": "burden", "expression": "`loan amount` / annual_income"},
        {"name": "age", "expression": "decided - opened"},
        {"name": "heavy", "expression": "burden > 0.5"},
    ]
    assert [column["name"] for column in shown["columns"]] == list(ROW)
    row_schema = document["components"]["schemas"]["loans.row"]
    assert "age = decided - opened" in row_schema["description"]
    assert "burden" not in row_schema["properties"]
    assert jsonschema_rs.is_valid(
        {**document["components"]["schemas"]["ServedModel"], "components": document["components"]}, shown
    )
    assert refused.status_code == 422
    assert [(error["column"], error["code"]) for error in refused.json()["errors"]] == [("burden", "unknown-column")]


def test_a_derived_column_is_recorded_in_the_bundle_and_its_documents(home: Path) -> None:
    folder = home / "models" / "loans" / "1"
    manifest = bundle.verify(folder)
    schema = manifest.schema

    assert schema.derived == parse_definitions(DERIVE, type(schema)(schema.columns), {})
    for name, text in ((bundle.CARD, "decided - opened"), (bundle.REPORT, "decided - opened")):
        assert text in (folder / name).read_text(encoding="utf-8")
    shown = run("models", "show", "loans", "--home", home, cwd=home).stdout
    document = json.loads(run("models", "show", "loans", "--json", "--home", home, cwd=home).stdout)
    assert "burden\t`loan amount` / annual_income" in shown
    assert document["derived"][1] == {"name": "age", "expression": "decided - opened"}


def test_a_table_is_scored_and_replayed_like_single_rows(home: Path, client: httpx.Client) -> None:
    single = [client.post("/predict", json=row).json()["score"] for row in ROWS]
    with (home / "rows.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in ROWS)
    finished = run("predict", "loans", "rows.jsonl", "--out", "out.jsonl", "--home", home, cwd=home)
    assert finished.returncode == 0, finished.stderr
    scored = [json.loads(line)["score"] for line in (home / "out.jsonl").read_text().splitlines()]

    replay = json.loads(run("replay", "--json", "--home", home, cwd=home).stdout)
    assert scored == pytest.approx(single, abs=1e-7)
    assert (replay["equal"] >= len(ROWS), replay["different"], replay["not_replayable"]) == (True, 0, 0)
    assert all(math.isfinite(score) for score in single)


def test_an_exported_model_can_be_imported_with_its_derived_columns(home: Path, tmp_path: Path) -> None:
    archive = tmp_path / "loans.rowcast"
    exported = run("models", "export", "loans", "--out", archive, "--home", home, cwd=home)
    assert exported.returncode == 0, exported.stderr

    imported = run("models", "import", archive, "--name", "copy", "--home", home, cwd=home)

    assert imported.returncode == 0, imported.stderr
    folders = [home / "models" / name / "1" for name in ("loans", "copy")]
    original, copy = (bundle.verify(folder) for folder in folders)
    assert copy.schema.derived == original.schema.derived
    assert [score.score for score in rowcast.load("copy", home=home).predict(ROWS)] == [
        score.score for score in rowcast.load("loans", home=home).predict(ROWS)
    ]


def test_the_check_command_shows_derived_columns_and_explains_mistakes(home: Path) -> None:
    arguments = ("check", "loans.csv", "--target", "status")
    checked = run(*arguments, "--derive", "burden = `loan amount` / annual_income", cwd=home)
    refused = run(*arguments, "--derive", "burden = loan_amount / annual_incom", cwd=home)

    assert checked.returncode == 0, checked.stderr
    assert "burden\tderived number\tnumber, computed as `loan amount` / annual_income; missing in " in checked.stdout
    assert refused.returncode == 2
    assert "character 10: unknown column 'loan_amount'; did you mean 'loan amount'?" in refused.stderr
