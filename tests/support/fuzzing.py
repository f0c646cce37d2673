"""Binary tensors with random errors, and a simple reference parser for these tensors."""

from __future__ import annotations

import json
import random
import struct
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rowcast.access.context import RequestContext
from rowcast.errors import RowcastError
from rowcast.http.dialects import v2_infer
from rowcast.http.routes import Request
from rowcast.schema.tensors import TYPES, Tensor

NUMBERS = (0, 1, 2, 3, 4, 7, 8, 255, 256, -1, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30)
NAMES = ("a", "b", "c", "", "rowcast_numbers", "é" * 40)
KINDS = (*TYPES, "BYTES", "BF16", "", "bytes")


def valid_inputs(chance: random.Random) -> tuple[list[dict[str, Any]], bytes]:
    """Return the headers and the bytes of valid random tensors."""
    rows = chance.randint(0, 6)
    heads: list[dict[str, Any]] = []
    tail = b""
    for name in NAMES[: chance.randint(1, 3)]:
        kind = chance.choice([*TYPES, "BYTES", "BYTES"])
        width = chance.choice([1, 1, 1, 2])
        count = rows * width
        if kind == "BYTES":
            texts = [chance.choice([b"", b"a", b"\xc3\xa9", b"x" * 300]) for _ in range(count)]
            raw = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        elif kind == "BOOL":
            raw = bytes(chance.choice([0, 1]) for _ in range(count))
        else:
            raw = chance.randbytes(count * TYPES[kind].itemsize)
        shape = [rows, width] if width > 1 or chance.random() < 0.5 else [rows]
        heads.append({"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(raw)}})
        tail += raw
    return heads, tail


def mutate(chance: random.Random, heads: list[dict[str, Any]], tail: bytes) -> bytes:
    """Introduce up to two errors; change the headers in place and return the changed bytes."""
    for _ in range(chance.choice([0, 1, 1, 1, 2])):
        if chance.random() < 0.5:
            key, values = chance.choice(WRONG)
            chance.choice(heads)[key] = values(chance)
        else:
            tail = chance.choice(DAMAGE)(chance, tail)
    return tail


WRONG: list[tuple[str, Callable[[random.Random], Any]]] = [
    ("parameters", lambda chance: {"binary_data_size": chance.choice([*NUMBERS, None, "8", 1.5, True, []])}),
    ("shape", lambda chance: [chance.choice(NUMBERS) for _ in range(chance.randint(0, 3))]),
    ("datatype", lambda chance: chance.choice(KINDS)),
    ("data", lambda chance: chance.choice([[], [1], ["a"], [[1]], None, 7, [None], [True]])),
    ("name", lambda chance: chance.choice(NAMES)),
]


def _splice(chance: random.Random, tail: bytes, piece: bytes) -> bytes:
    at = chance.randrange(len(tail) + 1)
    return tail[:at] + piece + tail[at + len(piece) :]


DAMAGE: list[Callable[[random.Random, bytes], bytes]] = [
    lambda chance, tail: tail[: chance.randint(0, len(tail))],
    lambda chance, tail: tail + chance.randbytes(chance.randint(1, 9)),
    lambda chance, tail: _splice(chance, tail, chance.randbytes(4)),
    lambda chance, tail: _splice(chance, tail, struct.pack("<I", chance.choice([0, 1, 5, 2**31, 2**32 - 1]))),
]


def parse_simply(heads: list[dict[str, Any]], tail: bytes) -> dict[str, list[Any]]:
    """Parse the cells with simple code; raise an exception if anything is invalid."""
    tensors: dict[str, list[Any]] = {}
    at = 0
    for head in heads:
        count = 1
        for size in head["shape"]:
            count *= size
        raw, at = tail[at : at + head["parameters"]["binary_data_size"]], at + head["parameters"]["binary_data_size"]
        if head["datatype"] == "BYTES":
            cells: list[Any] = []
            while raw:
                (length,) = struct.unpack_from("<I", raw)
                assert len(raw) >= 4 + length
                cells.append(raw[4 : 4 + length].decode())
                raw = raw[4 + length :]
        else:
            dtype = TYPES[head["datatype"]]
            cells = [
                np.frombuffer(raw[start : start + dtype.itemsize], dtype)[0].item()
                for start in range(0, len(raw), dtype.itemsize)
            ]
        assert len(cells) == count
        tensors[head["name"]] = [None if cell != cell else cell for cell in cells]
    assert at == len(tail)
    return tensors


def head_length(chance: random.Random, correct: int) -> bytes:
    """Return a value for the JSON length header; the value is usually correct."""
    if chance.random() < 0.85:
        return b"%d" % correct
    return chance.choice(
        [b"", b"-1", b"x", b"1e3", b"+5", b"%d" % (correct - 1), b"%d" % (correct + 1), b"9" * 40, b" 7", b"1_0"]
    )


def run(count: int, chance: random.Random) -> dict[str, int]:
    """Parse `count` random requests; each must produce the reference result or raise RowcastError."""
    result = {"read": 0, "refused": 0, "largest_bytes": 0}
    tracemalloc.start()
    try:
        for _ in range(count):
            heads, tail = valid_inputs(chance)
            tail = mutate(chance, heads, tail)
            head = json.dumps({"inputs": heads}).encode()
            if chance.random() < 0.1:
                at = chance.randrange(len(head))
                head = head[:at] + chance.randbytes(chance.randint(0, 3)) + head[at + 1 :]
            headers = {v2_infer.HEADER_LENGTH: head_length(chance, len(head))}
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                tensors = parse(Request("/", headers, head + tail, RequestContext("v2", "r")))
            except RowcastError:
                result["refused"] += 1
            else:
                check(tensors, head + tail, headers)
                result["read"] += 1
            result["largest_bytes"] = max(result["largest_bytes"], tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    return result


def parse(request: Request) -> list[Tensor]:
    """Parse the tensors of a request and decode all strings; reject raw model inputs."""
    if request.headers[v2_infer.HEADER_LENGTH].strip(b"0") == b"":
        raise RowcastError("raw")
    inputs = v2_infer.read(request, None).inputs  # type: ignore[arg-type]
    for tensor in inputs:
        assert len(tensor.cells()) == tensor.rows * tensor.width
    return inputs


def check(tensors: list[Tensor], body: bytes, headers: Mapping[bytes, bytes]) -> None:
    """Assert that the reference parser produces the same tensors."""
    length = int(headers[v2_infer.HEADER_LENGTH])
    heads = json.loads(body[:length].decode(errors="replace"))["inputs"]
    if any("data" in head for head in heads) or any(
        head.get("parameters", {}).get("binary_data_size") is None for head in heads
    ):
        return  # JSON tensors have their own tests
    expected = parse_simply(heads, body[length:])
    assert {tensor.name: tensor.cells() for tensor in tensors} == expected or len(expected) != len(tensors)
