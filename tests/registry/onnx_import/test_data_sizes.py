"""A graph is rejected if the values in a row determine the size of a tensor or the number of iterations."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from rowcast.errors import BundleError
from rowcast.registry.onnx_import.data_sizes import SIZE_INPUTS, Scope, outputs_depend
from rowcast.registry.onnx_import.inspect import inspect
from support import models
from support.onnx_graphs import FLOAT, onnx_model

SIZE = [
    helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
    helper.make_node("Cast", ["most"], ["size"], to=TensorProto.INT64),
    helper.make_node("Reshape", ["size", "one"], ["sizes"]),
]
CONSTANTS = {"one": np.array([1]), "zero": np.array(0), "step": np.array(1), "many": np.array([1000])}
INDEX_INPUTS = frozenset(
    {"ArrayFeatureExtractor", "Gather", "GatherElements", "GatherND", "Scatter", "ScatterElements", "ScatterND"}
    | {"CumProd", "CumSum", "GRU", "LSTM", "RNN", "ReverseSequence", "RoiAlign", "RotaryEmbedding", "TensorScatter"}
    | {"Attention", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss", "Trilu", "Loop", "Scan"}
    | {"QLinearConv", "DequantizeLinear", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Equal"}
)
"""Operators with integer inputs that do not affect the size of their outputs, and the operators for loops."""


def graph(*nodes: Any, weights: dict[str, Any] | None = None, inputs: Any = (("x", FLOAT, ["N", 2]),)) -> bytes:
    return onnx_model(list(nodes), list(inputs), [("p", FLOAT, ["N", 2])], CONSTANTS | (weights or {}))


def refusal(content: bytes) -> BundleError:
    with pytest.raises(BundleError) as caught:
        inspect(content, 100)
    return caught.value


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("ConstantOfShape", ["sizes"], ["p"]),
        helper.make_node("Expand", ["x", "sizes"], ["p"]),
        helper.make_node("Tile", ["x", "sizes"], ["p"]),
        helper.make_node("Range", ["zero", "size", "step"], ["p"]),
        helper.make_node("Pad", ["x", "sizes"], ["p"]),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["p"]),
        helper.make_node("OneHot", ["x", "size", "x"], ["p"]),
        helper.make_node("NonZero", ["x"], ["p"]),
        helper.make_node("StringConcat", ["x", "x"], ["p"]),
        helper.make_node("ReduceSum", ["x", "sizes"], ["p"]),
    ],
    ids=lambda node: node.op_type,
)
def test_an_operator_whose_output_size_depends_on_data_is_rejected(node: Any) -> None:
    error = refusal(graph(*SIZE, node))

    assert error.slug == "data-dependent-size"
    assert node.op_type in error.message


def test_a_size_from_constants_or_from_the_shapes_of_tensors_is_accepted() -> None:
    content = graph(
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Mul", ["shape", "step"], ["sizes"]),
        helper.make_node("Expand", ["zero", "sizes"], ["expanded"]),
        helper.make_node("ConstantOfShape", ["many"], ["zeros"]),
        helper.make_node("Add", ["x", "expanded"], ["p"]),
    )

    assert inspect(content, 100).nodes == 5


def test_a_loop_is_rejected() -> None:
    assert refusal(models.endless_graph(2)).slug == "data-dependent-size"


def branch(name: str, *nodes: Any, inputs: tuple[str, ...] = (), weights: tuple[Any, ...] = ()) -> Any:
    infos = [helper.make_tensor_value_info(each, FLOAT, None) for each in inputs]
    return helper.make_graph(list(nodes), name, infos, [helper.make_tensor_value_info(name, FLOAT, None)], weights)


def test_a_condition_that_depends_on_data_is_rejected() -> None:
    both = {
        "then_branch": branch("a", helper.make_node("ConstantOfShape", ["many"], ["a"])),
        "else_branch": branch("b", helper.make_node("Identity", ["one"], ["b"])),
    }
    flag = helper.make_node("Cast", ["most"], ["flag"], to=TensorProto.BOOL)

    assert refusal(graph(*SIZE, flag, helper.make_node("If", ["flag"], ["p"], **both))).slug == "data-dependent-size"
    assert inspect(graph(helper.make_node("If", ["zero"], ["p"], **both)), 100).nodes == 3


def test_a_size_that_comes_from_data_through_a_subgraph_is_rejected() -> None:
    both = {
        "then_branch": branch("a", helper.make_node("Identity", ["sizes"], ["a"])),
        "else_branch": branch("b", helper.make_node("Identity", ["one"], ["b"])),
    }
    nodes = [helper.make_node("If", ["zero"], ["chosen"], **both), helper.make_node("Expand", ["x", "chosen"], ["p"])]

    assert refusal(graph(*SIZE, *nodes)).slug == "data-dependent-size"


def test_a_size_that_comes_from_data_inside_a_subgraph_is_rejected() -> None:
    body = branch("out", helper.make_node("Expand", ["one", "step_in"], ["out"]), inputs=("step_in",))
    scan = helper.make_node("Scan", ["x"], ["p"], body=body, num_scan_inputs=1)

    assert refusal(graph(scan)).slug == "data-dependent-size"


def test_a_scan_without_sizes_that_depend_on_data_is_accepted() -> None:
    body = branch("out", helper.make_node("Abs", ["step_in"], ["out"]), inputs=("step_in",))

    assert inspect(graph(helper.make_node("Scan", ["x"], ["p"], body=body, num_scan_inputs=1)), 100).nodes == 2


def test_a_random_size_is_rejected() -> None:
    random = helper.make_node("RandomUniform", [], ["size"], shape=[1])
    cast = helper.make_node("Cast", ["size"], ["sizes"], to=TensorProto.INT64)

    assert refusal(graph(random, cast, helper.make_node("Expand", ["x", "sizes"], ["p"]))).slug == "data-dependent-size"


def test_a_size_that_is_defined_after_its_use_is_rejected() -> None:
    assert refusal(graph(helper.make_node("Expand", ["x", "sizes"], ["p"]), *SIZE)).slug == "data-dependent-size"


def test_an_initializer_is_a_constant_even_if_it_is_listed_as_an_input() -> None:
    inputs = [("x", FLOAT, ["N", 2]), ("many", TensorProto.INT64, [1])]

    assert inspect(graph(helper.make_node("Expand", ["x", "many"], ["p"]), inputs=inputs), 100).nodes == 1


def test_a_constant_cannot_be_redefined_as_data() -> None:
    hidden = helper.make_node("Identity", ["sizes"], ["many"])
    shadowed = branch("a", hidden, helper.make_node("Expand", ["x", "many"], ["a"]))
    as_input = branch("a", helper.make_node("Expand", ["x", "many"], ["a"]), inputs=("many",))
    as_weight = branch("a", helper.make_node("Abs", ["x"], ["a"]), weights=(numpy_helper.from_array(np.ones(1), "x"),))

    assert refusal(graph(*SIZE, hidden)).slug == "duplicate-value"
    for body in (shadowed, as_input, as_weight):
        node = helper.make_node("If", ["zero"], ["p"], then_branch=body, else_branch=branch("b"))
        assert refusal(graph(*SIZE, node)).slug == "duplicate-value"


def test_every_standard_operator_with_an_integer_input_is_classified() -> None:
    """A new version of onnx can add operators. For each new operator, decide whether an input determines a size."""
    integers = {"tensor(int64)", "tensor(int32)"}
    found = {
        schema.name
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.domain in ("", "ai.onnx.ml")
        for each in schema.inputs
        if integers & set(each.types) and not {"tensor(float)", "tensor(string)"} & set(each.types)
    }

    assert found - {name.decode() for name in SIZE_INPUTS} <= INDEX_INPUTS


SIZE_INPUT_NAMES = {
    "AffineGrid": "size",
    "BlackmanWindow": "size",
    "CenterCropPad": "shape",
    "Col2Im": "image_shape block_shape",
    "Compress": "condition",
    "ConstantOfShape": "input",
    "DFT": "dft_length axis",
    "Expand": "shape",
    "HammingWindow": "size",
    "HannWindow": "size",
    "If": "cond",
    "ImageDecoder": "encoded_stream",
    "MaxUnpool": "output_shape",
    "MelWeightMatrix": "num_mel_bins dft_length",
    "NonMaxSuppression": "boxes scores max_output_boxes_per_class iou_threshold score_threshold",
    "NonZero": "X",
    "OneHot": "depth",
    "Pad": "pads axes",
    "Range": "start limit delta",
    "Reshape": "shape",
    "Resize": "scales roi sizes",
    "STFT": "frame_step frame_length",
    "SequenceAt": "position",
    "SequenceErase": "position",
    "SequenceInsert": "position",
    "Slice": "starts ends axes steps",
    "Split": "split",
    "SplitToSequence": "split",
    "Squeeze": "axes",
    "StringConcat": "X Y",
    "StringSplit": "X",
    "Tile": "repeats tiles axis",
    "TopK": "K",
    "Unique": "X",
    "Unsqueeze": "axes",
    "Upsample": "scales",
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"), "axes"),
    **dict.fromkeys(("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"), "axes"),
}
"""The names of the inputs that determine the size of an output, in any version of the operator."""


def test_the_inputs_that_determine_a_size_are_those_with_these_names_in_the_onnx_standard() -> None:
    places: dict[str, set[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.name in SIZE_INPUT_NAMES:
            determining = SIZE_INPUT_NAMES[schema.name].split()
            places.setdefault(schema.name, set()).update(
                place for place, each in enumerate(schema.inputs) if each.name in determining
            )

    assert {name.decode(): set(indices) for name, indices in SIZE_INPUTS.items()} == places


def test_the_first_inputs_of_an_operator_do_not_determine_its_size() -> None:
    assert outputs_depend(b"Pad", b"", [True, False]) is True
    assert outputs_depend(b"Pad", b"", [False, False, True]) is True
    assert outputs_depend(b"Pad", b"", [False]) is False
    with pytest.raises(BundleError) as caught:
        outputs_depend(b"Pad", b"n" * 81, [True, False, False, True])
    assert f"the operator Pad (node {'n' * 80!r}) depends" in caught.value.message


@pytest.mark.parametrize(("operator", "depends"), [(b"Shape", False), (b"Size", False), (b"Abs", True)])
def test_a_shape_does_not_depend_on_data(operator: bytes, depends: bool) -> None:
    assert outputs_depend(operator, b"", [True]) is depends
    assert outputs_depend(operator, b"", [False]) is False


@pytest.mark.parametrize("operator", [b"RandomNormal", b"Multinomial", b"Dropout", b"Bernoulli"])
def test_a_random_value_counts_as_data(operator: bytes) -> None:
    assert outputs_depend(operator, b"", []) is True


def test_a_value_of_an_outer_graph_is_visible_in_all_inner_graphs() -> None:
    outer = Scope()
    outer.define_constant(b"constant")
    outer.define_input(b"data")
    inner = Scope(Scope(outer))

    assert [inner.depends(name) for name in (b"constant", b"data", b"unknown", b"")] == [False, True, True, False]


def test_unnamed_values_may_be_repeated() -> None:
    outer = Scope()
    outer.define_output(b"", depends=True)
    inner = Scope(outer)
    inner.define_output(b"", depends=True)
    inner.define_constant(b"")

    assert not inner.depends(b"")


def test_the_error_for_a_duplicate_value_shows_at_most_eighty_characters_of_its_name() -> None:
    scope = Scope()
    scope.define_output(b"v" * 81, depends=False)

    for inner in (scope, Scope(scope), Scope(Scope(scope))):
        with pytest.raises(BundleError) as caught:
            inner.define_output(b"v" * 81, depends=True)
        assert f"the value {'v' * 80!r} more than once" in caught.value.message
