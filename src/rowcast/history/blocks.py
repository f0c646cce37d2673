"""Blocks: the columns and the graph output of one large request, recorded in a single journal write.

A block is written before the reply is sent. The block determines every byte of its entries, because their ids and salts
are derived from a random seed in the block. Only the functions that read a block load numpy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from rowcast.history.chain import SALT_BYTES, Draft, Entry, encode_head
from rowcast.schema.encoding import NO_WARNINGS, RowWarning, limit_warnings
from rowcast.schema.identity import uuid7_randomness, uuid7s
from rowcast.schema.prediction import Decision, encode_replies

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEED_BYTES = 32


class BlockColumn(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One column of a block: its name, the data type of its cells, and the total size of its cells in bytes."""

    name: str
    datatype: str
    size: int


class BlockWarning(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A warning about some rows of a block."""

    column: str
    code: str
    message: str
    rows: bytes
    """One bit for each row, most significant bit first; padded to whole bytes."""


class Block(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The predictions of one request. Part of the file format: add new fields only at the end."""

    at: int
    """The time of the predictions, in nanoseconds since the Unix epoch."""
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
    columns: tuple[BlockColumn, ...]
    body: bytes
    """The cells of all columns, column by column."""
    output: bytes
    """The graph's output as float32 values."""
    seed: bytes
    warnings: tuple[BlockWarning, ...] = ()


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Block).decode


def ids(block: Block) -> list[str]:
    """Return the ids of the block's predictions."""
    random = hashlib.shake_256(b"ids" + block.seed).digest(uuid7_randomness(block.rows))
    return uuid7s(block.at // 1_000_000, random)


def contains(block: Block, prediction_id: str) -> bool:
    """Return whether the block contains this prediction.

    The check is cheap if the block and the prediction have different timestamps.
    """
    return prediction_id.replace("-", "")[:12] == f"{block.at // 1_000_000:012x}" and prediction_id in ids(block)


def output(block: Block) -> NDArray[np.float32]:
    """Return the graph's output, one row per prediction."""
    import numpy as np

    return np.frombuffer(block.output, "<f4").reshape(block.rows, -1)


def rows(block: Block) -> list[bytes]:
    """Return each row as JSON, as the native dialect would have received it."""
    from rowcast.schema import tensors

    columns: list[Sequence[Any]] = []
    at, memory = 0, memoryview(block.body)
    for column in block.columns:
        head = tensors.TensorHeader(column.name, [block.rows], column.datatype)
        columns.append(tensors.from_bytes(head, memory[at : at + column.size]).cells())
        at += column.size
    names = [column.name for column in block.columns]
    return [msgspec.json.encode(dict(zip(names, cells, strict=True))) for cells in zip(*columns, strict=True)]


def row_warnings(block: Block) -> list[tuple[RowWarning, ...]]:
    """Return the warnings about each row."""
    if not block.warnings:
        return [NO_WARNINGS] * block.rows
    import numpy as np

    listed: list[list[RowWarning]] = [[] for _ in range(block.rows)]
    for each in block.warnings:
        warning = RowWarning(each.column, each.code, each.message)
        bits = np.unpackbits(np.frombuffer(each.rows, np.uint8), count=block.rows)
        for row in np.flatnonzero(bits).tolist():
            listed[row].append(warning)
    return [limit_warnings(warnings) for warnings in listed]


def entries(block: Block) -> Iterator[Draft]:
    """Yield one entry per row, exactly as if each row had been recorded individually."""
    from rowcast.schema.scores import score_rows

    scores = score_rows(block.decision, output(block))
    replies = encode_replies(
        block.model,
        block.version,
        ids=ids(block),
        scores=scores,
        warnings=row_warnings(block),
        cached=[False] * block.rows,
    )
    salts = hashlib.shake_256(b"salts" + block.seed).digest(SALT_BYTES * block.rows)
    at = block.at // 1_000
    for number, (row, reply) in enumerate(zip(rows(block), replies, strict=True)):
        head = Entry(at, block.digest, block.source, block.request_id, reply, block.key_id, block.tenant, block.entity)
        yield Draft(encode_head(head), salts[number * SALT_BYTES : (number + 1) * SALT_BYTES], row)
