"""How the kind of an output is detected, and how scores are checked against a graph's labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from onnx import helper

from rowcast.errors import BundleError, DocumentError, SettingsError
from rowcast.registry.bundle import Fingerprint, Manifest, Output, Parity
from rowcast.registry.onnx_import.convert import convert, matrix_template
from rowcast.registry.onnx_import.request import ConvertedModel, ImportRequest
from rowcast.registry.onnx_import.signature import ObservedColumn
from rowcast.registry.ports import GraphTensor
from rowcast.schema.prediction import Decision
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


@pytest.mark.parametrize(
    ("total", "kind"),
    [(0.9991, "probabilities"), (1.0009, "probabilities"), (0.9989, "scores"), (1.0011, "scores")],
)
def test_the_probabilities_of_a_row_add_up_to_one_within_a_thousandth(total: float, kind: str) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=1),
        helper.make_node("Mul", ["p", "total"], ["q"]),
    ]
    # With small weights, every probability is far below 1, so only the sum matters.
    weights = {"w": np.full((4, 3), 0.01, np.float32), "total": np.float32(total)}

    model = converted(onnx_model(nodes, [("x", FLOAT, ["N", 4])], [("q", FLOAT, ["N", 3])], weights))

    assert model.manifest.output.kind == kind


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


class FixedGraph:
    """A graph that returns fixed values for the trial rows, regardless of their content."""

    def __init__(self, *outputs: GraphTensor, inputs: tuple[GraphTensor, ...] = (), **values: Any) -> None:
        self.inputs = inputs or (GraphTensor("x", "tensor(float)", [None, 2]),)
        self.outputs = outputs or (GraphTensor("p", "tensor(double)", [None, 2]),)
        self.values = values
        self.rows = 0

    def run(self, output: str, tensors: Mapping[str, Any]) -> Any:
        self.rows = len(next(iter(tensors.values())))
        values = self.values[output]
        return (list(values) * self.rows)[: self.rows] if isinstance(values, list) else values

    def convert(self, **request: Any) -> ConvertedModel:
        return convert(self, ImportRequest(name="m", **request))


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ([0.25, 0.75], "probabilities"),
        ([-0.9e-6, 1.0 + 0.9e-6], "probabilities"),
        ([-1.1e-6, 1.0], "scores"),
        ([0.0, 1.0 + 1.1e-6], "scores"),
        ([0.25, 0.75 + 0.9e-3], "probabilities"),
        ([0.25, 0.75 - 0.9e-3], "probabilities"),
        ([0.25, 0.75 + 1.1e-3], "scores"),
        ([0.25, 0.75 - 1.1e-3], "scores"),
    ],
)
def test_probabilities_are_recognized_by_their_range_and_sum(row: list[float], kind: str) -> None:
    graph = FixedGraph(p=np.array([[0.5, 0.5]] * 63 + [row]))

    assert graph.convert().manifest.output.kind == kind


def test_rows_without_a_finite_output_do_not_affect_the_conversion() -> None:
    values = np.array([[0.25, 0.75]] * 64)
    values[::2] = [[np.nan, 0.5]]
    values[1] = [np.inf, 7.0]

    model = FixedGraph(p=values).convert()

    assert model.manifest.output.kind == "probabilities"
    assert len(model.golden) == 31
    assert model.manifest.parity == Parity(31, 0.0, 0)


def test_a_graph_is_tried_with_64_reproducible_random_rows() -> None:
    inputs = (
        GraphTensor("number", "tensor(float)", [None]),
        GraphTensor("count", "tensor(int64)", [None]),
        GraphTensor("flag", "tensor(bool)", [None]),
        GraphTensor("text", "tensor(string)", [None]),
        GraphTensor("level", "tensor(string)", [None]),
        GraphTensor("narrow", "tensor(int64)", [None]),
    )
    graph = FixedGraph(inputs=inputs, p=np.array([[0.25, 0.75]] * 64))
    observed = {"level": ObservedColumn(levels=("x", "y")), "narrow": ObservedColumn(low=3.0, high=4.0)}
    observed |= {"number": ObservedColumn(low=5.0), "count": ObservedColumn(high=5.0)}  # not a range

    golden = graph.convert(observed=observed).golden

    assert graph.rows == 64
    rows: list[Any] = [each.row for each in golden]
    assert rows[0] == {"number": 6.3696, "count": 5, "flag": False, "text": "a", "level": "x", "narrow": 3}
    assert {row["flag"] for row in rows} == {True, False}
    assert {row["text"] for row in rows} == {"a", "b", "c"}
    assert {row["level"] for row in rows} == {"x", "y"}
    assert {row["narrow"] for row in rows} == {3, 4}
    assert {row["count"] for row in rows} <= set(range(11))
    assert 9 < max(row["number"] for row in rows) <= 10


def test_at_most_64_rows_of_a_table_are_scored() -> None:
    graph = FixedGraph(p=np.array([[0.25, 0.75]] * 64))

    model = graph.convert(rows=[{"feature_0": str(number), "feature_1": "2"} for number in range(70)])

    assert graph.rows == 64
    assert [golden.row["feature_0"] for golden in model.golden] == list(range(32))
    assert [column.example for column in model.manifest.schema.columns] == [0.0, 2.0]


def test_the_error_for_a_table_names_the_row() -> None:
    rows = [{"feature_0": "1", "feature_1": "2"}, {"feature_0": "1", "feature_1": "x"}]

    with pytest.raises(SettingsError) as caught:
        FixedGraph().convert(rows=rows)

    assert "row 1: " in caught.value.message


def test_the_manifest_of_an_imported_model_describes_the_file_instead_of_a_training_run() -> None:
    graph = FixedGraph(p=np.array([[0.25, 0.75]] * 64))
    request = {"source": "m.onnx", "sha256": "ab", "metadata": {"class_names": ["no", "yes"], "positive": "no"}}

    manifest = graph.convert(**request, wire="native").manifest

    assert manifest == Manifest(
        name="m",
        created="",
        schema=manifest.schema,
        plan=manifest.plan,
        output=Output("p", "probabilities"),
        decision=Decision(task="binary", classes=("no", "yes"), positive=0),
        metric="",
        score=0.0,
        holdout={},
        parity=Parity(32, 0.0, 0),
        training=Fingerprint(
            table="m.onnx",
            sha256="ab",
            rows=0,
            target="m",
            seed=0,
            candidate="imported",
            params={},
            calibration={"method": "none"},
            options={"metadata": request["metadata"]},
        ),
        versions={},
    )


@pytest.mark.parametrize(
    ("metadata", "target"),
    [({}, "m"), ({"model_name": "n"}, "n"), ({"model_name": "n", "target": "t"}, "t")],
)
def test_the_target_comes_from_the_metadata(metadata: dict[str, Any], target: str) -> None:
    graph = FixedGraph(p=np.array([[0.25, 0.75]] * 64))

    assert graph.convert(metadata=metadata).manifest.training.target == target


def test_the_matrix_template_is_complete() -> None:
    binary = Decision(task="binary", classes=("a", "b"))
    root = {"status": "healthy", "model_loaded": "$model_loaded", "model_name": "$model"}
    info = {
        "model_name": "$model",
        "prediction_time": "$latency_seconds",
        "input_shape": "$input_shape",
        "cached": "$cached",
    }

    assert matrix_template(binary, is_certain=True) == {
        "request": {
            "form": "matrix",
            "path": "data",
            "batch": "requests[].data",
            "use_cache": "use_cache",
            "cache_ttl": "cache_ttl",
        },
        "reply": {
            "predictions": {"$rows": "$class_index"},
            "probabilities": {"$rows": "$probabilities"},
            "model_info": info,
        },
        "batch_reply": {"predictions": {"$requests": "$reply"}},
        "root": root,
    }
    assert matrix_template(Decision(task="regression"), is_certain=False)["reply"] == {
        "predictions": {"$rows": "$prediction"},
        "model_info": info,
    }


LABELS = GraphTensor("label", "tensor(int64)", [None])
PAIR = GraphTensor("p", "tensor(double)", [None, 2])


def test_the_labels_of_a_graph_are_compared_row_by_row() -> None:
    scores = np.array([[0.25, 0.75], [0.75, 0.25]] * 32)
    labels = np.array([1, 0] * 32)

    assert FixedGraph(LABELS, PAIR, p=scores, label=labels).convert().manifest.output.name == "p"
    labels[7] = 1
    with pytest.raises(BundleError) as caught:
        FixedGraph(LABELS, PAIR, p=scores, label=labels).convert()
    assert caught.value.slug == "label-mismatch"
    assert "is 1, but the scores predict 0" in caught.value.message
    scores[7] = np.nan  # rows without a finite score have no label to compare
    assert FixedGraph(LABELS, PAIR, p=scores, label=labels).convert().manifest.output.name == "p"


def test_an_unknown_label_is_rejected() -> None:
    scores = np.array([[0.25, 0.75]] * 64)
    labels = np.array(["yes"] * 63 + ["maybe"], object)
    tensor = LABELS._replace(type="tensor(string)")

    with pytest.raises(BundleError) as caught:
        FixedGraph(tensor, PAIR, p=scores, label=labels).convert(metadata={"class_names": ["no", "yes"]})

    assert caught.value.slug == "label-mismatch"
    assert "'maybe'" in caught.value.message


@pytest.mark.parametrize(
    ("metadata", "values", "expected"),
    [
        ({}, np.zeros(64), ("values", "regression")),
        ({}, np.zeros((64, 1)), ("values", "regression")),
        ({"class_names": ["a", "b"]}, np.full(64, 0.5), ("probabilities", "binary")),
        ({"output_classes": 2}, np.full(64, 0.5), ("probabilities", "binary")),
        ({"activation": "sigmoid"}, np.full(64, 0.5), ("scores", "binary")),
        ({"model_type": "classifier"}, np.full(64, 0.5), ("probabilities", "binary")),
        ({"model_type": "regression", "class_names": ["a", "b"]}, np.zeros(64), ("values", "regression")),
        ({"output_kind": "values", "model_type": "classifier"}, np.zeros(64), ("values", "regression")),
        ({"output_kind": "scores"}, np.full(64, 0.5), ("scores", "binary")),
        ({"output_kind": "probabilities"}, np.full((64, 2), 0.7), ("probabilities", "binary")),
        ({}, np.full((64, 3), 2.0), ("scores", "multiclass")),
    ],
)
def test_the_metadata_determines_how_an_output_is_read(metadata: dict[str, Any], values: Any, expected: Any) -> None:
    manifest = FixedGraph(p=values).convert(metadata=metadata).manifest

    assert (manifest.output.kind, manifest.decision.task) == expected


@pytest.mark.parametrize("shape", [(64, 2, 1), (63, 2), (65,), (64, 0), ()])
def test_an_output_with_an_unsupported_shape_is_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(BundleError) as caught:
        FixedGraph(p=np.zeros(shape)).convert()

    assert caught.value.slug == "unsupported-output"
    assert f"has the shape {list(shape)} for 64 rows" in caught.value.message


def test_a_single_label_output_of_a_regression_model_is_read_as_a_value() -> None:
    graph = FixedGraph(LABELS, label=np.arange(64))

    manifest = graph.convert(metadata={"model_type": "regression"}).manifest

    assert (manifest.output, manifest.decision.task) == (Output("label", "values"), "regression")


def test_a_note_says_how_the_output_is_read() -> None:
    scores = FixedGraph(p=np.full((64, 2), 2.0))
    name = "the output p (tensor(double), [N, 2]) is read as "

    assert FixedGraph(p=np.full((64, 2), 0.5)).convert().notes == [name + "probabilities"]
    assert scores.convert(metadata={"activation": "softmax"}).notes == [
        name + "raw scores, converted into probabilities by softmax"
    ]
    assert scores.convert().notes == [
        name + "raw scores, without probabilities; to convert them with sigmoid or softmax, set `activation` in the "
        "metadata"
    ]
