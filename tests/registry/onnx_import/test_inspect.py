"""Unsafe or damaged ONNX content is rejected before a runtime opens it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from rowcast.errors import BundleError
from rowcast.registry.onnx_import.inspect import Inspection, inspect
from support import models, onnx_fuzzing
from support.onnx_fuzzing import (
    BRANCHES,
    FUNCTION,
    GRAPH,
    encoded_fields,
    external_tensor,
    message_field,
    official_view,
    varint,
)
from support.onnx_graphs import BOOL, FLOAT, PROBABILITIES, onnx_model

MAX_NODES = 100


def refusal(content: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        inspect(content, MAX_NODES)
    return caught.value.slug


def as_initializer(model: Any) -> None:
    model.graph.initializer.append(external_tensor())


def as_constant(model: Any) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=external_tensor()))


def in_subgraph(model: Any) -> None:
    branch = helper.make_graph([], "branch", [], [], [external_tensor()])
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch))


def attribute(**values: Any) -> Any:
    """Return an attribute whose fields have these values."""
    attribute = onnx.AttributeProto(name="a")
    for name, value in values.items():
        field = getattr(attribute, name)
        if isinstance(value, list):
            field.extend(value)
        else:
            field.CopyFrom(value)
    return attribute


def in_attribute(**values: Any) -> Callable[[Any], None]:
    """Return a function that adds a node to a model; the node has an attribute whose fields have these values."""

    def hide(model: Any) -> None:
        node = helper.make_node("Custom", [], ["e"])
        node.attribute.append(attribute(**values))
        model.graph.node.append(node)

    return hide


def harmless() -> Any:
    return numpy_helper.from_array(np.zeros(4, np.float32), "v")


def graph_with(tensor: Any) -> Any:
    return helper.make_graph([], "sub", [], [], [tensor])


def sparse(values: Any, indices: Any) -> Any:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[8])


in_graphs = in_attribute(graphs=[graph_with(harmless()), graph_with(external_tensor())])
in_tensors = in_attribute(tensors=[harmless(), external_tensor()])
in_sparse_values = in_attribute(sparse_tensor=sparse(external_tensor(), harmless()))
in_sparse_indices = in_attribute(sparse_tensors=[sparse(harmless(), external_tensor())])


def in_sparse_initializer(model: Any) -> None:
    model.graph.sparse_initializer.append(sparse(external_tensor(), harmless()))


def as_entry_without_location_type(model: Any) -> None:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w2")
    tensor.external_data.add().key = "location"
    model.graph.initializer.append(tensor)


def test_graphs_exported_by_rowcast_pass_inspection() -> None:
    for content in (models.mlp_graph(3, 2), models.trees_graph(4, 1), models.hungry_graph(2), PROBABILITIES):
        assert inspect(content, MAX_NODES).nodes >= 1


def test_the_tree_attributes_of_a_forest_are_skipped() -> None:
    content = models.trees_graph(4, 2, trees=5000)

    assert len(content) > 500_000
    assert inspect(content, MAX_NODES).nodes < 10


@pytest.mark.parametrize(
    "hide",
    [
        as_initializer,
        as_constant,
        in_subgraph,
        in_graphs,
        in_tensors,
        in_sparse_values,
        in_sparse_indices,
        in_sparse_initializer,
        as_entry_without_location_type,
    ],
    ids=[
        "initializer",
        "constant",
        "subgraph",
        "graphs",
        "tensors",
        "sparse values",
        "sparse indices",
        "sparse initializer",
        "no location type",
    ],
)
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
    nodes = [helper.make_node("Abs", ["c"], [f"a{index}"]) for index in range(MAX_NODES)]
    branch = helper.make_graph(nodes, "branch", [], [])
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


@pytest.mark.parametrize(
    "hidden",
    [
        message_field(25, FUNCTION.SerializeToString(), high_bits=1),
        message_field(25, FUNCTION.SerializeToString(), padding=1),
        message_field(14, b"", padding=3),
        message_field(14, varint(0, padding=1), wire_type=0),
        message_field(14, bytes([0xFF] * 9 + [0x7F]), wire_type=0),
        varint(14 << 3 | 2) + varint(1, padding=1) + b"a",
    ],
    ids=["tag-above-32-bits", "long-tag", "long-empty-field-tag", "long-number", "number-above-64-bits", "long-length"],
)
def test_an_overlong_tag_or_number_is_rejected(hidden: bytes) -> None:
    assert refusal(PROBABILITIES + hidden) == "not-onnx"


@pytest.mark.parametrize(
    "added",
    [
        message_field(7, GRAPH),
        message_field(7, varint(1), wire_type=0),
        message_field(8, message_field(1, b"com.evil") + message_field(1, b"")),
    ],
    ids=["second-graph", "wrong-wire-type", "second-domain"],
)
def test_a_duplicate_field_or_a_wrong_wire_type_is_rejected(added: bytes) -> None:
    assert refusal(PROBABILITIES + added) == "not-onnx"


def test_an_external_location_beyond_32_bits_is_rejected() -> None:
    tensor = message_field(14, varint(2**32 + 1), wire_type=0)

    assert refusal(message_field(7, GRAPH + message_field(5, tensor))) == "external-data"


def test_a_file_that_is_both_an_onnx_model_and_an_ort_format_model_is_rejected() -> None:
    polyglot = message_field(2, b"abORTM") + PROBABILITIES

    assert onnx.load_from_string(polyglot).graph.node
    assert refusal(polyglot) == "not-onnx"


@given(st.sampled_from(onnx_fuzzing.FILES), st.randoms(use_true_random=False))
@settings(max_examples=400, deadline=None)
def test_the_inspection_agrees_with_the_official_parser_on_every_file_that_it_accepts(
    content: bytes, chance: random.Random
) -> None:
    """A shorter version of `make fuzz-onnx`."""
    assert onnx_fuzzing.verdict(onnx_fuzzing.alter(chance, content)) != "different"


def test_some_altered_files_are_accepted_and_others_are_rejected() -> None:
    verdicts, example = onnx_fuzzing.run(300, random.Random(0))

    assert verdicts["agreed"] > 20
    assert verdicts["refused"] > 100
    assert example is None


@given(st.sampled_from([PROBABILITIES, BRANCHES]), st.data())
@settings(max_examples=200, deadline=None)
def test_the_inspection_rejects_every_field_that_the_official_parser_rejects(
    content: bytes, data: st.DataObject
) -> None:
    start, begin, end, _ = data.draw(st.sampled_from(encoded_fields(content)))
    number = content[start] >> 3
    field = message_field(
        number,
        content[begin:end],
        high_bits=data.draw(st.sampled_from([0, 1, 4, 2**20])),
        padding=data.draw(st.integers(0, 8)),
    )
    changed = content[:start] + field + content[end:]
    if official_view(changed) is None:
        assert refusal(changed) == "not-onnx"


def nested(content: bytes, *numbers: int) -> bytes:
    """Wrap a message's content in these fields, which are listed from the outermost inward."""
    for number in reversed(numbers):
        content = message_field(number, content)
    return content


