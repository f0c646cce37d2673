"""Which differences between two versions a client can notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.registry import bundle
from rowcast.registry.bundle import Manifest
from rowcast.registry.compatibility import _schema_difference, find_difference
from rowcast.schema.prediction import Decision
from rowcast.schema.schema import Column, Schema
from support import models

COLUMNS = (
    Column(name="x0", kind="number", forms=("currency",), missing=True, low=0.0, high=1.0),
    Column(name="x1", kind="number"),
)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    registry = FolderRegistry(tmp_path)
    reference = models.publish(
        registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values"
    )
    return msgspec.structs.replace(bundle.read_manifest(registry.folder(reference)), schema=Schema(COLUMNS))


def changed(manifest: Manifest, **column: Any) -> Manifest:
    """Return the manifest with changes to the first column."""
    return msgspec.structs.replace(
        manifest, schema=Schema((msgspec.structs.replace(COLUMNS[0], **column), *COLUMNS[1:]))
    )


@pytest.mark.parametrize(
    "column",
    [
        {"low": -5.0, "high": 7.0, "example": 3.0},
        {"forms": ("currency", "percent")},
        {"sensitive": True},
        {"label": "Amount"},
        {"words": ("yes",)},
    ],
)
def test_new_values_and_looser_columns_are_compatible(manifest: Manifest, column: dict[str, Any]) -> None:
    assert find_difference(manifest, changed(manifest, **column)) == ""


@pytest.mark.parametrize(
    ("column", "part"),
    [
        ({"name": "x9"}, "'x9'"),
        ({"kind": "integer"}, "integer instead of number"),
        ({"missing": False}, "missing values"),
        ({"forms": ()}, "notation"),
        ({"zone": "Europe/Berlin"}, "Europe/Berlin"),
        ({"closed": True, "levels": ("a",)}, "values"),
        ({"closed": True}, "values"),
    ],
)
def test_stricter_and_different_columns_are_incompatible(manifest: Manifest, column: dict[str, Any], part: str) -> None:
    assert part in find_difference(manifest, changed(manifest, **column))


def test_a_column_that_is_no_longer_sensitive_is_incompatible(manifest: Manifest) -> None:
    assert "sensitive" in find_difference(changed(manifest, sensitive=True), manifest)


def test_missing_and_reordered_columns_are_incompatible(manifest: Manifest) -> None:
    shorter = msgspec.structs.replace(manifest, schema=Schema(COLUMNS[:1]))
    reversed_ = msgspec.structs.replace(manifest, schema=Schema(COLUMNS[::-1]))

    assert "'x1' is missing" in find_difference(manifest, shorter)
    assert "order" in find_difference(manifest, reversed_)


def test_a_different_target_decision_or_wire_template_is_incompatible(manifest: Manifest) -> None:
    training = msgspec.structs.replace(manifest.training, target="z")
    binary = msgspec.structs.replace(manifest, decision=Decision(task="binary", classes=("a", "b"), positive=1))
    classes = msgspec.structs.replace(manifest, decision=Decision(task="binary", classes=("a", "c"), positive=1))
    positive = msgspec.structs.replace(manifest, decision=Decision(task="binary", classes=("a", "b"), positive=0))
    threshold = msgspec.structs.replace(
        manifest, decision=Decision(task="binary", classes=("a", "b"), positive=1, threshold=0.25)
    )

    assert "'z' instead of 'y'" in find_difference(manifest, msgspec.structs.replace(manifest, training=training))
    assert "wire" in find_difference(manifest, msgspec.structs.replace(manifest, wire={"request": "x"}))
    assert "binary instead of regression" in find_difference(manifest, binary)
    assert "a, c instead of a, b" in find_difference(binary, classes)
    assert "positive class is a" in find_difference(binary, positive)
    assert find_difference(binary, threshold) == ""


@pytest.mark.parametrize(
    ("old", "new", "is_compatible"),
    [
        ({"closed": True, "levels": ("a",)}, {"closed": True, "levels": ("a",)}, True),
        ({"closed": True, "levels": ("a",)}, {"closed": True, "levels": ("b", "a")}, True),
        ({"closed": True, "levels": ("a", "b")}, {"closed": True, "levels": ("a",)}, False),
        ({"closed": True, "levels": ("a",)}, {"closed": False, "levels": ()}, True),
        ({"closed": False, "levels": ("a",)}, {"closed": True, "levels": ("a",)}, False),
        ({"forms": ("currency",), "words": ("yes",)}, {"forms": ("currency",), "words": ()}, False),
        ({"forms": ("currency",), "words": ("yes",)}, {"forms": (), "words": ("yes",)}, False),
        ({"missing": False}, {"missing": True}, True),
        ({"missing": False}, {"missing": False}, True),
        ({"zone": "Europe/Berlin"}, {"zone": "Europe/Berlin"}, True),
        ({"sensitive": True}, {"sensitive": True}, True),
        ({"sensitive": False}, {"sensitive": True}, True),
    ],
)
def test_a_column_may_accept_more_values_but_not_fewer(
    manifest: Manifest, old: dict[str, Any], new: dict[str, Any], is_compatible: bool
) -> None:
    difference = find_difference(changed(manifest, **old), changed(manifest, **new))

    assert (difference == "") is is_compatible, difference


def test_the_first_difference_is_reported() -> None:
    schemas = {names: Schema(tuple(Column(name=name, kind="number") for name in names)) for names in ("ab", "cda", "")}

    assert _schema_difference(schemas["ab"], schemas["cda"]) == "the column 'c' is new"
    assert _schema_difference(schemas["cda"], schemas[""]) == "the column 'c' is missing"
    assert _schema_difference(schemas["ab"], schemas["ab"]) == ""
