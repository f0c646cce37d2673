"""Exchange a request and its result between the importer and its sandboxed child process."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from rowcast.registry.onnx_import.inspect import inspect
from rowcast.registry.onnx_import.request import ConvertedModel, ImportRequest
from rowcast.registry.ports import OpenForeignGraph

MODEL: Final = "model.onnx"
REQUEST: Final = "request.json"


def write_request(folder: Path, model: bytes, request: ImportRequest) -> None:
    """Write the child process's input into an empty folder."""
    (folder / MODEL).write_bytes(model)
    (folder / REQUEST).write_bytes(msgspec.json.encode(request))


def answer_request(folder: Path, open_graph: OpenForeignGraph) -> bytes:
    """Inspect and convert the graph in this folder; return the result in the form that `read_result` decodes.

    Call this only in a child process with limited resources, because a malicious graph can crash the process.
    """
    from rowcast.registry.onnx_import.convert import convert

    request = msgspec.json.decode((folder / REQUEST).read_bytes(), type=ImportRequest)
    model = (folder / MODEL).read_bytes()
    inspect(model, request.max_nodes)
    return msgspec.json.encode(convert(open_graph(model), request))


def read_result(output: bytes) -> ConvertedModel:
    """Decode the child process's output."""
    return msgspec.json.decode(output, type=ConvertedModel)
