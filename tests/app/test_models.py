"""What commands and the Python API find out about published models."""

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


def test_a_server_needs_every_model_that_its_settings_name(home: Path, tmp_path: Path) -> None:
    assert app_models.has_models(settings.load(home=home))
    assert app_models.has_models(settings.load(home=home, models=["sum@1"]))
    assert not app_models.has_models(settings.load(home=home, models=["sum", "loans"]))
    assert not app_models.has_models(settings.load(home=tmp_path / "empty"))


def test_the_served_versions_are_those_of_the_settings(home: Path) -> None:
    assert app_models.served(settings.load(home=home)) == [Reference("sum", 1)]


def test_one_table_trains_one_model(home: Path) -> None:
    assert app_models.name_to_train(settings.load(home=home, models=["loans@champion", "loans@2"])) == "loans"
    with pytest.raises(SettingsError):
        app_models.name_to_train(settings.load(home=home, models=["loans", "sum"]))


def test_a_model_is_loaded_by_its_digest_or_not_at_all(home: Path) -> None:
    load = app_models.model_by_digest(settings.load(home=home))
    digest = bundle.read_manifest(home / "models" / "sum" / "1").digest

    assert load(Reference("sum", 1), digest).digest == digest
    with pytest.raises(ModelNotFound):
        load(Reference("sum", 1), "rb1-00")


def test_only_a_trained_model_has_a_report(home: Path) -> None:
    loaded = settings.load(home=home)
    with pytest.raises(BundleError):
        app_models.report(loaded, "sum")

    path = home / "models" / "sum" / "1" / bundle.REPORT
    path.write_text("report")
    assert app_models.report(loaded, "sum") == (Reference("sum", 1), path)


def test_training_needs_a_target(home: Path) -> None:
    with pytest.raises(SettingsError):
        app_models.train(settings.load(home=home), {"a": [1, 2]})
