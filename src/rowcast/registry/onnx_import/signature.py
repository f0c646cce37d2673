"""From what a graph takes and gives to a schema, a tensor plan and the one output that is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from rowcast.errors import BundleError, SettingsError
from rowcast.registry.onnx_import.metadata import Metadata
from rowcast.registry.ports import GraphTensor
from rowcast.schema.encoding import DType, Feature, Plan, TensorSpec
from rowcast.schema.schema import Column, Schema, Value
from rowcast.schema.values import Kind

DTYPES: Final[Mapping[str, DType]] = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
    "tensor(string)": "string",
}
KINDS: Final[Mapping[DType, Kind]] = {
    "float32": "number",
    "float64": "number",
    "int64": "integer",
    "bool": "boolean",
    "string": "category",
}
FLOATS: Final = ("tensor(float)", "tensor(double)")
LABELS: Final = ("tensor(int64)", "tensor(string)", "tensor(bool)", "tensor(int32)")
MAPS: Final = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")


class SeenColumn(msgspec.Struct, frozen=True, kw_only=True):
    """What a table showed of a column."""

    low: float | None = None
    high: float | None = None
    levels: tuple[str, ...] = ()
    missing: bool = False


def plan_of(
    inputs: Sequence[GraphTensor], metadata: Metadata, seen: Mapping[str, SeenColumn], table: Sequence[str] = ()
) -> tuple[Schema, Plan]:
    """The columns and how they become tensors; BundleError for inputs that rows cannot be."""
    if not inputs:
        raise BundleError("the ONNX graph has no inputs")
    widths = [_width(tensor, metadata, alone=len(inputs) == 1) for tensor in inputs]
    names = _names(inputs, widths, metadata, table)
    columns: list[Column] = []
    plan: list[TensorSpec] = []
    fills = _fills(metadata, inputs)
    for tensor, width in zip(inputs, widths, strict=True):
        dtype = DTYPES[tensor.type]
        taken, names = names[:width], names[width:]
        optional = [name for name in taken if _may_miss(name, metadata)]
        fill = _fill(fills.get(tensor.name), dtype, optional)
        columns += [_column(name, KINDS[dtype], seen.get(name), missing=name in optional) for name in taken]
        shape = (width,) if len(tensor.shape) == 2 else ()
        plan.append(TensorSpec(tensor.name, dtype, shape, tuple(map(Feature, taken)), fill))
    return Schema(tuple(columns)), tuple(plan)


def _width(tensor: GraphTensor, metadata: Metadata, *, alone: bool) -> int:
    if tensor.type not in DTYPES:
        raise BundleError(
            f"the input {tensor} is of a type that no column has; there are {', '.join(DTYPES)}: cast it in the graph"
        )
    if len(tensor.shape) not in (1, 2):
        raise BundleError(f"the input {tensor} must be [N] or [N, k]: a row is a list of values")
    if tensor.shape[0] is not None:
        raise BundleError(
            f"the input {tensor} takes {tensor.shape[0]} rows at a time and no others; export it with a first "
            "dimension that may vary (dynamic_axes, dynamic_shapes)"
        )
    if len(tensor.shape) == 1:
        return 1
    told = tensor.shape[1]
    if told is None and alone:
        shape = metadata.input_shape
        told = len(metadata.features) if metadata.features else shape[-1] if shape else None
    if told is None or told < 1:
        raise BundleError(
            f"the input {tensor} does not say how many columns it has; name them in the metadata's features"
        )
    return told


def _names(inputs: Sequence[GraphTensor], widths: Sequence[int], metadata: Metadata, table: Sequence[str]) -> list[str]:
    """The columns' names in the order of the tensors: the metadata's, the table's, else made of the inputs'."""
    total = sum(widths)
    given = metadata.features
    own = [
        tensor.name if width == 1 else f"{tensor.name}_{place}"
        for tensor, width in zip(inputs, widths, strict=True)
        for place in range(width)
    ]
    if given is not None:
        if len(given) != total:
            raise SettingsError(
                f"the model's metadata: features names {len(given)} columns; the graph takes {total} "
                f"({', '.join(map(str, inputs[:8]))})"
            )
        return own if set(own) == set(given) else [name.strip() for name in given]
    shape = metadata.input_shape
    if shape and shape[-1] is not None and len(inputs) == 1 and shape[-1] != total:
        raise SettingsError(f"the model's metadata: input_shape says {shape[-1]} columns; the graph takes {total}")
    if set(own) <= set(table):
        return own
    if len(table) == total and len(inputs) == 1:
        return list(table)
    return [f"feature_{place}" for place in range(total)] if len(inputs) == 1 and total > 1 else own


def _may_miss(name: str, metadata: Metadata) -> bool:
    return metadata.missing if isinstance(metadata.missing, bool) else name in metadata.missing


def _fills(metadata: Metadata, inputs: Sequence[GraphTensor]) -> dict[str, Any]:
    names = [tensor.name for tensor in inputs]
    if not isinstance(metadata.fill, dict):
        return dict.fromkeys(names, metadata.fill)
    unknown = sorted(metadata.fill.keys() - set(names))
    if unknown:
        raise SettingsError(
            f"the model's metadata: fill names {', '.join(unknown)}; the graph's inputs are {', '.join(names)}"
        )
    return dict(metadata.fill)


def _fill(given: Any, dtype: DType, optional: Sequence[str]) -> float | str | None:
    """What the plan says; SettingsError where a missing value would have nothing to stand for it."""
    if not optional:
        return None
    if dtype == "string":
        return "" if given is None else str(given)
    if given is None and dtype in ("int64", "bool"):
        raise SettingsError(
            f"the model's metadata: {optional[0]!r} may be missing, so `fill` must say what the graph gets"
        )
    if isinstance(given, str):
        raise SettingsError(f"the model's metadata: fill is {given!r}, and {optional[0]!r} is a number")
    if given is not None and dtype in ("int64", "bool") and float(given) != int(given):
        raise SettingsError(f"the model's metadata: fill is {given!r}, and {optional[0]!r} takes whole numbers")
    return None if given is None else float(given)


def _column(name: str, kind: Kind, seen: SeenColumn | None, *, missing: bool) -> Column:
    if seen is None:
        return Column(name=name, kind=kind, missing=missing)
    numeric = kind in ("number", "integer")
    levels = seen.levels if kind == "category" else ()
    low, high = (seen.low, seen.high) if numeric else (None, None)
    return Column(name=name, kind=kind, missing=missing, low=low, high=high, levels=levels)


def with_examples(schema: Schema, row: Mapping[str, Value]) -> Schema:
    """The schema with this row's values as its examples."""
    return Schema(tuple(msgspec.structs.replace(one, example=row.get(one.name)) for one in schema.columns))


