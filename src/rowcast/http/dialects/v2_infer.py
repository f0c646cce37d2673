"""Convert inference requests of the Open Inference Protocol into rows, and predictions into tensors."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from rowcast.errors import BodyError, RequestError
from rowcast.history import blocks
from rowcast.history.blocks import Block
from rowcast.http.dialects.scoring import ScoredRow, read_object
from rowcast.http.dialects.v2_metadata import DATATYPES_BY_KIND, ID, OCTETS, OutputSpec, label_datatype, outputs
from rowcast.http.routes import Request, Response
from rowcast.schema import tensors
from rowcast.schema.datatypes import BYTES
from rowcast.schema.decoding import DATATYPES, decode_columns
from rowcast.schema.encoding import RowWarning, more_warnings
from rowcast.schema.prediction import Decision, label_text
from rowcast.schema.scores import winning_classes
from rowcast.schema.tensors import TYPES, Tensor, TensorHeader
from rowcast.schema.unique_keys import check_unique_keys
from rowcast.serving.rows import check_count

if TYPE_CHECKING:
    from rowcast.serving.interface import ModelInterface

HEADER_LENGTH = b"inference-header-content-length"
MAX_WARNINGS = 100
MIN_BLOCK_ROWS = 16
"""The minimum number of rows in a block. With fewer rows, scoring a block is no faster than scoring the rows
individually."""
UNSUPPORTED = ("shared_memory_region", "classification")
_digits = re.compile(rb"[0-9]{1,18}").fullmatch


class RequestedOutput(msgspec.Struct, frozen=True):
    """An output that the client has requested."""

    name: str
    parameters: dict[str, Any] | None = None


class Inference(msgspec.Struct, frozen=True):
    """The JSON part of a request."""

    inputs: list[TensorHeader]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None


_read = msgspec.json.Decoder(Inference).decode


class Call(msgspec.Struct, frozen=True):
    """A parsed request: its JSON, its input tensors, and the bytes of its binary tensors."""

    inference: Inference
    inputs: list[Tensor]
    tail: bytes = b""


def read(request: Request, model: ModelInterface) -> Call:
    """Parse the request and its input tensors."""
    declared, body = request.headers.get(HEADER_LENGTH), request.body
    if declared is None:
        inference = read_inference(body)
        return Call(inference, tensors.read_tensors(inference.inputs, memoryview(b"")))
    if not _digits(declared):
        raise BodyError("Inference-Header-Content-Length must be a whole number of bytes")
    length = int(declared)
    if length > len(body):
        raise BodyError(f"Inference-Header-Content-Length is {length}, but the body has {len(body)} bytes")
    if length == 0:
        return Call(Inference([]), [read_raw(model, memoryview(body))])
    inference = read_inference(body[:length])
    tail = body[length:]
    return Call(inference, tensors.read_tensors(inference.inputs, memoryview(tail)), tail)


def block_columns(call: Call, rows: int) -> list[blocks.BlockColumn] | None:
    """Return the layout of the binary data; return None if an input is not binary or there are too few rows."""
    sizes = [(head.parameters or {}).get("binary_data_size") for head in call.inference.inputs]
    if rows < MIN_BLOCK_ROWS or None in sizes or not sizes:
        return None
    heads = zip(call.inference.inputs, sizes, strict=True)
    return [blocks.BlockColumn(head.name, head.datatype, size) for head, size in heads if size is not None]


def read_inference(head: bytes) -> Inference:
    """Parse and check the JSON part of a request."""
    inference = _decode_inference(head)
    for tensor in inference.inputs:
        if tensor.parameters:
            _check_parameters(f"input {tensors.quoted(tensor.name)}", tensor.parameters)
    return inference


def _decode_inference(head: bytes) -> Inference:
    try:
        inference = _read(head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        document = read_object(head)  # accepts NaN, which some Python clients send, and raises precise errors
    else:
        check_unique_keys(head, _count_keys(inference))
        return inference
    try:
        return msgspec.convert(_with_whole_shapes(document), Inference)
    except msgspec.ValidationError as error:
        raise BodyError(f"the request does not follow the protocol: {error}") from None


def _count_keys(inference: Inference) -> int:
    """Return a lower bound on the number of keys in the JSON. Unknown, nested and null fields are not counted."""
    owners: list[Inference | TensorHeader | RequestedOutput] = [inference, *inference.inputs]
    count = 1 + 3 * len(inference.inputs) + (inference.id is not None)
    for head in inference.inputs:
        if head.data is not msgspec.UNSET:
            count += 1
    if inference.outputs is not None:
        owners += inference.outputs
        count += 1 + len(inference.outputs)
    for owner in owners:
        if owner.parameters is not None:
            count += 1 + len(owner.parameters)
    return count


def _with_whole_shapes(document: dict[str, Any]) -> dict[str, Any]:
    """Return the request with shapes such as `[2.0, 1.0]` converted to integers."""
    inputs = document.get("inputs")
    if not isinstance(inputs, list):
        return document
    return {**document, "inputs": [_with_whole_shape(head) for head in inputs]}


def _with_whole_shape(head: Any) -> Any:
    shape = head.get("shape") if isinstance(head, dict) else None
    if not isinstance(shape, list):
        return head
    return {**head, "shape": [int(size) if isinstance(size, float) and size.is_integer() else size for size in shape]}


def read_raw(model: ModelInterface, body: memoryview) -> Tensor:
    """Parse a body that consists only of the raw data of the model's single input."""
    plan, columns = model.encoder.plan, model.schema.columns
    if len(columns) == 1:
        name, datatype, width = columns[0].name, DATATYPES_BY_KIND[columns[0].kind], 1
    elif len(plan) == 1:
        name, datatype, width = plan[0].name, DATATYPES[plan[0].dtype], prod(plan[0].shape)
    else:
        raise BodyError("the model has several inputs; describe them in JSON before the binary data")
    if datatype == BYTES:
        if width != 1:
            raise BodyError("raw input cannot contain more than one string; describe the input in JSON before the data")
        try:
            return Tensor(name, BYTES, (1, 1), [bytes(body).decode()])
        except UnicodeDecodeError:
            raise BodyError("the raw input is not valid UTF-8") from None
    rows, rest = divmod(len(body), width * TYPES[datatype].itemsize)
    if rest:
        raise BodyError(f"the body size of {len(body)} bytes is not a multiple of the row size ({width} x {datatype})")
    shape = [rows, *plan[0].shape] if len(columns) > 1 else [rows, 1]
    return tensors.from_bytes(TensorHeader(name, shape, datatype), body)


