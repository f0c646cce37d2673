"""Derive a schema and a tensor plan from the inputs of an imported graph, and select the output to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from rowcast.errors import BundleError
from rowcast.registry.onnx_import.metadata import Metadata, metadata_error
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


class ObservedColumn(msgspec.Struct, frozen=True, kw_only=True):
    """The range or levels of a column in the user's table."""

    low: float | None = None
    high: float | None = None
    levels: tuple[str, ...] = ()


def build_plan(
    inputs: Sequence[GraphTensor],
    metadata: Metadata,
    *,
    observed: Mapping[str, ObservedColumn],
    table_columns: Sequence[str] = (),
) -> tuple[Schema, Plan]:
    """Return the schema and the plan for converting rows into tensors; raise BundleError for an unsupported input."""
    if not inputs:
        raise _unsupported_input("the ONNX graph has no inputs")
    widths = [_width(tensor, metadata, is_only_input=len(inputs) == 1) for tensor in inputs]
    names = _column_names(inputs, widths, metadata, table_columns=table_columns)
    fills = _fills_by_input(metadata, inputs)
    columns: list[Column] = []
    plan: list[TensorSpec] = []
    for tensor, width in zip(inputs, widths, strict=True):
        dtype = DTYPES[tensor.type]
        own_names, names = names[:width], names[width:]
        optional = [name for name in own_names if _is_optional(name, metadata)]
        fill = _fill(fills.get(tensor.name), dtype, optional)
        columns += [_column(name, KINDS[dtype], observed.get(name), missing=name in optional) for name in own_names]
        shape = (width,) if len(tensor.shape) == 2 else ()
        plan.append(TensorSpec(tensor.name, dtype, shape, tuple(map(Feature, own_names)), fill))
    return Schema(tuple(columns)), tuple(plan)


def _width(tensor: GraphTensor, metadata: Metadata, *, is_only_input: bool) -> int:
    """Return the number of columns in an input."""
    if tensor.type not in DTYPES:
        raise _unsupported_input(
            f"the input {tensor} has an unsupported type (supported: {', '.join(DTYPES)}); add a Cast node to the graph"
        )
    if len(tensor.shape) not in (1, 2):
        raise _unsupported_input(f"the input {tensor} has an unsupported shape; expected [N] or [N, k]")
    if tensor.shape[0] is not None:
        raise _unsupported_input(
            f"the input {tensor} accepts exactly {tensor.shape[0]} rows; export the model with a dynamic first "
            "dimension (dynamic_axes or dynamic_shapes)"
        )
    if len(tensor.shape) == 1:
        return 1
    width = tensor.shape[1]
    if width is None and is_only_input:
        shape = metadata.input_shape
        width = len(metadata.features) if metadata.features else shape[-1] if shape else None
    if width is None or width < 1:
        raise _unsupported_input(
            f"the input {tensor} has an unknown number of columns; list the columns as `features` in the model metadata"
        )
    return width


def _column_names(
    inputs: Sequence[GraphTensor], widths: Sequence[int], metadata: Metadata, *, table_columns: Sequence[str]
) -> list[str]:
    """Return the column names in tensor order. They come from the metadata, the table or the inputs."""
    total = sum(widths)
    features = metadata.features
    own = [
        tensor.name if width == 1 else f"{tensor.name}_{index}"
        for tensor, width in zip(inputs, widths, strict=True)
        for index in range(width)
    ]
    if features is not None:
        if len(features) != total:
            inputs_text = ", ".join(map(str, inputs[:8]))
            message = f"expected {total} names for the graph's inputs {inputs_text}, got {len(features)}"
            raise metadata_error("features", message)
        return own if set(own) == set(features) else [name.strip() for name in features]
    shape = metadata.input_shape
    if shape and shape[-1] is not None and len(inputs) == 1 and shape[-1] != total:
        raise metadata_error("input_shape", f"specifies {shape[-1]} columns, but the graph takes {total}")
    if set(own) <= set(table_columns):
        return own
    if len(table_columns) == total and len(inputs) == 1:
        return list(table_columns)
    return [f"feature_{index}" for index in range(total)] if len(inputs) == 1 and total > 1 else own


