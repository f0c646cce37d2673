"""`rowcast history`: errors for invalid options, and output for an empty history."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from rowcast import settings
from rowcast.cli import history
from rowcast.errors import HistoryError, NotFound, RequestError, TableError
from rowcast.history.entry_filter import Selection
from rowcast.history.replay import Replay

EVERYTHING = Selection()


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> settings.Settings:
    """Settings for an empty home."""
    monkeypatch.chdir(tmp_path)
    return settings.load(home=tmp_path / "home")


def test_the_error_for_an_invalid_time_names_the_option(loaded: settings.Settings) -> None:
    with pytest.raises(RequestError) as failed:
        history.purge(loaded, "last week", None, as_json=False)

    assert failed.value.slug == "bad-option"
    assert "--before 'last week'" in failed.value.message


@pytest.mark.parametrize(("entity", "ids"), [(None, []), ("e", ["i"]), ("", []), (None, ["unknown"])])
def test_an_erasure_requires_either_an_entity_or_valid_ids(
    loaded: settings.Settings, entity: str | None, ids: Sequence[str]
) -> None:
    with pytest.raises(RequestError):
        history.erase(loaded, entity, ids, as_json=False)


def test_an_export_to_an_unsupported_format_is_rejected(loaded: settings.Settings, tmp_path: Path) -> None:
    with pytest.raises(TableError):
        history.export(loaded, tmp_path / "history.xlsx", EVERYTHING, as_json=False)

    assert not (tmp_path / "history.xlsx").exists()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_an_empty_history_is_exported_to_a_file(
    loaded: settings.Settings, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    history.export(loaded, tmp_path / f"history.{suffix}", EVERYTHING, as_json=True)

    assert json.loads(capsys.readouterr().out)["entries"] == 0
    assert (tmp_path / f"history.{suffix}").exists()


def test_a_missing_heads_file_causes_an_error(loaded: settings.Settings, tmp_path: Path) -> None:
    with pytest.raises(HistoryError):
        history.verify_history(loaded, tmp_path / "missing.json", as_json=False)


def test_an_empty_history_passes_verification(loaded: settings.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert history.verify_history(loaded, None, as_json=False) == history.OK
    assert capsys.readouterr().out == "0 entries of 0 writers: all chains verified\n"


def test_listing_an_empty_history_returns_no_entries(
    loaded: settings.Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    history.list_history(loaded, EVERYTHING, limit=20, cursor=None, as_json=True)

    assert json.loads(capsys.readouterr().out) == {"predictions": [], "next": None}


@pytest.mark.parametrize(("filters", "hint"), [(EVERYTHING, "rowcast serve"), (Selection(model="m"), "filters")])
def test_an_empty_list_suggests_what_to_do(
    loaded: settings.Settings, filters: Selection, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    history.list_history(loaded, filters, limit=20, cursor=None, as_json=False)

    assert hint in capsys.readouterr().err


def test_showing_an_unknown_prediction_causes_an_error(loaded: settings.Settings) -> None:
    with pytest.raises(NotFound):
        history.show_prediction(loaded, "unknown", as_json=False)


def test_replay_prints_each_example_with_its_verdict_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    example = {"id": "i", "verdict": "different", "reason": "another label"}

    history.print_replay(Replay(entries=1, equal=0, borderline=0, different=1, not_replayable=0, examples=[example]))

    assert capsys.readouterr().out.splitlines()[-2:] == ["not replayable\t0", "i: different another label"]
