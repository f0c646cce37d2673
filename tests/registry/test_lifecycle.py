"""Promoting, rolling back and deleting versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.errors import BundleError, ModelNotFound, RegistryError
from rowcast.registry import lifecycle
from rowcast.registry.alias_log import AliasMove
from rowcast.registry.ports import Reference
from support import models


@pytest.fixture
def registry(tmp_path: Path) -> FolderRegistry:
    """A registry with three versions of a model; the last is the champion."""
    registry = FolderRegistry(tmp_path / "models")
    for _ in range(3):
        models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    return registry


def test_a_version_is_promoted_with_a_reason(registry: FolderRegistry) -> None:
    assert str(lifecycle.promote(registry, "sum@2", reason="an incident")) == "sum@2"

    assert registry.aliases("sum") == {"champion": 2}
    assert registry.log("sum")[-1].reason == "an incident"


def test_a_name_without_a_version_promotes_the_challenger(registry: FolderRegistry) -> None:
    with pytest.raises(ModelNotFound):
        lifecycle.promote(registry, "sum")

    lifecycle.promote(registry, "sum@1", alias="challenger")
    lifecycle.promote(registry, "sum")

    assert registry.aliases("sum") == {"champion": 1, "challenger": 1}


def test_a_damaged_version_is_not_promoted(registry: FolderRegistry) -> None:
    (registry.root / "sum" / "1" / "model.onnx").write_bytes(b"damaged")

    with pytest.raises(BundleError):
        lifecycle.promote(registry, "sum@1")

    assert registry.aliases("sum") == {"champion": 3}


def test_rollbacks_return_to_earlier_champions_one_by_one(registry: FolderRegistry) -> None:
    assert str(lifecycle.roll_back(registry, "sum", reason="errors")) == "sum@2"
    assert registry.log("sum")[-1].reason == "errors"
    assert str(lifecycle.roll_back(registry, "sum")) == "sum@1"

    with pytest.raises(RegistryError) as refused:
        lifecycle.roll_back(registry, "sum")
    assert refused.value.slug == "no-previous-champion"
    assert registry.aliases("sum") == {"champion": 1}


def test_a_model_without_a_champion_cannot_be_rolled_back(registry: FolderRegistry) -> None:
    registry.publish("other", lambda folder: (folder / "file").write_text("x") and None)

    with pytest.raises(ModelNotFound):
        lifecycle.roll_back(registry, "other")


@pytest.mark.parametrize("force", [True, False])
def test_a_version_is_deleted_only_if_no_alias_points_to_it(registry: FolderRegistry, force: bool) -> None:
    with pytest.raises(RegistryError) as refused:
        lifecycle.delete(registry, "sum@champion", is_recorded=lambda version: False, force=force)
    assert refused.value.slug == "version-in-use"

    lifecycle.delete(registry, "sum@1", is_recorded=lambda version: False, force=force)

    assert registry.models() == {"sum": [2, 3]}


def test_a_version_with_recorded_predictions_is_deleted_only_by_force(registry: FolderRegistry) -> None:
    with pytest.raises(RegistryError) as refused:
        lifecycle.delete(registry, "sum@2", is_recorded=lambda version: version.version == 2)
    assert refused.value.slug == "version-recorded"
    assert registry.models() == {"sum": [1, 2, 3]}

    lifecycle.delete(registry, "sum@2", is_recorded=lambda version: True, force=True)

    assert registry.models() == {"sum": [1, 3]}


def test_a_deletion_requires_a_version(registry: FolderRegistry) -> None:
    with pytest.raises(RegistryError):
        lifecycle.delete(registry, "sum", is_recorded=lambda version: False)


@pytest.mark.parametrize("reason", ["red \x1b[31m", "x" * 501, "\x00"])
def test_a_reason_that_a_terminal_cannot_show_is_rejected(registry: FolderRegistry, reason: str) -> None:
    for attempt in (
        lambda: lifecycle.promote(registry, "sum@1", reason=reason),
        lambda: lifecycle.roll_back(registry, "sum", reason=reason),
    ):
        with pytest.raises(RegistryError):
            attempt()

    assert registry.aliases("sum") == {"champion": 3}


def test_a_reason_is_logged_as_one_line(registry: FolderRegistry) -> None:
    lifecycle.promote(registry, "sum@1", reason="  worse\n\trecall " + "x" * 480)

    assert registry.log("sum")[-1].reason == "worse recall " + "x" * 480


def test_a_reason_has_at_most_five_hundred_characters(registry: FolderRegistry) -> None:
    lifecycle.promote(registry, "sum@1", reason="x" * 500)

    assert registry.log("sum")[-1].reason == "x" * 500


def test_a_damaged_version_is_not_restored(registry: FolderRegistry) -> None:
    (registry.root / "sum" / "2" / "model.onnx").write_bytes(b"damaged")

    with pytest.raises(BundleError):
        lifecycle.roll_back(registry, "sum")

    assert registry.aliases("sum") == {"champion": 3}


def test_only_rollbacks_are_logged_as_rollbacks(registry: FolderRegistry) -> None:
    lifecycle.promote(registry, "sum@1")
    lifecycle.roll_back(registry, "sum")

    assert [move.rollback for move in registry.log("sum")] == [False, False, False, False, True]


def test_the_error_for_deleting_a_version_in_use_names_its_alias_rather_than_its_predictions(
    registry: FolderRegistry,
) -> None:
    with pytest.raises(RegistryError) as refused:
        lifecycle.delete(registry, "sum@3", is_recorded=lambda version: True)

    assert refused.value.slug == "version-in-use"


def test_a_deletion_returns_the_version(registry: FolderRegistry) -> None:
    lifecycle.promote(registry, "sum@1", alias="old")
    lifecycle.promote(registry, "sum@2", alias="old")

    assert str(lifecycle.delete(registry, "sum@1", is_recorded=lambda version: False)) == "sum@1"


def test_a_champion_that_another_process_promotes_during_a_rollback_is_not_replaced(registry: FolderRegistry) -> None:
    class Racing(FolderRegistry):
        """A registry in which another process promotes a version while a rollback is being prepared."""

        def log(self, name: str) -> Sequence[AliasMove]:
            moves = super().log(name)
            registry.point(Reference(name, 1), "champion")
            return moves

    with pytest.raises(RegistryError) as refused:
        lifecycle.roll_back(Racing(registry.root), "sum")

    assert refused.value.slug == "alias-moved"
    assert registry.aliases("sum") == {"champion": 1}
