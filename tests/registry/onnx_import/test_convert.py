"""How the kind of an output is detected, and how scores are checked against the labels of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from rowcast.errors import BundleError, DocumentError, SettingsError
from support.onnx_graphs import (
    ARGMAX,
    FLOAT,
    INT,
    PROBABILITIES,
    RAW_SCORES,
    TEXT,
    classifier,
    converted,
    onnx_model,
)


def test_probabilities_are_recognized() -> None:
    model = converted(PROBABILITIES, metadata={"class_names": ["a", "b", "c"]})

    assert (model.manifest.output.kind, model.manifest.decision.classes) == ("probabilities", ("a", "b", "c"))
    assert len(model.golden) == model.manifest.parity.rows == 32


def test_raw_scores_are_converted_to_labels_without_probabilities() -> None:
    model = converted(RAW_SCORES)

    assert (model.manifest.output.kind, model.manifest.output.activation) == ("scores", "none")
    assert isinstance(model.golden[0].score.prediction, int)
    assert not isinstance(model.golden[0].score.probability, float)
    assert "raw scores" in model.notes[0]


def test_the_activation_converts_raw_scores_to_probabilities() -> None:
    activated = converted(RAW_SCORES, metadata={"activation": "softmax"})
    original = converted(PROBABILITIES)

    for left, right in zip(activated.golden, original.golden, strict=True):
        assert left.score.prediction == right.score.prediction
        assert left.score.probability == pytest.approx(right.score.probability, abs=1e-6)


def test_raw_scores_are_recognized_even_if_the_output_is_named_probabilities() -> None:
    rename = helper.make_node("Identity", ["s"], ["probabilities"])

    model = converted(classifier(3, rename, outputs=[("probabilities", FLOAT, ["N", 3])]))

    assert model.manifest.output.kind == "scores"


def test_a_single_probability_is_read_as_the_probability_of_the_second_class() -> None:
    sigmoid = helper.make_node("Sigmoid", ["s"], ["q"])
    model = converted(
        classifier(1, sigmoid, outputs=[("q", FLOAT, ["N", 1])]),
        metadata={"class_names": ["no", "yes"], "model_type": "classification"},
    )

    assert model.manifest.decision.task == "binary"
    for golden in model.golden:
        probabilities = golden.score.probabilities
        assert isinstance(probabilities, dict)
        assert golden.score.score == probabilities["yes"]
        assert probabilities["no"] + probabilities["yes"] == pytest.approx(1)


def test_class_names_are_read_from_output_maps() -> None:
    zipmap = helper.make_node("ZipMap", ["p"], ["m"], domain="ai.onnx.ml", classlabels_strings=["b", "a", "c"])
    kind = helper.make_map_type_proto(TEXT, helper.make_tensor_type_proto(FLOAT, []))
    maps = helper.make_value_info("m", helper.make_sequence_type_proto(kind))
    mapped = converted(classifier(3, zipmap, outputs=[maps]))
    plain = converted(PROBABILITIES, metadata={"class_names": ["b", "a", "c"]})

    assert sorted(mapped.manifest.decision.names()) == ["a", "b", "c"]
    for left, right in zip(mapped.golden, plain.golden, strict=True):
        assert left.score.prediction == right.score.prediction
        assert left.score.probabilities == right.score.probabilities


def test_a_graph_that_returns_only_labels_is_accepted() -> None:
    content = classifier(3, ARGMAX, outputs=[("label", INT, ["N"])])
    model = converted(content, metadata={"class_names": ["a", "b", "c"]})

    assert model.manifest.output.kind == "labels"
    assert {golden.score.prediction for golden in model.golden} <= {"a", "b", "c"}


def test_the_label_output_of_a_graph_must_agree_with_its_scores() -> None:
    argmin = helper.make_node("ArgMin", ["s"], ["label"], axis=1, keepdims=0)
    outputs = [("label", INT, ["N"]), ("p", FLOAT, ["N", 3])]

    assert converted(classifier(3, ARGMAX, outputs=outputs)).manifest.output.name == "p"
    with pytest.raises(BundleError) as caught:
        converted(classifier(3, argmin, outputs=outputs))
    assert caught.value.slug == "label-mismatch"
    selected = converted(classifier(3, argmin, outputs=outputs), metadata={"output": "p"})
    assert selected.manifest.output.name == "p"


def test_a_graph_with_a_single_value_per_row_is_imported_as_a_regression_model() -> None:
    model = converted(classifier(1, outputs=[("s", FLOAT, ["N", 1])]))

    assert (model.manifest.output.kind, model.manifest.decision.task) == ("values", "regression")
    with pytest.raises(BundleError) as caught:
        converted(PROBABILITIES, metadata={"model_type": "regression"})
    assert caught.value.slug == "unsupported-output"


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"features": ["a"]}, "features"),
        ({"class_names": ["a", "b"]}, "class_names"),
        ({"output_classes": 2}, "output_classes"),
        ({"output": "q"}, "output"),
    ],
)
def test_metadata_that_does_not_match_the_graph_is_rejected(metadata: dict[str, Any], field: str) -> None:
    with pytest.raises(DocumentError) as caught:
        converted(PROBABILITIES, metadata=metadata)

    assert caught.value.place == field


def test_a_graph_without_a_finite_output_is_rejected() -> None:
    nodes = [helper.make_node("Sub", ["x", "x"], ["z"]), helper.make_node("Div", ["z", "z"], ["y"])]
    content = onnx_model(nodes, [("x", FLOAT, ["N", 1])], [("y", FLOAT, ["N", 1])])

    with pytest.raises(BundleError) as caught:
        converted(content)

    assert caught.value.slug == "no-finite-answer"


def test_a_graph_that_cannot_be_run_or_loaded_is_rejected() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    weights = {"w": np.ones((3, 1), np.float32)}
    mismatched = onnx_model(nodes, [("x", FLOAT, ["N", "k"])], [("y", FLOAT, ["N", 1])], weights)

    with pytest.raises(BundleError, match="run"):
        converted(mismatched, metadata={"features": ["a", "b"]})
    with pytest.raises(BundleError, match="load"):
        converted(PROBABILITIES[:-20])


def test_metadata_from_a_matrix_server_selects_the_matrix_template() -> None:
    metadata: dict[str, Any] = {"input_shape": [None, 4], "class_names": ["a", "b", "c"]}

    wire = converted(PROBABILITIES, metadata=metadata).manifest.wire
    assert wire is not None
    assert wire["request"]["path"] == "data"
    assert converted(PROBABILITIES, metadata=metadata, wire="native").manifest.wire is None
    assert converted(PROBABILITIES).manifest.wire is None
    assert converted(PROBABILITIES, wire="matrix").manifest.wire == wire
    without_probabilities = converted(RAW_SCORES, metadata=metadata).manifest.wire
    assert without_probabilities is not None
    assert "probabilities" not in without_probabilities["reply"]


def test_rows_of_a_table_are_used_as_golden_rows() -> None:
    rows = [{f"feature_{index}": str(index + number) for index in range(4)} for number in range(3)]

    model = converted(PROBABILITIES, rows=rows)

    assert [golden.row["feature_0"] for golden in model.golden] == [0.0, 1.0, 2.0]


def test_a_table_that_does_not_match_the_graph_is_rejected() -> None:
    with pytest.raises(SettingsError) as caught:
        converted(PROBABILITIES, rows=[{"feature_0": "x"}])

    assert caught.value.slug == "table-mismatch"
