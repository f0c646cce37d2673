"""`rowcast models promote`, `rollback` and `delete`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rowcast import settings
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.app import models as app_models
from rowcast.app.history import store
from rowcast.cli import lifecycle
from rowcast.errors import RegistryError
from support import models
from support.entries import draft, sealed
from support.journals import write_segment


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> settings.Settings:
    """Settings for a home with three versions of a model; the last is the champion."""
    monkeypatch.chdir(tmp_path)
    registry = FolderRegistry(tmp_path / "home" / "models")
    for _ in range(3):
        models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    return settings.load(home=tmp_path / "home")


def aliases(loaded: settings.Settings) -> dict[str, int]:
    return dict(app_models.registry(loaded).aliases("sum"))


def test_a_promotion_and_a_rollback_are_recorded_with_the_user(
    loaded: settings.Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    lifecycle.promote(loaded, "sum@1", alias="champion", reason="an incident", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"model": "sum", "version": 1, "alias": "champion"}
    assert aliases(loaded) == {"champion": 1}

    lifecycle.roll_back(loaded, "sum", reason="mended", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"model": "sum", "version": 3, "alias": "champion"}
    assert aliases(loaded) == {"champion": 3}

    moves = app_models.registry(loaded).log("sum")[-2:]
    assert [(move.source, move.target, move.reason) for move in moves] == [(3, 1, "an incident"), (1, 3, "mended")]
    assert {move.who for move in moves} == {app_models.current_user()}


def test_another_alias_can_be_moved(loaded: settings.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    lifecycle.promote(loaded, "sum@1", alias="older", reason="", as_json=False)

    assert aliases(loaded) == {"champion": 3, "older": 1}
    assert capsys.readouterr().err == "the alias older now points to sum@1\n"


def test_an_unused_version_is_deleted(loaded: settings.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    lifecycle.delete(loaded, "sum@2", force=False, as_json=True)

    assert json.loads(capsys.readouterr().out) == {"model": "sum", "version": 2}
    assert app_models.registry(loaded).models() == {"sum": [1, 3]}


@pytest.mark.parametrize("place", ["store", "journal"])
def test_a_version_named_in_the_history_is_deleted_only_by_force(loaded: settings.Settings, place: str) -> None:
    entries = [draft(0, "sum", version=2), draft(1, "other", version=1), draft(2, "sum", version=3)]
    if place == "store":
        with store(loaded) as opened:
            opened.record("w", sealed("w", entries))
    else:
        write_segment(loaded.journal_folder, entries)

    with pytest.raises(RegistryError) as refused:
        lifecycle.delete(loaded, "sum@2", force=False, as_json=True)
    assert refused.value.slug == "version-recorded"
    lifecycle.delete(loaded, "sum@1", force=False, as_json=True)
    lifecycle.delete(loaded, "sum@2", force=True, as_json=True)

    assert app_models.registry(loaded).models() == {"sum": [3]}


def test_a_process_without_a_user_name_is_recorded_with_its_user_id(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 3_999_999_999)

    assert app_models.current_user().startswith("uid 3999999999@")
