"""Hand-written requests and replies in the Open Inference Protocol."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PACK = {"INT64": "<i8", "FP64": "<f8", "FP32": "<f4", "BOOL": "?", "INT32": "<i4", "UINT8": "u1", "FP16": "<f2"}


def kind(cells: Sequence[Any]) -> str:
    """Return the datatype for these cells."""
    present = [cell for cell in cells if cell is not None]
    if any(isinstance(cell, str) for cell in present):
        return "BYTES"
    if any(isinstance(cell, bool) for cell in present):
        return "BOOL"
    return "INT64" if len(present) == len(cells) and all(isinstance(cell, int) for cell in cells) else "FP64"


def packed(datatype: str, cells: Sequence[Any]) -> bytes:
    """Encode cells as a binary tensor."""
    if datatype == "BYTES":
        texts = [cell.encode() for cell in cells]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return np.array([np.nan if cell is None else cell for cell in cells], PACK[datatype]).tobytes()


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Convert rows to columns."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def as_json(columns: Mapping[str, Sequence[Any]], **more: Any) -> bytes:
    """Return a request with JSON tensors."""
    inputs = [
        {"name": name, "datatype": kind(cells), "shape": [len(cells), 1], "data": list(cells)}
        for name, cells in columns.items()
    ]
    return json.dumps({"inputs": inputs, **more}).encode()


def as_binary(columns: Mapping[str, Sequence[Any]], **more: Any) -> tuple[bytes, dict[str, str]]:
    """Return a request with binary tensors, and its headers."""
    inputs, tail = [], b""
    for name, cells in columns.items():
        raw = packed(kind(cells), cells)
        inputs.append(
            {
                "name": name,
                "datatype": kind(cells),
                "shape": [len(cells), 1],
                "parameters": {"binary_data_size": len(raw)},
            }
        )
        tail += raw
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + tail, {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}


def outputs(body: bytes, headers: Mapping[str, str]) -> dict[str, list[Any]]:
    """Parse the JSON or binary outputs of a reply into lists of cells."""
    length = int(headers.get("inference-header-content-length", len(body)))
    parsed, at = {}, length
    for output in json.loads(body[:length])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            parsed[output["name"]] = output["data"]
            continue
        raw, at = body[at : at + size], at + size
        if output["datatype"] == "BYTES":
            parsed[output["name"]] = texts(raw)
        else:
            parsed[output["name"]] = np.frombuffer(raw, PACK[output["datatype"]]).tolist()
    assert at == len(body)
    return parsed


def texts(raw: bytes) -> list[str]:
    """Parse length-prefixed strings."""
    parsed = []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        parsed.append(raw[4 : 4 + size].decode())
        raw = raw[4 + size :]
    return parsed
