"""References are resolved to published versions, and each reference is served under one name."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.errors import ModelNotFound, RegistryError
from rowcast.registry.ports import Reference
from rowcast.registry.resolve import addresses, resolve, served


@pytest.fixture
def registry(tmp_path: Path) -> FolderRegistry:
    """A registry with the model `loans`, which has a champion and a challenger, and the model `sum`, which has no
    champion."""
    registry = FolderRegistry(tmp_path)
    registry.publish("loans", lambda folder: None, "champion")
    registry.publish("loans", lambda folder: None, "challenger")
    registry.publish("sum", lambda folder: None)
    return registry


@pytest.mark.parametrize(
    ("text", "version"), [("loans", 1), ("loans@champion", 1), ("loans@challenger", 2), ("loans@2", 2)]
)
def test_a_reference_is_resolved_to_a_version(registry: FolderRegistry, text: str, version: int) -> None:
    assert resolve(text, registry) == Reference("loans", version)


@pytest.mark.parametrize("text", ["loans@", "loans@3", "loans@best", "sum", "iris", "iris@1"])
def test_an_unknown_reference_is_rejected(registry: FolderRegistry, text: str) -> None:
    with pytest.raises(ModelNotFound):
        resolve(text, registry)


@pytest.mark.parametrize("text", ["", "@1", "LOANS", "loans@1@2", "loans@-1"])
def test_an_invalid_reference_is_rejected(registry: FolderRegistry, text: str) -> None:
    with pytest.raises(RegistryError):
        resolve(text, registry)


def test_all_champions_are_served_unless_references_are_given(registry: FolderRegistry) -> None:
    assert served(registry) == {"loans": Reference("loans", 1)}
    assert served(registry, ["sum@1", "loans@2"]) == {"sum@1": Reference("sum", 1), "loans@2": Reference("loans", 2)}


def test_only_the_first_reference_to_a_model_is_served_under_the_plain_name() -> None:
    assert addresses(["loans@challenger", "sum", "loans@3"]) == {
        "loans@challenger": "loans",
        "sum": "sum",
        "loans@3": "loans@3",
    }


def test_the_error_for_an_unknown_alias_lists_the_available_aliases(registry: FolderRegistry) -> None:
    for text, available in (("loans@best", "challenger, champion"), ("sum", "none")):
        with pytest.raises(ModelNotFound) as refused:
            resolve(text, registry)
        assert refused.value.message.endswith(f"available aliases: {available}")


def test_references_to_different_models_are_served_under_their_names() -> None:
    assert addresses(["a", "b@2", "a@3", "b", "b@4"]) == {"a": "a", "b@2": "b", "a@3": "a@3", "b": "b", "b@4": "b@4"}