def inputs_by_name(model: ModelInterface, inputs: Sequence[Tensor], max_rows: int) -> dict[str, Tensor]:
    """Return the inputs by name: one per column, or the graph's own inputs. Raise BodyError if they are invalid."""
    by_name = {tensor.name: tensor for tensor in inputs}
    if len(by_name) != len(inputs):
        raise BodyError("two inputs have the same name")
    known, own = model.schema.names(), [spec.name for spec in model.encoder.plan]
    for name in by_name:
        if name not in known and name not in own:
            raise BodyError(f"unknown input {tensors.quoted(name)}; known inputs: {', '.join(known)[:500]}")
    if len({tensor.rows for tensor in inputs}) > 1:
        raise BodyError("the inputs must all have the same number of rows")
    check_count(inputs[0].rows if inputs else 0, max_rows)
    if all(name in known for name in by_name):
        for tensor in inputs:
            if tensor.width != 1:
                raise BodyError(f"input {tensors.quoted(tensor.name)} is a single column; its shape must be [rows, 1]")
    elif set(by_name) != set(own):
        raise BodyError(f"the inputs do not match the model; send exactly these inputs: {', '.join(own)}")
    return by_name


def cells(model: ModelInterface, by_name: Mapping[str, Tensor]) -> dict[str, Sequence[Any]]:
    """Return the raw cells of each column."""
    known = model.schema.names()
    if all(name in known for name in by_name):
        return {name: tensor.cells() for name, tensor in by_name.items()}
    return dict(decode_columns(model.schema, model.encoder.plan, by_name))


def requested_outputs(model: ModelInterface, inference: Inference) -> list[tuple[OutputSpec, bool]]:
    """Return each output to send, and whether to send it as binary data."""
    known = {output.name: output for output in outputs(model)}
    binary = (inference.parameters or {}).get("binary_data_output", False)
    if type(binary) is not bool:
        raise BodyError("parameter 'binary_data_output' must be true or false")
    if not inference.outputs:
        return [(output, binary) for output in known.values()]
    known[ID] = OutputSpec(ID, BYTES)
    requested = []
    for output in inference.outputs:
        if output.name not in known:
            raise BodyError(f"unknown output {tensors.quoted(output.name)}; known outputs: {', '.join(known)}")
        parameters = output.parameters or {}
        _check_parameters(f"output {output.name}", parameters)
        own = parameters.get("binary_data", binary)
        if type(own) is not bool:
            raise BodyError(f"output {output.name}: parameter 'binary_data' must be true or false")
        requested.append((known[output.name], own))
    # Without this check, a short request could cause a huge response.
    if len({output.name for output, _ in requested}) != len(requested):
        raise BodyError("the same output is requested twice")
    return requested


