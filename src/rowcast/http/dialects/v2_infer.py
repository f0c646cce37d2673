"""`…/infer` of the Open Inference Protocol: from a body with tensors to rows, from answers to a body with tensors."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np

from rowcast.errors import BodyError, RequestError
from rowcast.history import blocks
from rowcast.history.blocks import Block
from rowcast.http.dialects.scoring import Answer, document
from rowcast.http.routes import JSON, Reply, Request
from rowcast.schema import tensors
from rowcast.schema.decoding import DATATYPES, decode_columns
from rowcast.schema.prediction import Decision, label_text
from rowcast.schema.schema import Column
from rowcast.schema.scores import winning_classes
from rowcast.schema.tensors import BOOL, BYTES, TYPES, Tensor, TensorHeader
from rowcast.serving.live_models import LiveModel
from rowcast.serving.rows import check_count

OCTETS = b"application/octet-stream"
HEADER_LENGTH = b"inference-header-content-length"
ID = "id"
MOST_WARNINGS = 100
LEAST_BLOCK = 16
KINDS = {"number": "FP64", "integer": "INT64", "boolean": BOOL, "category": BYTES, "datetime": BYTES}
REFUSED = ("shared_memory_region", "classification")
_digits = re.compile(rb"[0-9]{1,18}").fullmatch


class Wanted(msgspec.Struct, frozen=True):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] | None = None


class Inference(msgspec.Struct, frozen=True):
    """The JSON of a request."""

    inputs: list[TensorHeader]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[Wanted] | None = None


class Output(msgspec.Struct, frozen=True):
    """One output as a model's metadata has it; `width` is 0 for a single value a row."""

    name: str
    datatype: str
    width: int = 1


_read = msgspec.json.Decoder(Inference).decode


class Asked(msgspec.Struct, frozen=True):
    """A request that was read: its JSON, its inputs, and the bytes of those that came as such."""

    inference: Inference
    inputs: list[Tensor]
    tail: bytes = b""


def read(request: Request, model: LiveModel) -> Asked:
    """What is asked, and the input tensors."""
    declared, body = request.headers.get(HEADER_LENGTH), request.body
    if declared is None:
        asked = inference(body)
        return Asked(asked, tensors.read_tensors(asked.inputs, memoryview(b"")))
    if not _digits(declared):
        raise BodyError("Inference-Header-Content-Length must be a whole number of bytes")
    length = int(declared)
    if length > len(body):
        raise BodyError(f"Inference-Header-Content-Length is {length}, and the body has {len(body)} bytes")
    if length == 0:
        return Asked(Inference([]), [raw(model, memoryview(body))])
    asked = inference(body[:length])
    tail = body[length:]
    return Asked(asked, tensors.read_tensors(asked.inputs, memoryview(tail)), tail)


def block_columns(asked: Asked, rows: int) -> list[blocks.BlockColumn] | None:
    """How the columns lie in the tail; None when not all of them do, or so few rows that a block gains nothing."""
    sizes = [(head.parameters or {}).get("binary_data_size") for head in asked.inference.inputs]
    if rows < LEAST_BLOCK or None in sizes or not sizes:
        return None
    heads = zip(asked.inference.inputs, sizes, strict=True)
    return [blocks.BlockColumn(head.name, head.datatype, size) for head, size in heads if size is not None]


def inference(head: bytes) -> Inference:
    """The JSON of a request."""
    made = _inference(head)
    for one in made.inputs:
        if one.parameters:
            _refuse(f"input {tensors.quoted(one.name)}", one.parameters)
    return made


