"""HOT PATH. Those who wait for an answer: scored together, each answered or refused alone."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from rowcast.errors import NoAnswer, TooLate
from rowcast.schema.prediction import Score
from rowcast.serving.live_models import LiveModel
from rowcast.serving.rows import Row

TIME_IS_UP = "the time that the request had is up; it was not scored"


class Ask(msgspec.Struct, frozen=True, gc=False):
    """Who asks and how; kept with every prediction of the request."""

    source: str
    request_id: str
    key_id: str = ""
    tenant: str = ""
    entity: str = ""
    deadline: float = math.inf
    """By `time.perf_counter`; what has not been scored by then never is."""


Render = Callable[[bytes], bytes]
"""Makes a reply of another form from the native one."""


class Waiting(msgspec.Struct, frozen=True):
    """A request that was let in, and the future that its caller awaits."""

    model: LiveModel
    rows: Sequence[Row]
    ask: Ask
    answer: asyncio.Future[Any]
    alone: bool
    """Its reply is one prediction, not a list."""
    render: Render | None = None


def answer_all(together: Sequence[Waiting], replies: Sequence[bytes]) -> None:
    """Give each its part of the replies, which are in order."""
    start = 0
    for asked in together:
        end = start + len(asked.rows)
        if not asked.answer.done():
            _give(asked, replies[start] if asked.alone else replies[start:end])
        start = end


def _give(asked: Waiting, reply: Any) -> None:
    try:
        asked.answer.set_result(reply if asked.render is None else asked.render(reply))
    except Exception as error:  # nobody else's answer is to suffer from it
        asked.answer.set_exception(error)


def answer_when_stored(together: Sequence[Waiting], replies: Sequence[bytes], error: Exception | None) -> None:
    """The same once the store has the entries, or `error` that it has not."""
    if error is None:
        answer_all(together, replies)
    else:
        fail(together, error)


class Attempt(NamedTuple):
    """Who got which outcomes, and who cannot be answered."""

    together: list[Waiting]
    outcomes: list[Score]
    failed: list[tuple[Waiting, NoAnswer]]


def attempt(model: LiveModel, together: list[Waiting]) -> Attempt:
    """Every row's outcome; a row that the model has no answer for costs nobody but its own caller."""
    try:
        return Attempt(together, _outcomes(model, together), [])
    except NoAnswer:
        found = Attempt([], [], [])
    for asked in together:
        try:
            found.outcomes.extend(_outcomes(model, [asked]))
            found.together.append(asked)
        except NoAnswer as none:
            unknown = [place for place, row in enumerate(asked.rows) if row.known is None]
            found.failed.append((asked, NoAnswer([unknown[place] for place in none.rows], alone=asked.alone)))
    return found


def answerable(found: Attempt) -> tuple[list[Waiting], list[Score]]:
    """Who can be answered, with their outcomes; the others are told here."""
    for asked, error in found.failed:
        fail([asked], error)
    return found.together, found.outcomes


def _outcomes(model: LiveModel, together: list[Waiting]) -> list[Score]:
    """Every row's outcome in order: what the cache knew, and the others scored."""
    rows = [row for asked in together for row in asked.rows]
    unknown = [row.encoded for row in rows if row.known is None]
    scored = model.score(unknown) if unknown else []
    if len(scored) == len(rows):
        return scored
    fresh = iter(scored)
    return [next(fresh) if row.known is None else row.known for row in rows]


def is_over(asked: Waiting, now: float) -> bool:
    """Whether nobody waits for the answer any longer; whoever let its time pass is told."""
    if asked.ask.deadline < now and not asked.answer.done():
        asked.answer.set_exception(TooLate(TIME_IS_UP))
    return asked.answer.done()


def fail(together: Sequence[Waiting], error: Exception) -> None:
    """Tell all who still wait."""
    for asked in together:
        if not asked.answer.done():
            asked.answer.set_exception(error)
