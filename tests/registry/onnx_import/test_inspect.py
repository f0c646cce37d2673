"""Unsafe or damaged ONNX content is rejected before a runtime opens it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from rowcast.errors import BundleError
from rowcast.registry.onnx_import.inspect import inspect
from support import models
from support.onnx_graphs import BOOL, FLOAT, PROBABILITIES, onnx_model

MAX_NODES = 100


def refusal(content: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        inspect(content, MAX_NODES)
    return caught.value.slug


def external_tensor() -> Any:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"
    return tensor


def as_initializer(model: Any) -> None:
    model.graph.initializer.append(external_tensor())


def as_constant(model: Any) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=external_tensor()))


def in_subgraph(model: Any) -> None:
    branch = helper.make_graph([], "branch", [], [], [external_tensor()])
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch))


def as_entry_without_location_type(model: Any) -> None:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w2")
    tensor.external_data.add().key = "location"
    model.graph.initializer.append(tensor)


def test_graphs_exported_by_rowcast_pass_inspection() -> None:
    for content in (models.mlp_graph(3, 2), models.trees_graph(4, 1), models.endless_graph(2), PROBABILITIES):
        assert inspect(content, MAX_NODES).nodes >= 1


def test_the_tree_attributes_of_a_forest_are_skipped() -> None:
    content = models.trees_graph(4, 2, trees=5000)

    assert len(content) > 500_000
    assert inspect(content, MAX_NODES).nodes < 10


@pytest.mark.parametrize("hide", [as_initializer, as_constant, in_subgraph, as_entry_without_location_type])
def test_external_data_is_rejected_wherever_it_is_referenced(hide: Callable[[Any], None]) -> None:
    model = onnx.load_from_string(PROBABILITIES)
    hide(model)

    assert refusal(model.SerializeToString()) == "external-data"


def test_operators_from_other_domains_are_rejected() -> None:
    node = helper.make_node("Evil", ["x"], ["p"], domain="com.example")
    imported = onnx.load_from_string(PROBABILITIES)
    imported.opset_import.append(helper.make_opsetid("com.example", 1))

    assert refusal(onnx_model([node], [("x", FLOAT, ["N", 2])], [("p", FLOAT, ["N", 2])])) == "unknown-operators"
    assert refusal(imported.SerializeToString()) == "unknown-operators"


def test_a_graph_with_local_functions_is_rejected() -> None:
    model = onnx.load_from_string(PROBABILITIES)
    nodes = [helper.make_node("Abs", ["a"], ["b"])]
    model.functions.append(helper.make_function("", "F", ["a"], ["b"], nodes, model.opset_import))

    assert refusal(model.SerializeToString()) == "local-functions"


def test_a_graph_with_training_information_is_rejected() -> None:
    model = onnx.load_from_string(PROBABILITIES)
    model.training_info.add().algorithm.name = "a"

    assert refusal(model.SerializeToString()) == "training-graph"


def test_a_graph_with_too_many_nodes_is_rejected() -> None:
    chain = [helper.make_node("Abs", [f"a{index}"], [f"a{index + 1}"]) for index in range(MAX_NODES + 1)]
    content = onnx_model(chain, [("a0", FLOAT, ["N", 2])], [(f"a{MAX_NODES + 1}", FLOAT, ["N", 2])])

    assert refusal(content) == "too-many-nodes"


def test_nodes_in_subgraphs_count_toward_the_limit() -> None:
    branch = helper.make_graph([helper.make_node("Abs", ["a"], ["a"])] * MAX_NODES, "branch", [], [])
    node = helper.make_node("If", ["c"], ["p"], then_branch=branch)

    assert refusal(onnx_model([node], [("c", BOOL, [])], [("p", FLOAT, [])])) == "too-many-nodes"


def test_deeply_nested_subgraphs_are_rejected() -> None:
    graph = helper.make_graph([helper.make_node("Abs", ["a"], ["b"])], "deep", [], [])
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["b"], then_branch=graph)], "deep", [], [])

    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    assert refusal(model.SerializeToString()) == "too-deep"


def test_a_truncated_file_is_rejected_unless_it_is_a_valid_protobuf_message() -> None:
    for length in range(len(PROBABILITIES)):
        try:
            inspect(PROBABILITIES[:length], MAX_NODES)
        except BundleError:
            continue
        onnx.load_from_string(PROBABILITIES[:length])  # the file was cut between two fields


@given(
    st.binary(max_size=300)
    | st.builds(
        lambda position, content: PROBABILITIES[:position] + content + PROBABILITIES[position + 1 :],
        st.integers(0, len(PROBABILITIES) - 1),
        st.binary(min_size=1, max_size=3),
    )
)
@settings(max_examples=500)
def test_arbitrary_bytes_never_crash_the_inspection(content: bytes) -> None:
    with contextlib.suppress(BundleError):
        assert inspect(content, MAX_NODES).nodes <= MAX_NODES
