"""Columns and tensors are derived from a graph's inputs; the output to read is selected by name or type."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from rowcast.errors import BundleError, DocumentError
from rowcast.registry.onnx_import.metadata import read_metadata
from rowcast.registry.onnx_import.signature import ObservedColumn, build_plan, label_output, select_output
from rowcast.registry.ports import GraphTensor
from support.onnx_graphs import BOOL, DOUBLE, FLOAT, INT, PROBABILITIES, TEXT, converted, onnx_model

MATRIX = GraphTensor("x", "tensor(float)", [None, 4])
LABEL = GraphTensor("label", "tensor(int64)", [None])
FLOATS = GraphTensor("p", "tensor(float)", [None, 3])
MAPS = GraphTensor("m", "seq(map(int64,tensor(float)))", [])


def test_column_names_of_a_wide_input_are_taken_from_the_metadata() -> None:
    named = converted(PROBABILITIES, metadata={"features": ["a", "b", "c", "d"]}).manifest
    unnamed = converted(PROBABILITIES).manifest

    assert named.schema.names() == ["a", "b", "c", "d"]
    assert unnamed.schema.names() == ["feature_0", "feature_1", "feature_2", "feature_3"]
    assert [(spec.name, spec.dtype, spec.shape) for spec in named.plan] == [("x", "float32", (4,))]


def test_column_names_are_taken_from_a_table_with_the_same_number_of_columns() -> None:
    schema, _ = build_plan([MATRIX], read_metadata({}), observed={}, table_columns=["a", "b", "c", "d"])

    assert schema.names() == ["a", "b", "c", "d"]


def test_a_column_gets_its_range_or_levels_from_the_observed_values() -> None:
    inputs = [GraphTensor("n", "tensor(float)", [None]), GraphTensor("t", "tensor(string)", [None])]
    observed = {"n": ObservedColumn(low=1.0, high=2.0), "t": ObservedColumn(levels=("a", "b"))}

    schema, _ = build_plan(inputs, read_metadata({}), observed=observed)

    number, text = schema.columns
    assert (number.low, number.high, number.levels) == (1.0, 2.0, ())
    assert (text.low, text.high, text.levels) == (None, None, ("a", "b"))


def test_columns_of_every_type_can_be_separate_inputs() -> None:
    inputs = [("f", FLOAT, ["N"]), ("d", DOUBLE, ["N", 1]), ("i", INT, ["N", 1]), ("b", BOOL, ["N"])]
    cast = [helper.make_node("Cast", [name], [f"{name}_"], to=FLOAT) for name, _, _ in inputs]
    flat = [helper.make_node("Reshape", [f"{name}_", "flat"], [f"{name}__"]) for name, _, _ in inputs]
    encoder = helper.make_node(
        "LabelEncoder",
        ["t"],
        ["n"],
        domain="ai.onnx.ml",
        keys_strings=["a", "b"],
        values_floats=[1.0, 2.0],
        default_float=0.0,
    )
    total = helper.make_node("Sum", [*(f"{name}__" for name, _, _ in inputs), "n"], ["y"])
    content = onnx_model(
        [*cast, *flat, encoder, total],
        [*inputs, ("t", TEXT, ["N"])],
        [("y", FLOAT, ["N"])],
        {"flat": np.array([-1], np.int64)},
    )

    model = converted(content, metadata={"missing": ["f", "t"], "fill": {"f": 7.5}})

    manifest = model.manifest
    assert [(column.name, column.kind, column.missing) for column in manifest.schema.columns] == [
        ("f", "number", True),
        ("d", "number", False),
        ("i", "integer", False),
        ("b", "boolean", False),
        ("t", "category", True),
    ]
    assert [spec.dtype for spec in manifest.plan] == ["float32", "float64", "int64", "bool", "string"]
    assert [spec.shape for spec in manifest.plan] == [(), (1,), (1,), (), ()]
    assert [spec.fill for spec in manifest.plan] == [7.5, None, None, None, ""]
    assert manifest.decision.task == "regression"
    for golden in model.golden:
        row: dict[str, Any] = golden.row
        text = {"a": 1.0, "b": 2.0}.get(row["t"], 0.0)
        assert golden.score.prediction == pytest.approx(row["f"] + row["d"] + row["i"] + row["b"] + text, rel=1e-5)


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        [GraphTensor("x", "tensor(int32)", [None, 2])],
        [GraphTensor("x", "tensor(float16)", [None, 2])],
        [GraphTensor("x", "tensor(float)", [None, 2, 2])],
        [GraphTensor("x", "tensor(float)", [])],
        [GraphTensor("x", "tensor(float)", [1, 2])],
        [GraphTensor("x", "tensor(float)", [None, None])],
    ],
)
def test_an_unsupported_input_is_rejected(inputs: list[GraphTensor]) -> None:
    with pytest.raises(BundleError) as caught:
        build_plan(inputs, read_metadata({}), observed={})

    assert caught.value.slug == "unsupported-input"


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (TensorProto.INT32, ["N", 2]),
        (TensorProto.FLOAT16, ["N", 2]),
        (FLOAT, ["N", 2, 2]),
        (FLOAT, []),
        (FLOAT, [1, 2]),
        (FLOAT, ["N", "k"]),
    ],
)
def test_a_real_graph_with_an_unsupported_input_is_rejected(kind: Any, shape: list[Any]) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=FLOAT)]

    with pytest.raises(BundleError) as caught:
        converted(onnx_model(nodes, [("x", kind, shape)], [("y", FLOAT, None)]))

    assert caught.value.slug == "unsupported-input"


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"features": ["a"]}, "features"),
        ({"input_shape": [None, 7]}, "input_shape"),
        ({"fill": {"z": 1}, "missing": True}, "fill"),
        ({"fill": "none", "missing": True}, "fill"),
    ],
)
def test_metadata_that_does_not_match_the_inputs_is_rejected(document: dict[str, Any], field: str) -> None:
    with pytest.raises(DocumentError) as caught:
        build_plan([MATRIX], read_metadata(document), observed={})

    assert caught.value.place == field


@pytest.mark.parametrize("fill", [{}, {"fill": 0.5}])
def test_an_integer_column_that_allows_missing_values_requires_an_integer_fill_value(fill: dict[str, Any]) -> None:
    integers = GraphTensor("i", "tensor(int64)", [None])

    with pytest.raises(DocumentError) as caught:
        build_plan([integers], read_metadata({"missing": True, **fill}), observed={})

    assert caught.value.place == "fill"


def test_the_output_is_selected_by_name_or_by_type() -> None:
    assert select_output([LABEL, FLOATS], read_metadata({})) == FLOATS
    assert select_output([LABEL, FLOATS, MAPS], read_metadata({})) == MAPS
    assert select_output([LABEL], read_metadata({})) == LABEL
    assert select_output([LABEL, FLOATS], read_metadata({"output": "label"})) == LABEL


@pytest.mark.parametrize(
    ("outputs", "document"), [([FLOATS, FLOATS._replace(name="q")], {}), ([FLOATS], {"output": "q"})]
)
def test_an_ambiguous_or_unknown_output_is_rejected(outputs: list[GraphTensor], document: dict[str, Any]) -> None:
    with pytest.raises(DocumentError) as caught:
        select_output(outputs, read_metadata(document))

    assert caught.value.place == "output"


@pytest.mark.parametrize("document", [{}, {"output": "c"}])
def test_an_unsupported_output_is_rejected(document: dict[str, Any]) -> None:
    with pytest.raises(BundleError) as caught:
        select_output([GraphTensor("c", "tensor(complex64)", [None])], read_metadata(document))

    assert caught.value.slug == "unsupported-output"


def test_the_label_output_is_found_only_if_exactly_one_other_output_has_labels() -> None:
    assert label_output([LABEL, FLOATS], FLOATS) == LABEL
    assert label_output([LABEL, FLOATS], LABEL) is None
    assert label_output([LABEL, FLOATS, FLOATS._replace(name="q")], FLOATS) == LABEL
    assert label_output([LABEL, LABEL._replace(name="other"), FLOATS], FLOATS) is None


def names(*inputs: GraphTensor, table: tuple[str, ...] = (), **metadata: Any) -> list[str]:
    """Return the column names for these inputs."""
    return build_plan(inputs, read_metadata(metadata), observed={}, table_columns=table)[0].names()


A, B, PAIR = (
    GraphTensor(name, "tensor(float)", shape) for name, shape in (("a", [None]), ("b", [None, 1]), ("p", [None, 2]))
)
UNSIZED = GraphTensor("x", "tensor(float)", [None, None])


def test_the_number_of_columns_of_an_unsized_input_comes_from_the_metadata() -> None:
    assert names(UNSIZED, features=["u", "v", "w"]) == ["u", "v", "w"]
    assert names(UNSIZED, input_shape=[None, 3]) == ["feature_0", "feature_1", "feature_2"]
    assert names(UNSIZED, input_shape=[1]) == ["x"]
    for inputs, metadata in (
        ((UNSIZED,), {"input_shape": [None, None]}),
        ((UNSIZED,), {"input_shape": [None, 0]}),
        ((UNSIZED, A), {"features": ["u", "v"]}),
    ):
        with pytest.raises(BundleError) as caught:
            names(*inputs, **metadata)
        assert caught.value.slug == "unsupported-input"


def test_columns_are_named_after_their_inputs_unless_a_single_input_has_several_columns() -> None:
    assert names(A) == ["a"]
    assert names(B) == ["b"]
    assert names(PAIR) == ["feature_0", "feature_1"]
    assert names(A, PAIR, B) == ["a", "p_0", "p_1", "b"]


def test_the_names_in_the_metadata_replace_the_input_names_unless_both_sets_of_names_are_equal() -> None:
    assert names(A, B, features=[" u", "v "]) == ["u", "v"]
    assert names(A, B, features=["b", "a"]) == ["a", "b"]
    assert names(A, PAIR, features=["u", "v", "w"]) == ["u", "v", "w"]
    with pytest.raises(DocumentError) as caught:
        names(*(A._replace(name=f"i{number}") for number in range(9)), features=["u"])
    assert "i7 (tensor(float), [N]), got 1" in caught.value.message
    assert "expected 9 names" in caught.value.message


def test_the_columns_of_a_table_name_the_inputs_only_if_they_match() -> None:
    assert names(PAIR, table=("p_0", "p_1")) == ["p_0", "p_1"]
    assert names(PAIR, table=("y", "p_1", "p_0")) == ["p_0", "p_1"]
    assert names(PAIR, table=("u", "v")) == ["u", "v"]
    assert names(PAIR, table=("u", "v", "w")) == ["feature_0", "feature_1"]
    assert names(A, B, table=("u", "v")) == ["a", "b"]


def test_the_input_shape_in_the_metadata_must_match_a_single_input() -> None:
    assert names(PAIR, input_shape=[None, 2]) == ["feature_0", "feature_1"]
    assert names(PAIR, input_shape=[None, None]) == ["feature_0", "feature_1"]
    assert names(A, B, input_shape=[None, 7]) == ["a", "b"]
    with pytest.raises(DocumentError) as caught:
        names(PAIR, input_shape=[2, 3])
    assert caught.value.place == "input_shape"


@pytest.mark.parametrize(
    ("type_", "document", "fill"),
    [
        ("tensor(float)", {"missing": False, "fill": 3}, None),
        ("tensor(float)", {"missing": True}, None),
        ("tensor(float)", {"missing": ["x"], "fill": 2.5}, 2.5),
        ("tensor(float)", {"missing": ["y"], "fill": 2.5}, None),
        ("tensor(int64)", {"missing": True, "fill": 3.0}, 3.0),
        ("tensor(bool)", {"missing": True, "fill": True}, 1.0),
        ("tensor(string)", {"missing": True}, ""),
        ("tensor(string)", {"missing": True, "fill": 7}, "7"),
        ("tensor(double)", {"missing": True, "fill": {"x": 4}}, 4.0),
        ("tensor(double)", {"missing": True, "fill": {}}, None),
    ],
)
def test_missing_values_are_replaced_with_the_fill_value(type_: str, document: dict[str, Any], fill: Any) -> None:
    schema, (spec,) = build_plan([GraphTensor("x", type_, [None])], read_metadata(document), observed={})

    assert (spec.fill, type(spec.fill)) == (fill, type(fill))
    assert schema.columns[0].missing is (document["missing"] in (True, ["x"]))


def test_observed_ranges_and_levels_apply_only_to_columns_of_a_suitable_kind() -> None:
    observed = ObservedColumn(low=1.0, high=2.0, levels=("a",))
    types = ("tensor(double)", "tensor(int64)", "tensor(bool)", "tensor(string)")
    inputs = [GraphTensor(str(number), type_, [None]) for number, type_ in enumerate(types)]

    schema, _ = build_plan(inputs, read_metadata({}), observed=dict.fromkeys("0123", observed))

    assert [(column.low, column.high, column.levels) for column in schema.columns] == [
        (1.0, 2.0, ()),
        (1.0, 2.0, ()),
        (None, None, ()),
        (None, None, ("a",)),
    ]


def test_labels_with_more_than_two_dimensions_are_ignored() -> None:
    column = LABEL._replace(shape=[None, 1])

    assert label_output([column, FLOATS], FLOATS) == column
    assert label_output([LABEL._replace(shape=[None, 1, 1]), FLOATS], FLOATS) is None
    assert label_output([FLOATS], FLOATS) is None


def test_an_input_without_columns_is_rejected() -> None:
    with pytest.raises(BundleError):
        names(PAIR._replace(shape=[None, 0]))