MESSAGES: dict[tuple[int, ...], tuple[Any, dict[int, bytes]]] = {
    (): (onnx.ModelProto, {7: b"", 8: b"", 20: b"", 25: b""}),
    (8,): (onnx.OperatorSetIdProto, {1: b""}),
    (7,): (onnx.GraphProto, {1: b"", 5: b"", 11: message_field(1, b"i"), 12: message_field(1, b"o"), 15: b""}),
    (7, 1): (onnx.NodeProto, {1: b"a", 2: b"b", 3: b"c", 4: b"Abs", 5: b"", 7: b""}),
    (7, 1, 5): (onnx.AttributeProto, {5: b"", 6: b"", 10: b"", 11: b"", 22: b"", 23: b""}),
    (7, 5): (onnx.TensorProto, {8: b"t", 13: b""}),
    (7, 15): (onnx.SparseTensorProto, {1: b"", 2: b""}),
    (7, 11): (onnx.ValueInfoProto, {1: b"i"}),
}
"""For each path of field numbers: the type of the message at this path, and valid content for each inspected field."""
INSPECTED_FIELDS = [
    pytest.param(path, number, id=f"{kind.DESCRIPTOR.name}-{number}")
    for path, (kind, fields) in MESSAGES.items()
    for number in fields
]