def _is_optional(name: str, metadata: Metadata) -> bool:
    return metadata.missing if isinstance(metadata.missing, bool) else name in metadata.missing


def _fills_by_input(metadata: Metadata, inputs: Sequence[GraphTensor]) -> dict[str, Any]:
    names = [tensor.name for tensor in inputs]
    if not isinstance(metadata.fill, dict):
        return dict.fromkeys(names, metadata.fill)
    unknown = sorted(metadata.fill.keys() - set(names))
    if unknown:
        raise metadata_error("fill", f"unknown inputs {', '.join(unknown)}; the graph's inputs are {', '.join(names)}")
    return dict(metadata.fill)


def _fill(value: Any, dtype: DType, optional: Sequence[str]) -> float | str | None:
    """Return the value that replaces missing values; raise DocumentError if the tensor cannot contain this value."""
    if not optional:
        return None
    if dtype == "string":
        return "" if value is None else str(value)
    if value is None and dtype in ("int64", "bool"):
        raise metadata_error("fill", f"required, because values of the {dtype} column {optional[0]!r} may be missing")
    if isinstance(value, str):
        raise metadata_error("fill", f"expected a number for the column {optional[0]!r}, got {value!r}")
    if value is not None and dtype in ("int64", "bool") and float(value) != int(value):
        raise metadata_error("fill", f"expected a whole number for the column {optional[0]!r}, got {value!r}")
    return None if value is None else float(value)


def _column(name: str, kind: Kind, observed: ObservedColumn | None, *, missing: bool) -> Column:
    if observed is None:
        return Column(name=name, kind=kind, missing=missing)
    is_numeric = kind in ("number", "integer")
    levels = observed.levels if kind == "category" else ()
    low, high = (observed.low, observed.high) if is_numeric else (None, None)
    return Column(name=name, kind=kind, missing=missing, low=low, high=high, levels=levels)


def with_examples(schema: Schema, row: Mapping[str, Value]) -> Schema:
    """Return the schema with the values of this row as examples."""
    return Schema(tuple(msgspec.structs.replace(column, example=row.get(column.name)) for column in schema.columns))


def select_output(outputs: Sequence[GraphTensor], metadata: Metadata) -> GraphTensor:
    """Return the output named in the metadata, or else a map, float or label output, in this order of preference.

    Raise DocumentError if the graph has several outputs of the preferred type.
    """
    if metadata.output:
        for tensor in outputs:
            if tensor.name == metadata.output:
                return _check_output(tensor)
        names = ", ".join(map(str, outputs))
        raise metadata_error("output", f"unknown output {metadata.output!r}; the graph's outputs are {names}")
    for types in (MAPS, FLOATS, LABELS):
        candidates = [tensor for tensor in outputs if tensor.type in types]
        if len(candidates) > 1:
            names = ", ".join(map(str, candidates))
            raise metadata_error("output", f"required, because the graph has several outputs to choose from: {names}")
        if candidates:
            return _check_output(candidates[0])
    raise _unsupported_output(
        f"none of the graph's outputs contains probabilities, labels or values: {', '.join(map(str, outputs))}"
    )


def label_output(outputs: Sequence[GraphTensor], selected: GraphTensor) -> GraphTensor | None:
    """Return the graph's label output if there is exactly one in addition to the selected output."""
    candidates = [tensor for tensor in outputs if tensor.type in LABELS and tensor.name != selected.name]
    return candidates[0] if len(candidates) == 1 and len(candidates[0].shape) <= 2 else None


def _check_output(tensor: GraphTensor) -> GraphTensor:
    if tensor.type not in (*MAPS, *FLOATS, *LABELS):
        raise _unsupported_output(f"the output {tensor} cannot be read as probabilities, labels or values")
    return tensor


def _unsupported_input(message: str) -> BundleError:
    return BundleError(message, slug="unsupported-input")


def _unsupported_output(message: str) -> BundleError:
    return BundleError(message, slug="unsupported-output")
