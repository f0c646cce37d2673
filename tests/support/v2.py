"""Requests of the Open Inference Protocol, written by hand: what a client does, and what it should not."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PACK = {"INT64": "<i8", "FP64": "<f8", "FP32": "<f4", "BOOL": "?", "INT32": "<i4", "UINT8": "u1", "FP16": "<f2"}


def kind(cells: Sequence[Any]) -> str:
    """The datatype that holds these cells."""
    present = [cell for cell in cells if cell is not None]
    if any(isinstance(cell, str) for cell in present):
        return "BYTES"
    if any(isinstance(cell, bool) for cell in present):
        return "BOOL"
    return "INT64" if len(present) == len(cells) and all(isinstance(cell, int) for cell in cells) else "FP64"


def packed(datatype: str, cells: Sequence[Any]) -> bytes:
    """A binary tensor."""
    if datatype == "BYTES":
        texts = [cell.encode() for cell in cells]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return np.array([np.nan if cell is None else cell for cell in cells], PACK[datatype]).tobytes()


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows, column by column."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def as_json(given: Mapping[str, Sequence[Any]], **more: Any) -> bytes:
    """A request whose tensors are JSON."""
    inputs = [
        {"name": name, "datatype": kind(cells), "shape": [len(cells), 1], "data": list(cells)}
        for name, cells in given.items()
    ]
    return json.dumps({"inputs": inputs, **more}).encode()


def as_binary(given: Mapping[str, Sequence[Any]], **more: Any) -> tuple[bytes, dict[str, str]]:
    """A request whose tensors are bytes, and its headers."""
    inputs, tail = [], b""
    for name, cells in given.items():
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
    """The outputs of a reply, JSON or binary, as lists of cells."""
    length = int(headers.get("inference-header-content-length", len(body)))
    found, at = {}, length
    for output in json.loads(body[:length])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[output["name"]] = output["data"]
            continue
        raw, at = body[at : at + size], at + size
        if output["datatype"] == "BYTES":
            found[output["name"]] = texts(raw)
        else:
            found[output["name"]] = np.frombuffer(raw, PACK[output["datatype"]]).tolist()
    assert at == len(body)
    return found


def texts(raw: bytes) -> list[str]:
    """Texts behind their lengths."""
    found = []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        found.append(raw[4 : 4 + size].decode())
        raw = raw[4 + size :]
    return found