def _check_parameters(owner: str, parameters: Mapping[str, Any]) -> None:
    for word in UNSUPPORTED:
        if word in parameters:
            raise RequestError(f"{owner}: {word} is not supported", slug="not-supported")


def data(output: OutputSpec, decision: Decision, rows: Sequence[ScoredRow]) -> Any:
    """Return the values of one output in row-major order, as an array or a list of strings."""
    if output.name == ID:
        return [row.id for row in rows]
    if output.name == "probabilities":
        names = decision.names()
        values = [[row.probabilities[name] for name in names] for row in rows if row.probabilities]
        return np.array(values, np.float32).reshape(-1)
    cells = [getattr(row, output.name) for row in rows]
    if output.datatype == BYTES:
        return [label_text(cell) for cell in cells]
    return tensors.to_array(output.datatype, cells)


def block_data(decision: Decision, block: Block, requested: Sequence[tuple[OutputSpec, bool]]) -> dict[str, Any]:
    """Return the values of every output for a scored block."""
    output = blocks.output(block)
    if decision.task == "regression":
        values: dict[str, Any] = {"prediction": output.reshape(-1)}
    else:
        winners = winning_classes(decision, output)
        values = {"probabilities": output.reshape(-1), "probability": output[np.arange(block.rows), winners]}
        labels = [label_text(label) for label in decision.classes]
        if label_datatype(decision) == BYTES:
            values["prediction"] = [labels[winner] for winner in winners.tolist()]
        else:
            values["prediction"] = tensors.to_array(label_datatype(decision), decision.classes)[winners]
        if decision.task == "binary":
            values["score"] = output[:, decision.positive]
    if any(spec.name == ID for spec, _ in requested):
        values[ID] = blocks.ids(block)
    if block.warnings:
        values["warnings"] = warnings(blocks.row_warnings(block))
    return values


def response(
    request: Request,
    model: ModelInterface,
    inference: Inference,
    requested: Sequence[tuple[OutputSpec, bool]],
    data: Mapping[str, Any],
) -> Response:
    """Return the response with the values of each output."""
    heads: list[dict[str, Any]] = []
    tails: list[bytes] = []
    for output, binary in requested:
        values = data[output.name]
        head: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": [len(values) // output.width, output.width],
        }
        if binary:
            tails.append(tensors.to_bytes(output.datatype, values))
            head["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            head["data"] = values if isinstance(values, list) else values.tolist()
        heads.append(head)
    document: dict[str, Any] = {"model_name": model.name, "model_version": str(model.version)}
    if inference.id:
        document["id"] = inference.id
    if warnings := data.get("warnings"):
        document["parameters"] = {"warnings": warnings}
    document["outputs"] = heads
    body = msgspec.json.encode(document)
    if not any(binary for _, binary in requested):
        return compress(request, Response(body))
    length = (b"inference-header-content-length", b"%d" % len(body))
    return compress(request, Response(b"".join([body, *tails]), content_type=OCTETS, headers=[length]))


def warnings(rows: Iterable[Sequence[RowWarning]]) -> str:
    """Return the warnings about all rows as a JSON string, because a parameter cannot contain a list."""
    listed = [
        {"row": number, "column": warning.column, "code": warning.code, "message": warning.message}
        for number, row in enumerate(rows)
        for warning in row
    ]
    if len(listed) > MAX_WARNINGS:
        more = msgspec.structs.asdict(more_warnings(len(listed) - MAX_WARNINGS))
        listed = [*listed[:MAX_WARNINGS], {"row": listed[MAX_WARNINGS]["row"], **more}]
    return msgspec.json.encode(listed).decode() if listed else ""


def compress(request: Request, plain: Response) -> Response:
    """Compress the response if `Accept-Encoding` is exactly `gzip` or `deflate`."""
    coding = request.headers.get(b"accept-encoding", b"").strip().lower()
    if coding == b"gzip":
        body = gzip.compress(plain.body, 1, mtime=0)
    elif coding == b"deflate":
        body = zlib.compress(plain.body, 1)
    else:
        return plain
    headers = [*plain.headers, (b"content-encoding", coding), (b"vary", b"Accept-Encoding")]
    return msgspec.structs.replace(plain, body=body, headers=headers)
