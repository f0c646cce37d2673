"""Metadata documents are validated before the graph is inspected."""

from __future__ import annotations

from typing import Any

import pytest

from rowcast.errors import DocumentError
from rowcast.registry.onnx_import.metadata import read_metadata


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"model_name": 3}, ""),
        ({"activation": "relu"}, ""),
        ({"features": ["a", "b", "b"]}, "features"),
        ({"class_names": ["1", 1]}, "class_names"),
        ({"activation": "sigmoid", "output_kind": "values"}, "activation"),
    ],
)
def test_an_invalid_field_is_rejected(document: dict[str, Any], field: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read_metadata(document)

    assert caught.value.place == field


def test_unknown_fields_are_ignored() -> None:
    assert read_metadata({"model_name": "m", "author": "unknown"}).model_name == "m"


@pytest.mark.parametrize(
    ("text", "task"),
    [("Regression", "regression"), ("multi-class classifier", "classification"), ("forest", ""), ("", "")],
)
def test_the_task_is_derived_from_the_model_type(text: str, task: str) -> None:
    assert read_metadata({"model_type": text}).task == task


def test_class_names_or_an_input_shape_indicate_that_clients_send_matrices() -> None:
    assert read_metadata({"class_names": ["a", "b"]}).is_matrix
    assert read_metadata({"input_shape": [None, 4]}).is_matrix
    assert not read_metadata({"features": ["a"]}).is_matrix


def test_an_empty_document_has_only_defaults() -> None:
    metadata = read_metadata({})

    assert (metadata.missing, metadata.fill, metadata.activation, metadata.output_kind) == (False, None, "none", "")
    assert (metadata.features, metadata.class_names, metadata.positive, metadata.is_matrix) == (None, None, None, False)


@pytest.mark.parametrize("output_kind", ["", "scores"])
def test_an_activation_applies_to_raw_scores(output_kind: str) -> None:
    assert read_metadata({"activation": "softmax", "output_kind": output_kind}).activation == "softmax"


def test_the_error_for_duplicate_names_lists_each_name_once() -> None:
    with pytest.raises(DocumentError) as caught:
        read_metadata({"features": ["c", "b", "a", "c", "b", "b"]})

    assert caught.value.message.endswith("duplicate names: b, c")
