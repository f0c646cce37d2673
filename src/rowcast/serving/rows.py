"""Decode, validate and count the rows in a request before any row is scored, and report all errors together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from rowcast.errors import BodyError, InvalidRows, ValueProblem
from rowcast.schema.encoding import EncodedRow, decode_json
from rowcast.schema.prediction import Score
from rowcast.schema.schema import MAX_PROBLEMS
from rowcast.serving.interface import ModelInterface

T = TypeVar("T")

NOT_LISTED = ValueProblem("", "invalid-row", "the row is invalid; send it again in a smaller batch for details")


class Row(msgspec.Struct, frozen=True, gc=False):
    """A valid row, both encoded and as received."""

    encoded: EncodedRow
    received: bytes
    uses_cache: bool = True
    cache_key: str = ""
    """The row's key in the cache; empty if the cache is not used."""
    cached_score: Score | None = None
    cache_seconds: int = 0
    """How long the cache keeps the score, in seconds; 0 means the cache's default."""


class RejectedRow(msgspec.Struct, frozen=True):
    """A row that failed validation. In a partial reply, its problems replace the prediction."""

    problems: list[ValueProblem]


def read_rows(model: ModelInterface, body: bytes, *, max_rows: int, partial: bool = False) -> list[Row | RejectedRow]:
    """Parse `{"rows": [...]}`.

    If rows are invalid, raise InvalidRows with their problems, or return RejectedRow items if `partial` is true.
    """
    try:
        received = msgspec.json.decode(body, type=_RowsBody).rows
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        decode_json(body)  # raises a more precise error if the body is not JSON
        raise BodyError('"rows" must be a list of objects and the only key: {"rows": [{...}, ...]}') from None
    return read_each(received, lambda raw: Row(model.encoder.read(raw), bytes(raw)), max_rows=max_rows, partial=partial)


def read_each(
    items: Sequence[T], read: Callable[[T], Row], *, max_rows: int, partial: bool = False
) -> list[Row | RejectedRow]:
    """Read each item, and collect the errors with their row numbers, until there are `MAX_PROBLEMS` problems.

    After that, a batch is rejected without reading its remaining rows; in a partial reply, the remaining invalid rows
    are rejected without a list of their problems.
    """
    check_count(len(items), max_rows)
    rows: list[Row | RejectedRow] = []
    problems: list[ValueProblem] = []
    for number, item in enumerate(items):
        try:
            rows.append(read(item))
        except InvalidRows as invalid:
            found = invalid.problems if len(problems) < MAX_PROBLEMS else [NOT_LISTED]
            numbered = [msgspec.structs.replace(problem, row=number) for problem in found]
            rows.append(RejectedRow(numbered))
            problems += numbered
            if len(problems) >= MAX_PROBLEMS and not partial:
                break
        except BodyError as error:
            raise BodyError(f"row {number}: {error.message}", slug=error.slug) from None
    if problems and not partial:
        raise InvalidRows(problems)
    return rows


def read_valid(items: Sequence[T], read: Callable[[T], Row], *, max_rows: int) -> list[Row]:
    """Read each item; raise InvalidRows with the problems in all rows."""
    return [row for row in read_each(items, read, max_rows=max_rows) if isinstance(row, Row)]


def check_count(rows: int, max_rows: int) -> None:
    """Raise BodyError if there are no rows or too many rows."""
    if not rows:
        raise BodyError("the request contains no rows; send at least one", slug="no-rows")
    if rows > max_rows:
        raise BodyError(f"too many rows: {rows}; the limit is {max_rows}", slug="too-many-rows")


class _RowsBody(msgspec.Struct, forbid_unknown_fields=True):
    rows: list[msgspec.Raw]


def is_rows_object(body: bytes) -> bool:
    """Return whether the body is an object with `rows` as its only key."""
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw]).keys() == {"rows"}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False  # parsing it as a single row raises a more precise error
