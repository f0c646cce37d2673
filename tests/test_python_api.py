"""The Python API: a loaded model returns the same predictions as the server."""

from __future__ import annotations

import inspect
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import msgspec
import polars as pl
import pytest

import rowcast
from rowcast.errors import InvalidRows, SettingsError
from rowcast.schema.schema import Schema
from rowcast.tables import examples
from rowcast.training.events import TrainingEvent
from rowcast.training.options import TrainingOptions
from support.commands import rowcast as rowcast_command
from support.waiting import eventually_async

OTHER_ARGUMENTS = {"data", "home", "target_file", "onnx_out", "engine", "progress"}
"""The arguments of `train` that are not training options."""


async def test_a_loaded_model_returns_the_same_predictions_as_the_server(
    app_home: Path, client: httpx.AsyncClient
) -> None:
    model = rowcast.load("loans", home=app_home)
    rows = [{**(await client.get("/sample")).json(), "credit_score": score} for score in (350, 600, 850)]

    replies = (await client.post("/models/loans/predict", json={"rows": rows})).json()["predictions"]

    scores = model.predict(rows)
    assert [(score.prediction, score.score) for score in scores] == [
        (reply["prediction"], reply["score"]) for reply in replies
    ]
    assert model.predict([]) == []


def test_predict_scores_a_file_like_the_predict_command(app_home: Path, tmp_path: Path) -> None:
    table = examples.write_example("loans", tmp_path / "loans.csv", rows=100)
    command = ("predict", "loans", table, "--out", "command.csv", "--columns", "purpose", "--home", app_home)
    assert rowcast_command(*command, cwd=tmp_path).returncode == 0

    model = rowcast.load("loans", home=app_home)
    options = {"columns": "purpose", "rejects": tmp_path / "rejects.csv", "jobs": 1, "home": app_home}
    summary = rowcast.predict(model, table, tmp_path / "api.csv", **options)

    assert (summary.model, summary.rows, summary.rejected) == ("loans", 100, 0)
    assert (tmp_path / "api.csv").read_bytes() == (tmp_path / "command.csv").read_bytes()


@pytest.mark.parametrize("function", [rowcast.predict, rowcast.train])
def test_an_unknown_engine_is_an_error(function: Callable[..., Any], tmp_path: Path) -> None:
    table = examples.write_example("loans", tmp_path / "loans.csv", rows=100)
    arguments = ("loans", table, tmp_path / "out.csv") if function is rowcast.predict else (table, "loan_status")

    with pytest.raises(SettingsError) as refused:
        function(*arguments, engine="spark")

    assert refused.value.slug == "unknown-engine"


async def test_every_invalid_row_is_reported(app_home: Path, client: httpx.AsyncClient) -> None:
    model = rowcast.load("loans", home=app_home)
    good = (await client.get("/sample")).json()

    with pytest.raises(InvalidRows) as rejected:
        model.predict([{**good, "loan_term": "long"}, good, {**good, "credit_score": float("nan")}])

    assert [(problem.row, problem.column) for problem in rejected.value.problems] == [
        (0, "loan_term"),
        (2, "credit_score"),
    ]


def test_the_arguments_of_train_are_the_training_options() -> None:
    parameters = inspect.signature(rowcast.train).parameters
    defaults = dict(
        zip(reversed(TrainingOptions.__struct_fields__), reversed(TrainingOptions.__struct_defaults__), strict=False)
    )

    assert parameters.keys() - defaults.keys() == OTHER_ARGUMENTS | {"target", "name"}
    assert {name: parameters[name].default for name in defaults} == defaults
    assert {parameter.kind for parameter in parameters.values()} <= {
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }


def test_a_model_that_is_trained_on_a_frame_predicts_the_same_frame(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    data = pl.DataFrame(
        {
            "id": [f"c{index}" for index in range(120)],
            "note": ["x"] * 120,
            "visits": [index % 7 for index in range(120)],
            "paid": [index % 2 == 0 for index in range(120)],
            "late": [int(index % 7 > 3) + int(index % 7 > 5) for index in range(120)],
        }
    )
    events: list[TrainingEvent] = []

    result = rowcast.train(
        data,
        target="late",
        name="visits",
        home=tmp_path,
        exclude="id",
        derive={"late rate": "visits / (paid + 1)"},
        map={2: 1},
        positive=0,
        candidates="logistic",
        trials=1,
        progress=events.append,
    )
    model = rowcast.load("visits", home=tmp_path)

    assert [event.stage for event in events][-1] == "publish"
    assert model.schema.names() == ["visits", "paid"]
    assert [column.definition for column in model.schema.derived] == ["`late rate` = visits / (paid + 1)"]
    assert model.classes == (0, 1)
    assert model._live.manifest.training.options["positive"] == "0"
    assert model.predict(data)["score"].to_list() == model.predict_proba(data)["0"].to_list()
    assert model.predict(data)["prediction"].to_list() == [score.prediction for score in model.predict(data.to_dicts())]
    assert model.predict_proba(data).columns == ["0", "1"]
    assert repr(model) == "<Model visits@1: binary, 2 columns>"
    assert repr(result).startswith("<TrainingResult visits@1: cross-validated ")
    assert "<td" in model._repr_html_()
    assert "parity" in result._repr_html_()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("progress", [False, True])
def test_the_progress_in_a_notebook_can_be_hidden(
    progress: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    data = {"visits": [index % 7 for index in range(60)], "late": [index % 7 > 3 for index in range(60)]}

    rowcast.train(data, "late", home=tmp_path, candidates="logistic", trials=1, progress=progress)

    assert ("publish" in capsys.readouterr().err) is progress


def test_html_summaries_escape_column_names(app_home: Path) -> None:
    live = rowcast.load("loans", home=app_home)._live
    columns = tuple(msgspec.structs.replace(column, name=f"<b>{column.name}") for column in live.schema.columns)
    live.schema = Schema(columns)

    assert "<b>" not in rowcast.Model(live)._repr_html_()


def test_dir_lists_the_public_names() -> None:
    assert dir(rowcast) == sorted(rowcast.__all__)


async def test_only_the_owner_can_read_recorded_rows(app_home: Path, client: httpx.AsyncClient) -> None:
    assert (await client.post("/predict", json=(await client.get("/sample")).json())).status_code == 200

    async def healthy() -> bool:  # heartbeats pause during tests that do not run the event loop
        checks = (await client.get("/health")).json()["checks"]
        has_store = (app_home / "history.db").exists()  # created by the indexer
        return has_store and bool(checks == {"history": "ok", "indexer": "ok", "disk": "ok", "processes": "ok"})

    await eventually_async(healthy)
    files = [app_home / "history.db", *(app_home / "journal").glob("*.journal")]

    assert len(files) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
