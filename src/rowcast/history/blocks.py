"""Many predictions of one request kept as one block: the columns as they were received, and the graph's output.

A block is written before the answer is sent; what it holds decides every byte of its entries: `entries` makes the
same ones whoever opens it, and whenever. Ids and salts come from a seed that only the block knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rowcast.history.chain import SALT_BYTES, Draft, Entry, encode_head
from rowcast.schema import tensors
from rowcast.schema.identity import uuid7_randomness, uuid7s
from rowcast.schema.prediction import Decision, encode_replies
from rowcast.schema.scores import score_rows

SEED_BYTES = 32
NO_WARNINGS: tuple[Any, ...] = ()


class Column(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One column of the body: its name, how its cells lie, and in how many bytes."""

    name: str
    datatype: str
    size: int


class Block(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The predictions of one request. Fields are only ever appended."""

    at: int
    """UTC nanoseconds."""
    digest: str
    source: str
    request_id: str
    key_id: str
    tenant: str
    entity: str
    model: str
    version: int
    decision: Decision
    rows: int
    columns: tuple[Column, ...]
    body: bytes
    """The cells of all columns, one column after the other."""
    output: bytes
    """The graph's output, float32."""
    seed: bytes


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Block).decode


def ids(block: Block) -> list[str]:
    """The ids of a block's predictions."""
    random = hashlib.shake_256(b"ids" + block.seed).digest(uuid7_randomness(block.rows))
    return uuid7s(block.at // 1_000_000, random)


def holds(block: Block, prediction_id: str) -> bool:
    """Whether the id is one of the block's; cheap where it is of another moment."""
    return prediction_id.replace("-", "")[:12] == f"{block.at // 1_000_000:012x}" and prediction_id in ids(block)


def output(block: Block) -> NDArray[np.float32]:
    """The graph's output, a row a prediction."""
    return np.frombuffer(block.output, "<f4").reshape(block.rows, -1)


def rows(block: Block) -> list[bytes]:
    """Each row as JSON, as the native dialect would have received it."""
    found: list[Sequence[Any]] = []
    at, memory = 0, memoryview(block.body)
    for column in block.columns:
        head = tensors.TensorHeader(column.name, [block.rows], column.datatype)
        found.append(tensors.from_bytes(head, memory[at : at + column.size]).cells())
        at += column.size
    names = [column.name for column in block.columns]
    return [msgspec.json.encode(dict(zip(names, cells, strict=True))) for cells in zip(*found, strict=True)]


def entries(block: Block) -> Iterator[Draft]:
    """What history keeps of the block: an entry a row, as any other door would have written it."""
    outcomes = score_rows(block.decision, output(block))
    none = [NO_WARNINGS] * block.rows
    replies = encode_replies(block.model, block.version, ids(block), outcomes, none, [False] * block.rows)
    salts = hashlib.shake_256(b"salts" + block.seed).digest(SALT_BYTES * block.rows)
    at = block.at // 1_000
    for number, (row, reply) in enumerate(zip(rows(block), replies, strict=True)):
        head = Entry(at, block.digest, block.source, block.request_id, reply, block.key_id, block.tenant, block.entity)
        yield Draft(encode_head(head), salts[number * SALT_BYTES : (number + 1) * SALT_BYTES], row)
