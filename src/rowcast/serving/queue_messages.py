"""The messages between servers and workers: encoded rows and their scores, as MessagePack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from rowcast.errors import Unavailable
from rowcast.schema.encoding import NO_WARNINGS, EncodedRow
from rowcast.schema.prediction import Score

FORMAT: Final = 1
"""The version of the message format. Workers and servers reject all other versions."""


class RowsMessage(msgspec.Struct, frozen=True, array_like=True):
    """The rows of the requests in one batch. Each row's numbers are packed as in the model's input tensors."""

    format: int
    sizes: list[int]
    """The number of rows in each request."""
    rows: list[Any]
    """The inputs of each row: bytes or a list of strings for each tensor."""


class ScoresMessage(msgspec.Struct, frozen=True, array_like=True):
    """A worker's reply: the scores of the successful requests, in order, and the errors of the other requests.

    `errors` maps the position of each failed request to the indexes of its failed rows.
    """

    format: int
    scores: list[Score]
    errors: dict[int, list[int]]
    problem: str = ""
    """Why the worker scored nothing; empty if it scored the rows."""


_encode = msgspec.msgpack.Encoder().encode
_decode_rows = msgspec.msgpack.Decoder(RowsMessage).decode
_decode_scores = msgspec.msgpack.Decoder(ScoresMessage).decode


class Malformed(Exception):
    """Raised if a message cannot be decoded; the exception message gives the reason."""


def encode_rows(requests: Sequence[Sequence[EncodedRow]]) -> bytes:
    """Encode the rows of each request. Hot path of servers that use a queue."""
    rows = [row.inputs for request in requests for row in request]
    return _encode(RowsMessage(FORMAT, [len(request) for request in requests], rows))


def decode_rows(body: bytes) -> list[list[EncodedRow]]:
    """Decode the rows of each request; raise Malformed if a message is damaged or has another format."""
    try:
        message = _decode_rows(body)
    except msgspec.MsgspecError as error:
        raise Malformed(f"the message is not valid: {error}") from None
    if message.format != FORMAT:
        raise Malformed(f"the message has format {message.format}; this worker supports format {FORMAT}")
    if sum(message.sizes) != len(message.rows) or not all(isinstance(row, list) for row in message.rows):
        raise Malformed("the rows in the message do not match its row counts")
    rows = iter(message.rows)
    return [[EncodedRow(tuple(next(rows)), NO_WARNINGS) for _ in range(size)] for size in message.sizes]


def encode_scores(scores: Sequence[Score], errors: dict[int, list[int]]) -> bytes:
    """Encode a worker's reply."""
    return _encode(ScoresMessage(FORMAT, list(scores), errors))


def encode_problem(problem: str) -> bytes:
    """Encode the reply to a message that no worker can score."""
    return _encode(ScoresMessage(FORMAT, [], {}, problem))


def decode_scores(body: bytes) -> ScoresMessage:
    """Decode a worker's reply; raise Unavailable if the worker could not score the rows."""
    try:
        message = _decode_scores(body)
    except msgspec.MsgspecError:
        raise Unavailable("a worker sent a reply that cannot be read", slug="worker-failed") from None
    if message.format != FORMAT:
        raise Unavailable(f"a worker sent a reply in format {message.format}", slug="worker-failed")
    if message.problem:
        raise Unavailable(f"the workers cannot score the rows: {message.problem}", slug="worker-failed")
    return message
