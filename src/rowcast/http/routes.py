"""What the edge and those who answer behind it say to each other: a request, a reply, a route."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import msgspec

from rowcast.access.callers import Caller
from rowcast.access.scopes import Scope as KeyScope
from rowcast.http import problems

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Lifespan = Callable[[Receive, Send], Awaitable[None]]

JSON = b"application/json"
ONLY_JSON = frozenset((JSON,))


class Request(msgspec.Struct):
    """A request with its body read, inside all bounds."""

    path: str
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes
    request_id: str
    caller: Caller = Caller()
    deadline: float = math.inf
    """By `time.perf_counter`: nobody waits for the answer any longer."""
    notes: Sequence[tuple[bytes, bytes]] = ()
    """Headers that the answer wants to have."""

    def note(self, name: bytes, value: bytes) -> None:
        """Add a header to the answer."""
        self.notes = [*self.notes, (name, value)]

    def note_cache(self, hit: bool) -> None:
        """Tell whether the cache knew every row."""
        self.note(b"x-cache", b"hit" if hit else b"miss")

    def spend(self, rows: int) -> None:
        """Take all rows of this request from the caller's quota; one was taken when it came in."""
        if self.caller.meter is not None:
            self.caller.meter.spend(rows - 1, time.perf_counter(), rows)


class HotRoute(msgspec.Struct, frozen=True):
    """A route that is answered with JSON and without the cold app; `name` is its pattern, for metrics."""

    name: str
    method: str
    answer: Callable[[Request], Awaitable[bytes]]
    scope: KeyScope = "predict"


class Reply(msgspec.Struct):
    """What a door answers."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: list[tuple[bytes, bytes]] = []


class Door(msgspec.Struct, frozen=True):
    """A route of another dialect: its replies are its own, and so is the form of its errors. `name` is its pattern."""

    name: str
    method: str
    answer: Callable[[Request], Awaitable[Reply]]
    form: problems.Form
    scope: KeyScope | None = None
    """None: any good key will do."""
    open: bool = False
    """Needs no key."""
    content_types: frozenset[bytes] = ONLY_JSON


Doors = Callable[[str], Door | None]
"""Finds the door of a path."""


class Bounds(msgspec.Struct, frozen=True):
    """How much, and how long."""

    max_body: int
    wait_seconds: float = math.inf
    """A request that has waited longer is not scored any more."""
