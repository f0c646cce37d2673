"""`rowcast models list`, `rowcast models show`, `rowcast report` and the output of `rowcast models import`."""

from __future__ import annotations

import json
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from rowcast import settings
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.cli import inspection
from rowcast.errors import RowcastError, SettingsError
from rowcast.registry.importer import ImportedModel
from support import models


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> settings.Settings:
    """Settings for a home with two versions of a model."""
    monkeypatch.chdir(tmp_path)
    registry = FolderRegistry(tmp_path / "home" / "models")
    for _ in range(2):
        models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    return settings.load(home=tmp_path / "home")


def test_every_version_is_listed_with_its_aliases(
    loaded: settings.Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    inspection.list_models(loaded, as_json=True)

    listed = json.loads(capsys.readouterr().out)["models"]
    assert [(model["model"], model["version"], model["aliases"]) for model in listed] == [
        ("sum", 1, []),
        ("sum", 2, ["champion"]),
    ]


def test_a_version_is_shown_with_the_log_of_its_model(
    loaded: settings.Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    inspection.show_model(loaded, "sum@1", as_json=True)
    shown = json.loads(capsys.readouterr().out)
    inspection.show_model(loaded, "sum@1", as_json=False)
    text = capsys.readouterr().out

    assert (shown["model"], shown["version"], shown["aliases"]) == ("sum", 1, [])
    assert [column["name"] for column in shown["columns"]] == ["x0", "x1"]
    assert [(move["from"], move["to"]) for move in shown["log"]] == [(None, 1), (1, 2)]
    assert shown["digest"].startswith("rb1-")
    assert {"model.onnx", "golden.json"} <= shown["files"].keys()
    for part in (shown["digest"], shown["path"], shown["files"]["model.onnx"], "x1\tnumber"):
        assert part in text


def test_values_of_sensitive_columns_are_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = models.number_columns(1, sensitive=True, low=17.25, high=99.5)
    registry = FolderRegistry(tmp_path / "home" / "models")
    models.publish(registry, "sum", models.sum_graph(1), columns, models.REGRESSION, "values")

    inspection.show_model(settings.load(home=tmp_path / "home"), "sum", as_json=True)

    assert not {"17.25", "99.5"} & set(re.findall(r"[\d.]+", capsys.readouterr().out))


def test_an_empty_registry_suggests_training_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspection.list_models(settings.load(home=tmp_path / "empty"), as_json=False)

    assert "rowcast train" in capsys.readouterr().err


@pytest.mark.parametrize("succeeds", [True, False])
def test_a_report_is_opened_as_a_file_url(loaded: settings.Settings, succeeds: bool) -> None:
    report = loaded.registry_folder / "sum" / "1" / "report.html"
    report.write_text("a report")
    opened: list[str] = []

    def open_page(url: str) -> bool:
        opened.append(url)
        return succeeds

    context: AbstractContextManager[object] = nullcontext() if succeeds else pytest.raises(RowcastError)
    with context:
        inspection.show_report(loaded, "sum@1", None, as_json=True, open_page=open_page)

    assert opened == [report.absolute().as_uri()]


def test_a_report_does_not_overwrite_a_file_of_the_bundle(loaded: settings.Settings) -> None:
    folder = loaded.registry_folder / "sum" / "1"
    (folder / "report.html").write_text("a report")
    graph = (folder / "model.onnx").read_bytes()

    for name in ("report.html", "model.onnx"):
        with pytest.raises(SettingsError):
            inspection.show_report(loaded, "sum@1", folder / name, as_json=True)

    assert (folder / "model.onnx").read_bytes() == graph
    assert (folder / "report.html").read_text() == "a report"


def test_showing_a_missing_report_causes_an_error(loaded: settings.Settings) -> None:
    with pytest.raises(RowcastError) as failed:
        inspection.show_report(loaded, "sum@1", None, as_json=True)

    assert failed.value.slug == "bundle"


def test_only_the_first_columns_of_an_imported_model_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    imported = ImportedModel(
        model="wide",
        version=1,
        digest="d",
        path="/models/wide/1",
        task="binary",
        columns=[f"x{number}" for number in range(14)],
        notes=["a note"],
    )

    inspection.show_import(imported, as_json=False)

    note, columns, published = capsys.readouterr().out.splitlines()
    assert note == "a note"
    assert columns.endswith("x11 and 2 more")
    assert "wide@1" in published
