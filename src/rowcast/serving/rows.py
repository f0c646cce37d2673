"""The rows of a request: read and counted before anything is scored, all their errors at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from rowcast.errors import BodyError, InvalidRows, ValueProblem
from rowcast.schema.encoding import EncodedRow, decode_json
from rowcast.schema.prediction import Score
from rowcast.serving.live_models import LiveModel

T = TypeVar("T")

MOST_PROBLEMS = 1000
"""A batch whose rows have more is refused without reading on."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """A valid row beside the bytes it came in."""

    encoded: EncodedRow
    received: bytes
    key: str = ""
    """Its name in the cache; empty when the cache is not asked."""
    known: Score | None = None
    """What the cache knew."""
    ttl: int = 0
    """Seconds that its outcome is remembered; 0 leaves that to the cache."""


class Refused(msgspec.Struct, frozen=True):
    """A row of a batch that broke the schema, in the place of its prediction."""

    problems: list[ValueProblem]


def read_rows(model: LiveModel, body: bytes, *, max_rows: int, partial: bool = False) -> list[Row | Refused]:
    """The rows of `{"rows": [...]}`; InvalidRows with every problem of every row, or Refused in their places."""
    try:
        received = msgspec.json.decode(body, type=_Rows).rows
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        decode_json(body)  # says what is wrong with the text itself
        raise BodyError('`rows` must be a list of objects and the only key: {"rows": [{...}, ...]}') from None
    return each_row(received, lambda raw: Row(model.encoder.read(raw), bytes(raw)), max_rows=max_rows, partial=partial)


def each_row(
    given: Sequence[T], read: Callable[[T], Row], *, max_rows: int, partial: bool = False
) -> list[Row | Refused]:
    """What was given, read one by one; all errors of `read` at once, each with its row."""
    check_count(len(given), max_rows)
    rows: list[Row | Refused] = []
    problems: list[ValueProblem] = []
    for number, raw in enumerate(given):
        try:
            rows.append(read(raw))
        except InvalidRows as invalid:
            found = [msgspec.structs.replace(problem, row=number) for problem in invalid.problems]
            rows.append(Refused(found))
            problems += found
            if len(problems) >= MOST_PROBLEMS and not partial:
                break
        except BodyError as error:
            raise BodyError(f"row {number}: {error.message}", slug=error.slug) from None
    if problems and not partial:
        raise InvalidRows(problems)
    return rows


def check_count(rows: int, most: int) -> None:
    """BodyError unless there are rows, and not too many."""
    if not rows:
        raise BodyError("there are no rows; send at least one", slug="no-rows")
    if rows > most:
        raise BodyError(f"{rows} rows in one request; at most {most}", slug="too-many-rows")


class _Rows(msgspec.Struct, forbid_unknown_fields=True):
    rows: list[msgspec.Raw]


def is_batch(body: bytes) -> bool:
    """Whether the body is an object whose only key is `rows`."""
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw]).keys() == {"rows"}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False  # read as one row it is refused with the reason
