"""Foreign graphs: what is refused before it is touched, and what the others become."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from rowcast.adapters.onnxruntime.graph import Unknown
from rowcast.errors import BundleError, RowcastError, SettingsError
from rowcast.registry.onnx_import.convert import Adopted, Ask, adopt
from rowcast.registry.onnx_import.inspect import inspect
from rowcast.registry.onnx_import.metadata import read_metadata
from support import models

FLOAT, DOUBLE, INT, BOOL, TEXT = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.STRING,
)
MOST_NODES = 100


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, Any] | None = None) -> bytes:
    """A graph of these parts; an input or output is (name, type, shape)."""
    arrays = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    taken = [one if isinstance(one, onnx.ValueInfoProto) else helper.make_tensor_value_info(*one) for one in inputs]
    given_ = [one if isinstance(one, onnx.ValueInfoProto) else helper.make_tensor_value_info(*one) for one in outputs]
    graph = helper.make_graph(nodes, "g", taken, given_, arrays)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def scores(width: int = 3, *more: Any, outputs: list[Any]) -> bytes:
    """Four columns into `s`, raw scores, and `p`, their softmax."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, width)).astype(np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=1),
        *more,
    ]
    return model(nodes, [("x", FLOAT, ["N", 4])], outputs, weights)


def adopted(content: bytes, **ask: Any) -> Adopted:
    return adopt(Unknown(content), Ask(name="m", **ask))


PROBABILITIES = scores(outputs=[("p", FLOAT, ["N", 3])])
ARGMAX = helper.make_node("ArgMax", ["s"], ["label"], axis=1, keepdims=0)


# The guard.


def test_our_own_graphs_pass() -> None:
    for content in (models.mlp_graph(3, 2), models.trees_graph(4, 1), models.endless_graph(2), PROBABILITIES):
        assert inspect(content, MOST_NODES).nodes >= 1


def test_a_forest_is_walked_without_its_numbers() -> None:
    content = models.trees_graph(4, 2, trees=5000)

    assert len(content) > 500_000
    assert inspect(content, MOST_NODES).nodes < 10


def test_weights_outside_the_file_are_refused_wherever_they_hide() -> None:
    outside = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    entry = outside.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"
    plain = onnx.load_from_string(PROBABILITIES)
    weights = onnx.ModelProto()
    weights.CopyFrom(plain)
    weights.graph.initializer.append(outside)
    constant = onnx.ModelProto()
    constant.CopyFrom(plain)
    constant.graph.node.append(helper.make_node("Constant", [], ["c"], value=outside))
    below = helper.make_graph([], "below", [], [], [outside])
    branch = onnx.ModelProto()
    branch.CopyFrom(plain)
    branch.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=below, else_branch=below))
    sneaky = onnx.ModelProto()
    sneaky.CopyFrom(plain)
    only_entry = numpy_helper.from_array(np.zeros(4, np.float32), "w2")
    only_entry.external_data.add().key = "location"
    sneaky.graph.initializer.append(only_entry)

    for one in (weights, constant, branch, sneaky):
        with pytest.raises(BundleError, match="weights outside itself"):
            inspect(one.SerializeToString(), MOST_NODES)


def test_operators_of_other_domains_are_refused() -> None:
    node = helper.make_node("Evil", ["x"], ["p"], domain="com.example")
    imported = onnx.load_from_string(PROBABILITIES)
    imported.opset_import.append(helper.make_opsetid("com.example", 1))

    for content in (
        model([node], [("x", FLOAT, ["N", 2])], [("p", FLOAT, ["N", 2])]),
        imported.SerializeToString(),
    ):
        with pytest.raises(BundleError, match=r"operators of 'com\.example'"):
            inspect(content, MOST_NODES)


def test_functions_are_refused() -> None:
    found = onnx.load_from_string(PROBABILITIES)
    function = helper.make_function("", "F", ["a"], ["b"], [helper.make_node("Abs", ["a"], ["b"])], found.opset_import)
    found.functions.append(function)

    with pytest.raises(BundleError, match="functions of its own"):
        inspect(found.SerializeToString(), MOST_NODES)


