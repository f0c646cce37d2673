"""Find operators whose output size or number of iterations depends on the values in a row.

The sandbox can test only some rows. Without such operators, the size of every tensor depends only on the number of
rows, so no other row can make a tested graph run longer or use more memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rowcast.errors import BundleError

REDUCTIONS: Final = (b"L1", b"L2", b"LogSum", b"LogSumExp", b"Max", b"Mean", b"Min", b"Prod", b"Sum", b"SumSquare")
SIZE_INPUTS: Final[Mapping[bytes, tuple[int, ...]]] = {
    b"AffineGrid": (1,),
    b"BlackmanWindow": (0,),
    b"CenterCropPad": (1,),
    b"Col2Im": (1, 2),
    b"Compress": (1,),
    b"ConstantOfShape": (0,),
    b"DFT": (1, 2),
    b"Expand": (1,),
    b"HammingWindow": (0,),
    b"HannWindow": (0,),
    b"If": (0,),
    b"ImageDecoder": (0,),
    b"MaxUnpool": (2,),
    b"MelWeightMatrix": (0, 1),
    b"NonMaxSuppression": (0, 1, 2, 3, 4),
    b"NonZero": (0,),
    b"OneHot": (1,),
    b"Pad": (1, 3),
    b"Range": (0, 1, 2),
    b"Reshape": (1,),
    b"Resize": (1, 2, 3),
    b"STFT": (1, 3),
    b"SequenceAt": (1,),
    b"SequenceErase": (1,),
    b"SequenceInsert": (2,),
    b"Slice": (1, 2, 3, 4),
    b"Split": (1,),
    b"SplitToSequence": (1,),
    b"Squeeze": (1,),
    b"StringConcat": (0, 1),
    b"StringSplit": (0,),
    b"Tile": (1, 2),
    b"TopK": (1,),
    b"Unique": (0,),
    b"Unsqueeze": (1,),
    b"Upsample": (1,),
    **{b"Reduce" + name: (1,) for name in REDUCTIONS},
}
"""The inputs whose values determine the size of an operator's output. For `If`, the condition selects the branch."""
RANDOM: Final = frozenset(
    {b"Bernoulli", b"Dropout", b"Multinomial", b"RandomNormal", b"RandomNormalLike", b"RandomUniform"}
    | {b"RandomUniformLike"}
)
SHAPES: Final = frozenset({b"SequenceLength", b"Shape", b"Size"})


class Scope:
    """The values that are visible in a graph or subgraph, and whether they depend on data."""

    def __init__(self, outer: Scope | None = None) -> None:
        self._outer = outer
        self._values: dict[bytes, bool] = {b"": False}  # an omitted optional input has an empty name

    def depends(self, name: bytes) -> bool:
        """Return whether a value depends on data. A value that is not known yet is assumed to depend on data."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope._values:
                return scope._values[name]
            scope = scope._outer
        return True

    def define_input(self, name: bytes) -> None:
        """Add an input of the graph. In the outermost graph, an input that has an initializer is a constant."""
        if self._outer is not None or name not in self._values:
            self._check_outer(name)
            self._values[name] = True

    def define_constant(self, name: bytes) -> None:
        """Add an initializer."""
        self._check_outer(name)
        self._values[name] = False

    def define_output(self, name: bytes, *, depends: bool) -> None:
        """Add an output of a node. Every value must have its own name: a duplicate could hide a dependence on data."""
        if name:
            if name in self._values:
                raise _duplicate(name)
            self._check_outer(name)
            self._values[name] = depends

    def _check_outer(self, name: bytes) -> None:
        scope = self._outer
        while scope is not None:
            if name and name in scope._values:
                raise _duplicate(name)
            scope = scope._outer


def outputs_depend(operator: bytes, name: bytes, inputs: Sequence[bool]) -> bool:
    """Return whether a node's outputs depend on data, given whether each of its inputs does.

    Raise BundleError if the size of an output or the number of iterations depends on data.
    """
    if operator == b"Loop":
        message = (
            f"the ONNX graph contains a loop{_named(name)}, which could run endlessly; "
            "export the model without Loop nodes"
        )
        raise BundleError(message, slug="data-dependent-size")
    if any(inputs[index] for index in SIZE_INPUTS.get(operator, ()) if index < len(inputs)):
        message = (
            f"in the ONNX graph, the output size of the operator {operator.decode()}{_named(name)} depends on the "
            "values in the row; export a graph whose sizes depend only on the number of rows"
        )
        raise BundleError(message, slug="data-dependent-size")
    return operator in RANDOM or (operator not in SHAPES and any(inputs))


def _named(name: bytes) -> str:
    return f" (node {name.decode(errors='replace')[:80]!r})" if name else ""


def _duplicate(name: bytes) -> BundleError:
    shown = name.decode(errors="replace")[:80]
    return BundleError(f"the ONNX graph defines the value {shown!r} more than once", slug="duplicate-value")
