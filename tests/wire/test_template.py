"""A template that is malformed or does not match its model is rejected; the error names the offending key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.errors import BundleError, DocumentError
from rowcast.schema.schema import Schema
from support import models
from support.wire import REGRESSION, SCHEMA, compiled


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ([], ""),
        ({"replies": {}}, ""),
        ({"request": {"shape": "object"}}, ""),
        ({"request": {"form": "table"}}, ""),
        ({"request": {"on_unknown": "drop"}}, ""),
        ({"class_index": {"yes": "1"}}, ""),
        ({"request": {"rename": {"a": "b"}}}, "request.rename"),
        ({"request": {"rename": {"a": "town", "b": "town"}}}, "request.rename"),
        ({"request": {"rename": {"income": "town"}}}, "request.rename"),
        ({"request": {"form": "matrix", "path": "d", "rename": {"a": "town"}}}, "request.rename"),
        ({"request": {"form": "matrix", "path": "d", "on_missing": 0}}, "request.on_missing"),
        ({"request": {"form": "matrix"}}, "request.path"),
        ({"request": {"on_missing": 0}}, "request.on_missing"),
        ({"request": {"on_missing": None}}, "request.on_missing"),
        ({"request": {"on_missing": [0]}}, "request.on_missing"),
        ({"request": {"on_missing": {"age": 0}}}, "request.on_missing"),
        ({"request": {"on_missing": {"owner": 7}}}, "request.on_missing"),
        ({"request": {"on_missing": {"income": "NA"}}}, "request.on_missing"),
        ({"labels": {"maybe": "x"}}, "labels"),
        ({"class_index": {"maybe": 1}}, "class_index"),
    ],
)
def test_an_invalid_template_is_rejected(document: Any, place: str) -> None:
    with pytest.raises(DocumentError) as caught:
        compiled(document)

    assert caught.value.place == place


def test_the_error_names_the_key_and_the_allowed_values() -> None:
    with pytest.raises(DocumentError) as caught:
        compiled({"labels": {"maybe": "x"}})

    assert str(caught.value) == "wire template: labels: unknown class 'maybe'; the classes are no, yes"


def test_class_labels_are_rejected_for_a_regression_model() -> None:
    with pytest.raises(DocumentError) as caught:
        compiled({"labels": {"a": "b"}}, REGRESSION)

    assert caught.value.place == "labels"


def test_a_default_of_zero_is_converted_to_the_type_of_each_column() -> None:
    without_dates = Schema(tuple(column for column in SCHEMA.columns if column.kind != "datetime"))

    ((_, text),) = compiled({"request": {"on_missing": 0}}, schema=without_dates).read(b"{}", 1).rows

    assert json.loads(text) == {"income": 0, "owner": False, "town": "0"}


def test_a_bundle_with_an_unsuitable_template_is_not_served(tmp_path: Path) -> None:
    graph, schema = models.sum_graph(2), models.number_columns(2)

    with pytest.raises(BundleError) as caught:
        models.live(tmp_path, "sum", graph, schema, REGRESSION, "values", {"reply": "$probability"})

    assert isinstance(caught.value.__context__, DocumentError)
    assert caught.value.__context__.place == "reply"


def test_the_bundle_digest_covers_the_template(tmp_path: Path) -> None:
    registry = FolderRegistry(tmp_path)
    arguments = ("sum", models.sum_graph(2), models.number_columns(2), REGRESSION, "values")
    folders = [
        registry.folder(models.publish(registry, *arguments, wire=template))
        for template in (None, {"reply": "$label"}, {"reply": "$prediction"})
    ]

    assert len({json.loads((folder / "bundle.json").read_text())["digest"] for folder in folders}) == 3
