"""HOT PATH. Every door asks here: rows in, scored and recorded predictions out.

Requests that wait for the same tick of the event loop share one call of the model and one write of the journal. There
is no timer: whoever arrives first asks for the tick, whoever arrives before it runs takes part. Nothing is answered
before the journal has it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from rowcast.domain.chain import SALT_BYTES, Draft, Entry, encode_head
from rowcast.domain.encode import EncodedRow, decode_json
from rowcast.domain.events import Listener, Scored
from rowcast.domain.identity import uuid7_randomness, uuid7s
from rowcast.domain.sensitive import Guard
from rowcast.errors import BodyError, InvalidRows, Overloaded, Unavailable, ValueProblem
from rowcast.ports import Journal
from rowcast.serving.deployment import Deployment, LiveModel
from rowcast.serving.stored import UntilStored

MOST_TURNS = 8
"""Turns of the loop that the first of a batch waits at most."""
MOST_PROBLEMS = 1000
"""A batch whose rows have more is refused without reading on."""


class Ask(msgspec.Struct, frozen=True, gc=False):
    """Who asks and how; kept with every prediction of the request."""

    source: str
    request_id: str
    key_id: str = ""
    tenant: str = ""
    entity: str = ""


class Row(msgspec.Struct, frozen=True, gc=False):
    """A valid row beside the bytes it came in."""

    encoded: EncodedRow
    received: bytes


class Refused(msgspec.Struct, frozen=True):
    """A row of a batch that broke the schema, in the place of its prediction."""

    problems: list[ValueProblem]


class _Waiting(msgspec.Struct, frozen=True):
    model: LiveModel
    rows: Sequence[Row]
    ask: Ask
    answer: asyncio.Future[Any]
    alone: bool


class Predictor:
    """Scores, records and answers; one for each process, used from its event loop."""

    def __init__(
        self,
        deployment: Deployment,
        journal: Journal,
        listen: Listener,
        *,
        max_waiting: int = 10_000,
        guard: Guard | None = None,
        stored: UntilStored | None = None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.deployment = deployment
        self._journal = journal
        self._listen = listen
        self._max_waiting = max_waiting
        self._guard = guard
        self._stored = stored
        self._now = now
        self._held: str | None = None
        self._waiting: list[_Waiting] = []
        self._rows_waiting = 0

    def predict(self, model: LiveModel, row: Row, ask: Ask) -> asyncio.Future[bytes]:
        """The reply to one row as JSON, once it is in the journal; cancelling harms nobody else."""
        return self._wait(model, (row,), ask, True)

    def predict_all(self, model: LiveModel, rows: Sequence[Row], ask: Ask) -> asyncio.Future[list[bytes]]:
        """The replies to many rows, in order."""
        return self._wait(model, rows, ask, False)

    def hold(self, reason: str | None) -> None:
        """Refuse what comes from now on, and say why; None ends it."""
        self._held = reason

    def _wait(self, model: LiveModel, rows: Sequence[Row], ask: Ask, alone: bool) -> asyncio.Future[Any]:
        if self._rows_waiting >= self._max_waiting:
            raise Overloaded(f"{self._rows_waiting} rows are waiting; try again in a second")
        if self._held is not None:
            raise Unavailable(self._held, slug="disk-low")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._gather, 0, MOST_TURNS)
        self._waiting.append(_Waiting(model, rows, ask, answer, alone))
        self._rows_waiting += len(rows)
        return answer

    def _gather(self, seen: int, turns: int) -> None:
        """Let the loop turn once more while it brings further requests: a full batch costs a third less a row, and at
        32 connections it is answered sooner than two half ones (bench/serve.py)."""
        count = len(self._waiting)
        if count > seen and turns:
            asyncio.get_running_loop().call_soon(self._gather, count, turns - 1)
        else:
            self._tick()

    def _tick(self) -> None:
        waiting, self._waiting, self._rows_waiting = self._waiting, [], 0
        by_model: dict[LiveModel, list[_Waiting]] = {}
        for asked in waiting:
            if not asked.answer.cancelled():
                by_model.setdefault(asked.model, []).append(asked)
        for model, together in by_model.items():
            try:
                replies = self._score_and_record(model, together)
            except Exception as error:  # whatever it was, every caller of this tick must hear of it
                for asked in together:
                    asked.answer.set_exception(error)
                continue
            if self._stored is None:
                _answer(together, replies)
            else:
                self._stored.then(self._journal, partial(_answer_when_stored, together, replies))

    def _score_and_record(self, model: LiveModel, together: list[_Waiting]) -> list[bytes]:
        rows = [row for asked in together for row in asked.rows]
        encoded = [row.encoded for row in rows]
        outcomes = model.score(encoded)
        count, digest = len(rows), model.digest
        nanoseconds = self._now()
        at = nanoseconds // 1_000
        ids = uuid7s(nanoseconds // 1_000_000, os.urandom(uuid7_randomness(count)))
        salts = os.urandom(count * SALT_BYTES)
        replies = model.replies(ids, outcomes, encoded)
        asks = [asked.ask for asked in together for _ in asked.rows]
        received, withheld = self._keepable(model, rows)
        drafts = [
            Draft(
                encode_head(
                    Entry(at, digest, ask.source, ask.request_id, reply, ask.key_id, ask.tenant, ask.entity, withheld)
                ),
                salts[number * SALT_BYTES : (number + 1) * SALT_BYTES],
                row,
            )
            for number, (ask, row, reply) in enumerate(zip(asks, received, replies, strict=True))
        ]
        self._journal.append(drafts)
        labels = [outcome.prediction for outcome in outcomes] if model.classifies else []
        self._listen(Scored(model.name, model.version, count, labels))
        return replies

    def _keepable(self, model: LiveModel, rows: Sequence[Row]) -> tuple[list[bytes], tuple[str, ...]]:
        """The rows as they may be kept, and the columns that were withheld from them."""
        withheld = self._guard.withheld(model.schema) if self._guard is not None else ()
        if self._guard is None or not withheld:
            return [row.received for row in rows], ()
        return [self._guard.guarded(model.schema, row.received) for row in rows], withheld


def _answer(together: Sequence[_Waiting], replies: Sequence[bytes]) -> None:
    start = 0
    for asked in together:
        end = start + len(asked.rows)
        if not asked.answer.done():
            asked.answer.set_result(replies[start] if asked.alone else replies[start:end])
        start = end


def _answer_when_stored(together: Sequence[_Waiting], replies: Sequence[bytes], error: Exception | None) -> None:
    if error is None:
        _answer(together, replies)
        return
    for asked in together:
        if not asked.answer.done():
            asked.answer.set_exception(error)


def read_rows(model: LiveModel, body: bytes, *, max_rows: int, partial: bool = False) -> list[Row | Refused]:
    """The rows of `{"rows": [...]}`; InvalidRows with every problem of every row, or Refused in their places."""
    try:
        received = msgspec.json.decode(body, type=_Rows).rows
    except (msgspec.ValidationError, RecursionError):
        decode_json(body)  # says what is wrong with the text itself
        raise BodyError('`rows` must be a list of objects and the only key: {"rows": [{...}, ...]}') from None
    if not received:
        raise BodyError("`rows` is empty; send at least one row", slug="no-rows")
    if len(received) > max_rows:
        raise BodyError(f"{len(received)} rows in one request; at most {max_rows}", slug="too-many-rows")
    rows: list[Row | Refused] = []
    problems: list[ValueProblem] = []
    for number, raw in enumerate(received):
        try:
            rows.append(Row(model.encoder.read(raw), bytes(raw)))
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


class _Rows(msgspec.Struct, forbid_unknown_fields=True):
    rows: list[msgspec.Raw]


def is_batch(body: bytes) -> bool:
    """Whether the body is an object whose only key is `rows`."""
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw]).keys() == {"rows"}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False  # read as one row it is refused with the reason
