"""`rowcast serve --train-if-missing` trains a model only if the model does not exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowcast import settings
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.cli import first_model
from rowcast.errors import SettingsError, TrainingError
from support import models


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> settings.Settings:
    """Settings for a home without models."""
    monkeypatch.chdir(tmp_path)
    return settings.load(home=tmp_path / "home")


def test_no_model_is_trained_if_all_models_exist(empty: settings.Settings, tmp_path: Path) -> None:
    registry = FolderRegistry(empty.registry_folder)
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")

    first_model.ensure(empty, tmp_path / "missing.csv", None)

    assert dict(registry.models()) == {"sum": [1]}


def test_training_requires_a_target(empty: settings.Settings, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as failed:
        first_model.ensure(empty, tmp_path / "t.csv", None)

    assert "--target" in failed.value.message


def test_training_is_rejected_if_the_settings_name_two_models(empty: settings.Settings, tmp_path: Path) -> None:
    loaded = settings.load(home=empty.home, models=("a", "b"))

    with pytest.raises(SettingsError):
        first_model.ensure(loaded, tmp_path / "t.csv", "y")


def test_the_error_explains_why_training_failed(empty: settings.Settings, tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as failed:
        first_model.ensure(empty, tmp_path / "missing.csv", "y")

    assert failed.value.message.count("missing.csv") == 2
    assert "error: " not in failed.value.message
