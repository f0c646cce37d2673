"""How the commands and the Python API find models to serve, load and train."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowcast import settings
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.app import models as app_models
from rowcast.errors import BundleError, ModelNotFound, SettingsError
from rowcast.registry import bundle
from rowcast.registry.ports import Reference
from support import models


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the model `sum`."""
    registry = FolderRegistry(tmp_path / "models")
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    return tmp_path


def test_every_model_in_the_settings_must_exist(home: Path, tmp_path: Path) -> None:
    assert app_models.has_models(settings.load(home=home))
    assert app_models.has_models(settings.load(home=home, models=["sum@1"]))
    assert not app_models.has_models(settings.load(home=home, models=["sum", "loans"]))
    assert not app_models.has_models(settings.load(home=tmp_path / "empty"))


def test_the_champion_of_every_model_is_served_by_default(home: Path) -> None:
    assert app_models.served(settings.load(home=home)) == [Reference("sum", 1)]


def test_training_is_rejected_if_the_settings_name_several_models(home: Path) -> None:
    assert app_models.name_to_train(settings.load(home=home, models=["loans@champion", "loans@2"])) == "loans"
    with pytest.raises(SettingsError):
        app_models.name_to_train(settings.load(home=home, models=["loans", "sum"]))


def test_a_model_is_loaded_only_if_it_has_the_requested_digest(home: Path) -> None:
    load = app_models.model_by_digest(settings.load(home=home))
    digest = bundle.read_manifest(home / "models" / "sum" / "1").digest

    assert load(Reference("sum", 1), digest).digest == digest
    with pytest.raises(ModelNotFound):
        load(Reference("sum", 1), "rb1-00")


def test_the_path_of_a_report_is_returned_if_the_report_exists(home: Path) -> None:
    loaded = settings.load(home=home)
    with pytest.raises(BundleError):
        app_models.report(loaded, "sum")

    path = home / "models" / "sum" / "1" / bundle.REPORT
    path.write_text("report")
    assert app_models.report(loaded, "sum") == (Reference("sum", 1), path)


def test_training_requires_a_target(home: Path) -> None:
    with pytest.raises(SettingsError):
        app_models.train(settings.load(home=home), {"a": [1, 2]})
