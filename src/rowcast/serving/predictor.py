"""HOT PATH. Every door asks here: rows in, scored and recorded predictions out.

Requests that wait for the same tick of the event loop share one call of the model and one write of the journal. There
is no timer: whoever arrives first asks for the tick, whoever arrives before it runs takes part. Nothing is answered
before the journal has it.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import msgspec

from rowcast.domain.chain import SALT_BYTES, Draft, Entry, encode_head
from rowcast.domain.encode import EncodedRow, decode_json
from rowcast.domain.events import Listener, Scored
from rowcast.domain.identity import row_key, uuid7_randomness, uuid7s
from rowcast.domain.prediction import Outcome
from rowcast.errors import BodyError, InvalidRows, Overloaded, TooLate, ValueProblem
from rowcast.ports import Cache, Journal
from rowcast.serving.deployment import Deployment, LiveModel

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
    deadline: float = math.inf
    """By `time.perf_counter`; what has not been scored by then never is."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """A valid row beside the bytes it came in."""

    encoded: EncodedRow
    received: bytes
    key: str = ""
    """Its name in the cache; empty when the cache is not asked."""
    known: Outcome | None = None
    """What the cache knew."""


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
        cache: Cache | None = None,
    ) -> None:
        self.deployment = deployment
        self.caching = cache is not None
        self._cache = cache
        self._journal = journal
        self._listen = listen
        self._max_waiting = max_waiting
        self._waiting: list[_Waiting] = []
        self._rows_waiting = 0

    async def recall(self, model: LiveModel, rows: Sequence[Row]) -> list[Row]:
        """The rows with their cache keys, and with their outcomes where the cache knows them."""
        if self._cache is None:
            return list(rows)
        plan, digest = model.encoder.plan, model.digest
        keys = [row_key(digest, plan, row.encoded) for row in rows]
        found = await self._cache.get(keys)
        return [Row(row.encoded, row.received, key, known) for row, key, known in zip(rows, keys, found, strict=True)]

    def predict(self, model: LiveModel, row: Row, ask: Ask) -> asyncio.Future[bytes]:
        """The reply to one row as JSON, once it is in the journal; cancelling harms nobody else."""
        return self._wait(model, (row,), ask, True)

    def predict_all(self, model: LiveModel, rows: Sequence[Row], ask: Ask) -> asyncio.Future[list[bytes]]:
        """The replies to many rows, in order."""
        return self._wait(model, rows, ask, False)

    def _wait(self, model: LiveModel, rows: Sequence[Row], ask: Ask, alone: bool) -> asyncio.Future[Any]:
        if self._rows_waiting >= self._max_waiting:
            raise Overloaded(f"{self._rows_waiting} rows are waiting; try again in a second")
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
        now = time.perf_counter()
        for asked in waiting:
            if asked.ask.deadline < now and not asked.answer.cancelled():
                asked.answer.set_exception(TooLate("the time that the request had is up; it was not scored"))
            elif not asked.answer.cancelled():
                by_model.setdefault(asked.model, []).append(asked)
        for model, together in by_model.items():
            try:
                replies = self._score_and_record(model, together)
            except Exception as error:  # whatever it was, every caller of this tick must hear of it
                for asked in together:
                    asked.answer.set_exception(error)
                continue
            start = 0
            for asked in together:
                end = start + len(asked.rows)
                asked.answer.set_result(replies[start] if asked.alone else replies[start:end])
                start = end

    def _score_and_record(self, model: LiveModel, together: list[_Waiting]) -> list[bytes]:
        rows = [row for asked in together for row in asked.rows]
        encoded = [row.encoded for row in rows]
        outcomes = model.score(encoded) if self._cache is None else self._score_unknown(model, rows, self._cache)
        count, digest = len(rows), model.digest
        nanoseconds = time.time_ns()
        at = nanoseconds // 1_000
        ids = uuid7s(nanoseconds // 1_000_000, os.urandom(uuid7_randomness(count)))
        salts = os.urandom(count * SALT_BYTES)
        cached = [row.known is not None for row in rows] if self.caching else repeat(False, count)
        replies = model.replies(ids, outcomes, encoded, cached)
        asks = [asked.ask for asked in together for _ in asked.rows]
        drafts = [
            Draft(
                encode_head(Entry(at, digest, ask.source, ask.request_id, reply, ask.key_id, ask.tenant, ask.entity)),
                salts[number * SALT_BYTES : (number + 1) * SALT_BYTES],
                row.received,
            )
            for number, (ask, row, reply) in enumerate(zip(asks, rows, replies, strict=True))
        ]
        self._journal.append(drafts)
        labels = [outcome.prediction for outcome in outcomes] if model.classifies else []
        self._listen(Scored(model.name, model.version, count, labels))
        return replies

    def _score_unknown(self, model: LiveModel, rows: Sequence[Row], cache: Cache) -> list[Outcome]:
        """Outcomes in order: those that the cache knew, and the others scored and remembered."""
        unknown = [row for row in rows if row.known is None]
        scored = model.score([row.encoded for row in unknown]) if unknown else []
        cache.put({row.key: outcome for row, outcome in zip(unknown, scored, strict=True) if row.key})
        fresh = iter(scored)
        return [next(fresh) if row.known is None else row.known for row in rows]


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