def _inference(head: bytes) -> Inference:
    try:
        return _read(head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = document(head)  # reads what a client in Python writes for NaN, or says what is wrong
    try:
        return msgspec.convert(found, Inference)
    except msgspec.ValidationError as error:
        raise BodyError(f"the request is not as the protocol has it: {error}") from None


def raw(model: LiveModel, body: memoryview) -> Tensor:
    """The one input of a model that has just one; the body is its data."""
    plan, columns = model.encoder.plan, model.schema.columns
    if len(columns) == 1:
        name, datatype, width = columns[0].name, KINDS[columns[0].kind], 1
    elif len(plan) == 1:
        name, datatype, width = plan[0].name, DATATYPES[plan[0].dtype], prod(plan[0].shape)
    else:
        raise BodyError("the model has several inputs: say in JSON which bytes belong to which")
    if datatype == BYTES:
        if width != 1:
            raise BodyError("texts cannot be sent as one raw input; say their lengths in JSON")
        try:
            return Tensor(name, BYTES, (1, 1), [bytes(body).decode()])
        except UnicodeDecodeError:
            raise BodyError("the raw text is not UTF-8") from None
    rows, rest = divmod(len(body), width * TYPES[datatype].itemsize)
    if rest:
        raise BodyError(f"{len(body)} bytes are not rows of {width} {datatype}")
    shape = [rows, *plan[0].shape] if len(columns) > 1 else [rows, 1]
    return tensors.from_bytes(TensorHeader(name, shape, datatype), body)


def named(model: LiveModel, found: Sequence[Tensor], most_rows: int) -> dict[str, Tensor]:
    """The inputs by name: a tensor a column, or the model's own tensors; all of the same number of rows."""
    by_name = {tensor.name: tensor for tensor in found}
    if len(by_name) != len(found):
        raise BodyError("an input is there twice")
    known, own = model.schema.names(), [spec.name for spec in model.encoder.plan]
    for name in by_name:
        if name not in known and name not in own:
            raise BodyError(f"there is no input {tensors.quoted(name)}; there are {', '.join(known)[:500]}")
    if len({tensor.rows for tensor in found}) > 1:
        raise BodyError("the inputs have not the same number of rows")
    check_count(found[0].rows if found else 0, most_rows)
    if all(name in known for name in by_name):
        for tensor in found:
            if tensor.width != 1:
                raise BodyError(f"input {tensors.quoted(tensor.name)} is one column: its shape must be [rows, 1]")
    elif set(by_name) != set(own):
        raise BodyError(f"send the model's own inputs alone and all of them: {', '.join(own)}")
    return by_name


def cells(model: LiveModel, by_name: Mapping[str, Tensor]) -> dict[str, Sequence[Any]]:
    """Raw cells by column."""
    known = model.schema.names()
    if all(name in known for name in by_name):
        return {name: tensor.cells() for name, tensor in by_name.items()}
    return dict(decode_columns(model.schema, model.encoder.plan, by_name))


def inputs(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """The columns as a model's metadata has them."""
    return [{"name": column.name, "datatype": KINDS[column.kind], "shape": [-1, 1]} for column in columns]


def outputs(model: LiveModel) -> list[Output]:
    """What a model answers, in order; one that only tells labels answers nothing else."""
    decision = model.manifest.decision
    if decision.task == "regression":
        return [Output("prediction", "FP32" if model.is_ours else "FP64")]
    if not model.is_certain:
        return [Output("prediction", _label_type(decision))]
    made = [Output("prediction", _label_type(decision)), Output("probability", "FP32")]
    if decision.task == "binary":
        made.append(Output("score", "FP32"))
    return [*made, Output("probabilities", "FP32", len(decision.classes))]


def _label_type(decision: Decision) -> str:
    kinds = {type(label) for label in decision.classes}
    if kinds == {bool}:
        return BOOL
    if kinds == {int}:
        return "INT64" if all(-(1 << 63) <= label < 1 << 63 for label in decision.classes) else BYTES  # type: ignore[operator]
    return "FP64" if kinds <= {int, float} else BYTES


def chosen(model: LiveModel, asked: Inference) -> list[tuple[Output, bool]]:
    """The outputs to send, and whether each goes as bytes."""
    known = {output.name: output for output in outputs(model)}
    binary = (asked.parameters or {}).get("binary_data_output", False)
    if type(binary) is not bool:
        raise BodyError("the parameter binary_data_output must be true or false")
    if not asked.outputs:
        return [(output, binary) for output in known.values()]
    known[ID] = Output(ID, BYTES)
    made = []
    for wanted in asked.outputs:
        if wanted.name not in known:
            raise BodyError(f"there is no output {tensors.quoted(wanted.name)}; there are {', '.join(known)}")
        parameters = wanted.parameters or {}
        _refuse(f"output {wanted.name}", parameters)
        own = parameters.get("binary_data", binary)
        if type(own) is not bool:
            raise BodyError(f"output {wanted.name}: binary_data must be true or false")
        made.append((known[wanted.name], own))
    if len({output.name for output, _ in made}) != len(made):  # a reply would grow with every word of the request
        raise BodyError("an output is asked for twice")
    return made


def _refuse(what: str, parameters: Mapping[str, Any]) -> None:
    for word in REFUSED:
        if word in parameters:
            raise RequestError(f"{what}: {word} is not offered here", slug="not-supported")


def data(output: Output, decision: Decision, answers: Sequence[Answer]) -> Any:
    """One output's cells, row-major: an array, or a list of texts."""
    if output.name == ID:
        return [answer.id for answer in answers]
    if output.name == "probabilities":
        names = decision.names()
        found = [[answer.probabilities[name] for name in names] for answer in answers if answer.probabilities]
        return np.array(found, np.float32).reshape(-1)
    values = [getattr(answer, output.name) for answer in answers]
    if output.datatype == BYTES:
        return [label_text(value) for value in values]
    return tensors.to_array(output.datatype, values)


def of_block(decision: Decision, block: Block, wanted: Sequence[tuple[Output, bool]]) -> dict[str, Any]:
    """The outputs of a block, as `data` gives them for answers."""
    output = blocks.output(block)
    if decision.task == "regression":
        found: dict[str, Any] = {"prediction": output.reshape(-1)}
    else:
        winners = winning_classes(decision, output)
        found = {"probabilities": output.reshape(-1), "probability": output[np.arange(block.rows), winners]}
        labels = [label_text(label) for label in decision.classes]
        if _label_type(decision) == BYTES:
            found["prediction"] = [labels[winner] for winner in winners.tolist()]
        else:
            found["prediction"] = tensors.to_array(_label_type(decision), decision.classes)[winners]
        if decision.task == "binary":
            found["score"] = output[:, decision.positive]
    if any(one.name == ID for one, _ in wanted):
        found[ID] = blocks.ids(block)
    return found


def reply(
    request: Request,
    model: LiveModel,
    asked: Inference,
    wanted: Sequence[tuple[Output, bool]],
    found: Mapping[str, Any],
) -> Reply:
    """The whole reply, from each output's cells."""
    heads: list[dict[str, Any]] = []
    tails: list[bytes] = []
    for output, binary in wanted:
        values = found[output.name]
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
    said: dict[str, Any] = {"model_name": model.name, "model_version": str(model.version)}
    if asked.id:
        said["id"] = asked.id
    if warnings := found.get("warnings"):
        said["parameters"] = {"warnings": warnings}
    said["outputs"] = heads
    body = msgspec.json.encode(said)
    if not any(binary for _, binary in wanted):
        return packed(request, Reply(body))
    length = (b"inference-header-content-length", b"%d" % len(body))
    return packed(request, Reply(b"".join([body, *tails]), content_type=OCTETS, headers=[length]))


def warnings(answers: Sequence[Answer]) -> str:
    """What is said about rows that were scored all the same, as JSON text: a parameter holds nothing larger."""
    told = [
        {"row": row, "column": warning.column, "code": warning.code, "message": warning.message}
        for row, answer in enumerate(answers)
        for warning in answer.warnings
    ]
    return msgspec.json.encode(told[:MOST_WARNINGS]).decode() if told else ""


def packed(request: Request, plain: Reply) -> Reply:
    """The reply in the one coding that the caller names; those who list several get it as it is."""
    coding = request.headers.get(b"accept-encoding", b"").strip().lower()
    if coding == b"gzip":
        body = gzip.compress(plain.body, 1, mtime=0)
    elif coding == b"deflate":
        body = zlib.compress(plain.body, 1)
    else:
        return plain
    headers = [*plain.headers, (b"content-encoding", coding), (b"vary", b"Accept-Encoding")]
    return msgspec.structs.replace(plain, body=body, headers=headers)


PLAIN = frozenset((JSON, OCTETS, b"application/x-www-form-urlencoded"))
"""Content types that are taken: `curl -d` declares the last one, whatever it sends."""