def model_with(content: bytes, path: tuple[int, ...]) -> bytes:
    """Return a model with this content at the path. If necessary, add an empty graph, because every model needs one."""
    return nested(content, *path) + (b"" if path[:1] == (7,) or content[:1] == b"\x3a" else message_field(7, b""))


@pytest.mark.parametrize(("path", "number"), INSPECTED_FIELDS)
def test_each_field_that_is_inspected_must_have_its_wire_type(path: tuple[int, ...], number: int) -> None:
    assert refusal(model_with(message_field(number, bytes(8), wire_type=1), path)) == "not-onnx"


@pytest.mark.parametrize(("path", "number"), INSPECTED_FIELDS)
def test_a_field_may_be_repeated_only_if_the_onnx_format_says_so(path: tuple[int, ...], number: int) -> None:
    kind, fields = MESSAGES[path]
    is_repeated = hasattr(getattr(kind(), kind.DESCRIPTOR.fields_by_number[number].name), "extend")
    twice = model_with(2 * message_field(number, fields[number]), path)

    assert (refusal_or_none(twice) == "not-onnx") is not is_repeated


def refusal_or_none(content: bytes) -> str | None:
    try:
        inspect(content, MAX_NODES)
    except BundleError as error:
        return error.slug
    return None


@pytest.mark.parametrize("wire_type", [1, 2, 5])
def test_the_location_of_a_tensor_must_be_a_number_and_occur_once(wire_type: int) -> None:
    content = bytes(8) if wire_type == 1 else bytes(4)
    location = message_field(14, varint(0), wire_type=0)

    assert refusal(nested(message_field(14, content, wire_type=wire_type), 7, 5)) == "not-onnx"
    assert refusal(nested(location + location, 7, 5)) == "not-onnx"
    assert refusal_or_none(nested(location, 7, 5)) is None


def test_a_graph_of_exactly_the_maximum_number_of_nodes_is_accepted() -> None:
    chain = [helper.make_node("Abs", [f"a{index}"], [f"a{index + 1}"]) for index in range(MAX_NODES)]

    content = onnx_model(chain, [("a0", FLOAT, ["N", 2])], [(f"a{MAX_NODES}", FLOAT, ["N", 2])])

    assert inspect(content, MAX_NODES) == Inspection(MAX_NODES, frozenset({b"", b"ai.onnx.ml"}))


@pytest.mark.parametrize(("levels", "slug"), [(8, None), (9, "too-deep")])
def test_subgraphs_may_be_nested_eight_levels_deep(levels: int, slug: str | None) -> None:
    graph = b""
    for _ in range(levels - 1):
        graph = nested(graph, 1, 5, 6)

    assert refusal_or_none(message_field(7, graph)) == slug


def test_a_node_without_a_domain_uses_the_standard_domain() -> None:
    assert inspect(nested(message_field(4, b"Abs"), 7, 1), MAX_NODES).domains == {b""}
    assert inspect(message_field(7, b""), MAX_NODES).domains == frozenset()


def test_a_sparse_initializer_is_a_constant() -> None:
    values, indices = harmless(), numpy_helper.from_array(np.zeros(4, np.int64), "positions")
    model = onnx.load_from_string(PROBABILITIES)
    model.graph.sparse_initializer.append(sparse(values, indices))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["v"], ["zeros"]))
    assert inspect(model.SerializeToString(), MAX_NODES).nodes == 3

    model.graph.node.append(helper.make_node("ConstantOfShape", ["positions"], ["more"]))
    assert refusal(model.SerializeToString()) == "data-dependent-size"


def test_an_error_shows_at_most_eighty_characters_of_a_domain() -> None:
    with pytest.raises(BundleError) as caught:
        inspect(nested(message_field(7, b"d" * 81), 7, 1), MAX_NODES)

    assert f"the domain {'d' * 80!r};" in caught.value.message


def test_a_model_without_a_graph_is_rejected() -> None:
    assert refusal(b"") == "not-onnx"
    assert refusal(message_field(8, b"")) == "not-onnx"