def test_too_many_nodes_and_too_deep_subgraphs_are_refused() -> None:
    chain = [helper.make_node("Abs", [f"a{at}"], [f"a{at + 1}"]) for at in range(MOST_NODES + 1)]
    many = model(chain, [("a0", FLOAT, ["N", 2])], [(f"a{MOST_NODES + 1}", FLOAT, ["N", 2])])
    deep = helper.make_graph([helper.make_node("Abs", ["a"], ["b"])], "deep", [], [])
    for _ in range(20):
        deep = helper.make_graph([helper.make_node("If", ["c"], ["b"], then_branch=deep)], "deep", [], [])
    nested = helper.make_model(deep, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString()

    with pytest.raises(BundleError, match="more than 100 nodes"):
        inspect(many, MOST_NODES)
    with pytest.raises(BundleError, match="subgraphs more than 8 deep"):
        inspect(nested, MOST_NODES)


def test_nodes_of_subgraphs_count() -> None:
    many = helper.make_graph([helper.make_node("Abs", ["a"], ["a"])] * MOST_NODES, "below", [], [])
    content = model([helper.make_node("If", ["c"], ["p"], then_branch=many)], [("c", BOOL, [])], [("p", FLOAT, [])])

    with pytest.raises(BundleError, match="nodes"):
        inspect(content, MOST_NODES)


def test_a_file_that_was_cut_off_is_refused_or_whole() -> None:
    for length in range(len(PROBABILITIES)):
        try:
            inspect(PROBABILITIES[:length], MOST_NODES)
        except BundleError:
            continue
        onnx.load_from_string(PROBABILITIES[:length])  # cut between two fields: still a message


@given(
    st.binary(max_size=300)
    | st.builds(
        lambda at, byte: PROBABILITIES[:at] + byte + PROBABILITIES[at + 1 :],
        st.integers(0, len(PROBABILITIES) - 1),
        st.binary(min_size=1, max_size=3),
    )
)
@settings(max_examples=500)
def test_no_bytes_break_the_walk(content: bytes) -> None:
    with contextlib.suppress(BundleError):
        assert inspect(content, MOST_NODES).nodes <= MOST_NODES


# Inputs.


def test_one_tensor_of_many_columns() -> None:
    named = adopted(PROBABILITIES, metadata={"features": ["a", "b", "c", "d"]}).manifest
    nameless = adopted(PROBABILITIES).manifest

    assert named.schema.names() == ["a", "b", "c", "d"]
    assert nameless.schema.names() == ["feature_0", "feature_1", "feature_2", "feature_3"]
    assert [(spec.name, spec.dtype, spec.shape) for spec in named.plan] == [("x", "float32", (4,))]


def test_one_tensor_a_column_of_every_type() -> None:
    inputs = [("f", FLOAT, ["N"]), ("d", DOUBLE, ["N", 1]), ("i", INT, ["N", 1]), ("b", BOOL, ["N"])]
    cast = [helper.make_node("Cast", [name], [f"{name}_"], to=FLOAT) for name, _, _ in inputs]
    flat = [helper.make_node("Reshape", [f"{name}_", "flat"], [f"{name}__"]) for name, _, _ in inputs]
    length = [
        helper.make_node(
            "LabelEncoder",
            ["t"],
            ["n"],
            domain="ai.onnx.ml",
            keys_strings=["a", "b"],
            values_floats=[1.0, 2.0],
            default_float=0.0,
        )
    ]
    total = helper.make_node("Sum", [*(f"{name}__" for name, _, _ in inputs), "n"], ["y"])
    content = model(
        [*cast, *flat, *length, total],
        [*inputs, ("t", TEXT, ["N"])],
        [("y", FLOAT, ["N"])],
        {"flat": np.array([-1], np.int64)},
    )

    found = adopted(content, metadata={"missing": ["f", "t"], "fill": {"f": 7.5}})

    manifest = found.manifest
    assert [(one.name, one.kind, one.missing) for one in manifest.schema.columns] == [
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
    for golden in found.golden:
        row: dict[str, Any] = golden.row
        known = {"a": 1.0, "b": 2.0}.get(row["t"], 0.0)
        assert golden.outcome.prediction == pytest.approx(row["f"] + row["d"] + row["i"] + row["b"] + known, rel=1e-5)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([("x", TensorProto.INT32, ["N", 2])], "of a type that no column has"),
        ([("x", TensorProto.FLOAT16, ["N", 2])], "of a type that no column has"),
        ([("x", FLOAT, ["N", 2, 2])], r"must be \[N\] or \[N, k\]"),
        ([("x", FLOAT, [])], r"must be \[N\] or \[N, k\]"),
        ([("x", FLOAT, [1, 2])], "takes 1 rows at a time"),
        ([("x", FLOAT, ["N", "k"])], "does not say how many columns"),
    ],
)
def test_inputs_that_rows_cannot_be_are_refused(inputs: list[Any], said: str) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=FLOAT)]

    with pytest.raises(BundleError, match=said):
        adopted(model(nodes, inputs, [("y", FLOAT, None)]))


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"features": ["a"]}, "features names 1 columns; the graph takes 4"),
        ({"features": ["a", "b", "b", "c"]}, "features names b twice"),
        ({"input_shape": [None, 7]}, "input_shape says 7 columns"),
        ({"class_names": ["a", "b"]}, "names 2 classes; the output"),
        ({"model_name": 3}, "Expected `str`"),
        ({"output": "q"}, "output is 'q'; the graph gives p"),
        ({"fill": {"z": 1}, "missing": True}, "fill names z"),
        ({"activation": "relu"}, "activation"),
        ({"activation": "sigmoid", "output_kind": "values"}, "activation is for raw scores"),
    ],
)
def test_metadata_that_does_not_fit_is_named(metadata: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        adopted(PROBABILITIES, metadata=metadata)


def test_metadata_may_hold_more() -> None:
    assert read_metadata({"model_name": "m", "author": "somebody"}).model_name == "m"


# Outputs.


def test_probabilities() -> None:
    found = adopted(PROBABILITIES, metadata={"class_names": ["a", "b", "c"]})

    assert (found.manifest.output.kind, found.manifest.decision.classes) == ("probabilities", ("a", "b", "c"))
    assert len(found.golden) == 32


def test_raw_scores_decide_and_tell_no_probability() -> None:
    found = adopted(scores(outputs=[("s", FLOAT, ["N", 3])]))

    assert (found.manifest.output.kind, found.manifest.output.activation) == ("scores", "none")
    assert isinstance(found.golden[0].outcome.prediction, int)
    assert not isinstance(found.golden[0].outcome.probability, float)
    assert "raw scores" in found.notes[0]


def test_raw_scores_become_probabilities_where_the_metadata_says_how() -> None:
    made = adopted(scores(outputs=[("s", FLOAT, ["N", 3])]), metadata={"activation": "softmax"})
    given_ = adopted(PROBABILITIES)

    for ours, theirs in zip(made.golden, given_.golden, strict=True):
        assert ours.outcome.prediction == theirs.outcome.prediction
        assert ours.outcome.probability == pytest.approx(theirs.outcome.probability, abs=1e-6)


def test_a_tensor_named_probabilities_that_holds_scores_is_scores() -> None:
    rename = helper.make_node("Identity", ["s"], ["probabilities"])

    assert adopted(scores(3, rename, outputs=[("probabilities", FLOAT, ["N", 3])])).manifest.output.kind == "scores"


def test_one_probability_of_two() -> None:
    sigmoid = helper.make_node("Sigmoid", ["s"], ["q"])
    found = adopted(
        scores(1, sigmoid, outputs=[("q", FLOAT, ["N", 1])]),
        metadata={"class_names": ["no", "yes"], "model_type": "classification"},
    )

    assert found.manifest.decision.task == "binary"
    for golden in found.golden:
        shares = golden.outcome.probabilities
        assert isinstance(shares, dict)
        assert golden.outcome.score == shares["yes"]
        assert shares["no"] + shares["yes"] == pytest.approx(1)


def test_maps_of_probabilities() -> None:
    zipmap = helper.make_node("ZipMap", ["p"], ["m"], domain="ai.onnx.ml", classlabels_strings=["b", "a", "c"])
    kind = helper.make_map_type_proto(TEXT, helper.make_tensor_type_proto(FLOAT, []))
    maps = helper.make_value_info("m", helper.make_sequence_type_proto(kind))
    mapped = adopted(scores(3, zipmap, outputs=[maps]))
    plain = adopted(PROBABILITIES, metadata={"class_names": ["b", "a", "c"]})

    assert sorted(mapped.manifest.decision.names()) == ["a", "b", "c"]
    for ours, theirs in zip(mapped.golden, plain.golden, strict=True):
        assert ours.outcome.prediction == theirs.outcome.prediction
        assert ours.outcome.probabilities == theirs.outcome.probabilities


def test_labels_alone() -> None:
    found = adopted(scores(3, ARGMAX, outputs=[("label", INT, ["N"])]), metadata={"class_names": ["a", "b", "c"]})

    assert found.manifest.output.kind == "labels"
    assert {golden.outcome.prediction for golden in found.golden} <= {"a", "b", "c"}


def test_the_graphs_own_labels_must_be_those_of_its_scores() -> None:
    least = helper.make_node("ArgMin", ["s"], ["label"], axis=1, keepdims=0)
    outputs = [("label", INT, ["N"]), ("p", FLOAT, ["N", 3])]

    assert adopted(scores(3, ARGMAX, outputs=outputs)).manifest.output.name == "p"
    with pytest.raises(BundleError, match="the graph's own label label"):
        adopted(scores(3, least, outputs=outputs))
    assert adopted(scores(3, least, outputs=outputs), metadata={"output": "p"}).manifest.output.name == "p"


def test_a_regression() -> None:
    found = adopted(scores(1, outputs=[("s", FLOAT, ["N", 1])]))

    assert (found.manifest.output.kind, found.manifest.decision.task) == ("values", "regression")
    with pytest.raises(BundleError, match="has 3 values a row; a regression predicts one"):
        adopted(PROBABILITIES, metadata={"model_type": "regression"})


def test_a_graph_without_a_finite_answer_is_refused() -> None:
    nan = [helper.make_node("Sub", ["x", "x"], ["z"]), helper.make_node("Div", ["z", "z"], ["y"])]
    content = model(nan, [("x", FLOAT, ["N", 1])], [("y", FLOAT, ["N", 1])])

    with pytest.raises(BundleError, match="no finite answer for any row"):
        adopted(content)


def test_a_graph_that_cannot_be_run_or_loaded_is_named() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    unfit = model(nodes, [("x", FLOAT, ["N", "k"])], [("y", FLOAT, ["N", 1])], {"w": np.ones((3, 1), np.float32)})

    with pytest.raises(BundleError, match="the graph cannot be run"):
        adopted(unfit, metadata={"features": ["a", "b"]})
    with pytest.raises(RowcastError, match="cannot be loaded"):
        adopted(PROBABILITIES[:-20])


def test_metadata_of_the_old_pipeline_brings_its_dialect() -> None:
    shaped: dict[str, Any] = {"input_shape": [None, 4], "class_names": ["a", "b", "c"]}

    wire = adopted(PROBABILITIES, metadata=shaped).manifest.wire
    assert wire is not None
    assert wire["request"]["path"] == "data"
    assert adopted(PROBABILITIES, metadata=shaped, wire="native").manifest.wire is None
    assert adopted(PROBABILITIES).manifest.wire is None
    assert adopted(PROBABILITIES, wire="matrix").manifest.wire == wire
    bare = adopted(scores(outputs=[("s", FLOAT, ["N", 3])]), metadata=shaped).manifest.wire
    assert bare is not None
    assert "probabilities" not in bare["reply"]


def test_rows_of_a_table_are_tried_and_become_golden() -> None:
    rows = [{f"feature_{place}": str(place + number) for place in range(4)} for number in range(3)]

    found = adopted(PROBABILITIES, rows=rows)
    assert [golden.row["feature_0"] for golden in found.golden] == [0.0, 1.0, 2.0]
    with pytest.raises(SettingsError, match="row 0 of the table does not fit the graph: feature_0"):
        adopted(PROBABILITIES, rows=[{"feature_0": "x"}])


def test_the_file_itself_must_be_one(tmp_path: Path) -> None:
    from rowcast.registry.import_model import read_model

    large = tmp_path / "large.onnx"
    with large.open("wb") as file:
        file.truncate(2 * 1024 * 1024)
    (tmp_path / "folder.onnx").mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")

    for path, said in (
        (large, "larger than 1 MB"),
        (tmp_path / "folder.onnx", "Is a directory"),
        (tmp_path / "pipe.onnx", "is no file"),
        (tmp_path / "no", "No such"),
    ):
        with pytest.raises(BundleError, match=said):
            read_model(path, 1)