def chosen_output(outputs: Sequence[GraphTensor], metadata: Metadata) -> GraphTensor:
    """The output that is read: the one that is named, else maps, the one of floats, the one of labels."""
    if metadata.output:
        for tensor in outputs:
            if tensor.name == metadata.output:
                return _readable(tensor)
        raise SettingsError(
            f"the model's metadata: output is {metadata.output!r}; the graph gives {', '.join(map(str, outputs))}"
        )
    for types in (MAPS, FLOATS, LABELS):
        found = [tensor for tensor in outputs if tensor.type in types]
        if len(found) > 1:
            raise SettingsError(
                f"the graph gives {', '.join(map(str, found))}; name the one to read as `output` in the metadata"
            )
        if found:
            return _readable(found[0])
    raise BundleError(f"the graph gives {', '.join(map(str, outputs))}; none of it is probabilities, labels or values")


def label_output(outputs: Sequence[GraphTensor], chosen: GraphTensor) -> GraphTensor | None:
    """The graph's own labels beside what is read, to compare with."""
    found = [tensor for tensor in outputs if tensor.type in LABELS and tensor.name != chosen.name]
    return found[0] if len(found) == 1 and len(found[0].shape) <= 2 else None


def _readable(tensor: GraphTensor) -> GraphTensor:
    if tensor.type in MAPS:
        return tensor
    if tensor.type not in (*FLOATS, *LABELS):
        raise BundleError(f"the output {tensor} is neither probabilities, labels nor values [N] or [N, k]")
    return tensor
