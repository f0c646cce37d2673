"""Send requests to a service continuously, and assign exactly one outcome to each request.

An outcome is one of:

    answered        200, with the right score for every row
    503 SLUG        a problem document with a known slug and a Retry-After header
    409             also with a Retry-After header; the slug is `repeat-in-flight`, because an earlier attempt with the
                    same Idempotency-Key may still be in progress
    lost: refused   the connection was refused
    lost: cut off   the connection was closed before the complete reply had arrived
    hang            no complete reply within `limit` seconds
    wrong           anything else: other statuses, other scores, malformed replies

Half of the clients send an Idempotency-Key and repeat a request until it is answered. One client in each half sends
batches.
"""

from __future__ import annotations

import asyncio
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

CLIENTS = 8
BATCH = 20
PAUSE = 0.02
REFUSED_PAUSE = 0.1
SLUGS = frozenset(
    {
        "queue-unavailable",
        "no-worker",
        "worker-failed",
        "overloaded",
        "not-stored",
        "not-ready",
        "idempotency-unavailable",
        "unavailable",
    }
)
"""The error slugs that a service may return for a prediction while one of its parts is failing."""
SETTLE_SECONDS = 60.0
"""How long unfinished requests with an Idempotency-Key are retried after the load has ended. A dead server's lease
expires after 20 s."""


class Broken(Exception):
    """The connection was refused or closed."""


class Wrong(Exception):
    """A reply that no client should ever receive."""


@dataclass
class Phase:
    """The requests that finished during one part of the drill."""

    name: str
    outcomes: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    recovery: float = 0.0
    """The seconds from the end of the fault until every client has received a reply to a later request."""

    def total(self, prefix: str) -> int:
        """Return the number of requests whose outcome begins with `prefix`."""
        return sum(count for outcome, count in self.outcomes.items() if outcome.startswith(prefix))

    def figures(self) -> dict[str, Any]:
        """Return the figures to record."""
        times = {"longest": round(self.longest, 2), "recovery": round(self.recovery, 2)}
        return {"outcomes": dict(self.outcomes), **times}


@dataclass(frozen=True)
class Operation:
    """One request, which may be sent several times if it has a key."""

    number: int
    rows: list[int]
    key: str = ""


class ServiceLoad:
    """Clients in a separate thread that send one request after another on persistent connections."""

    def __init__(
        self, port: int, rows: list[bytes], right: Callable[[int, dict[str, Any]], bool], *, limit: float, name: str
    ) -> None:
        self.sent = 0
        self.phases = [Phase("start")]
        self.acknowledged: dict[str, int] = {}
        """The checksum of each acknowledged prediction, by id."""
        self.wrong: list[str] = []
        self.replayed = 0
        self.keyed: dict[str, int] = {}
        """The number of rows in each answered request that has a key, by request id."""
        self.unfinished: list[Operation] = []
        self._port = port
        self._rows = rows
        self._right = right
        self._limit = limit
        self._name = name
        self._next = 0
        self._answered_at = [0.0] * CLIENTS
        """The time at which each client sent its latest answered request."""
        self._stop = threading.Event()

    @contextmanager
    def on(self) -> Iterator[None]:
        """Generate load during a `with` block, then finish every request that has a key."""
        thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self.phases[-1]

    def begin(self, name: str) -> Phase:
        """Begin a new phase."""
        self.phases.append(Phase(name))
        return self.phase

    def is_answered_since(self, moment: float) -> bool:
        """Return whether every client has received a reply to a request that it sent after this time."""
        return all(sent > moment for sent in self._answered_at)

    def total(self, prefix: str = "") -> int:
        """Return the number of requests whose outcome begins with `prefix`, in all phases."""
        return sum(phase.total(prefix) for phase in self.phases)

    def outcomes(self) -> set[str]:
        """Return all outcomes that have occurred."""
        return {outcome for phase in self.phases for outcome in phase.outcomes}

    async def _run(self) -> None:
        await asyncio.gather(*[self._client(number) for number in range(CLIENTS)])
        self.begin("end")
        end = time.monotonic() + SETTLE_SECONDS
        left, self.unfinished = self.unfinished, []
        await asyncio.gather(*[self._finish(operation, end) for operation in left])

    async def _client(self, number: int) -> None:
        connection = Connection(self._port)
        while not self._stop.is_set():
            operation = self._new_operation(number)
            while True:
                began = time.monotonic()
                outcome = await self.attempt(connection, operation)
                if outcome == "answered":
                    self._answered_at[number] = began
                    break
                if not operation.key:
                    await asyncio.sleep(REFUSED_PAUSE)
                    break
                if outcome.startswith("409") or self._stop.is_set():
                    self.unfinished.append(operation)  # its lease ends later, and the client goes on in the meantime
                    break
                await asyncio.sleep(1.0 if outcome.startswith("503") else REFUSED_PAUSE)
            await asyncio.sleep(PAUSE)
        connection.close()

    def _new_operation(self, client: int) -> Operation:
        self._next += 1
        size = BATCH if client < 2 else 1
        rows = [(self._next * 7 + place) % len(self._rows) for place in range(size)]
        return Operation(self._next, rows, f"{self._name}-{self._next}" if client % 2 else "")

    async def _finish(self, operation: Operation, end: float) -> None:
        connection = Connection(self._port)
        while time.monotonic() < end:
            if await self.attempt(connection, operation) == "answered":
                connection.close()
                return
            await asyncio.sleep(1.0)
        self.unfinished.append(operation)

    async def attempt(self, connection: Connection, operation: Operation) -> str:
        """Send the request once, and count and return its outcome."""
        self.sent += 1
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._limit):
                head, content = await connection.exchange(self._request(operation))
            outcome = self._judge(operation, head, content)
        except TimeoutError:  # must come first, because it is an OSError
            outcome = "hang"
        except Broken as error:
            outcome = str(error)
        except Exception as error:  # whatever this client cannot read is a wrong reply
            self.wrong.append(f"{self.phase.name}: {error!r}"[:600])
            outcome = "wrong"
        phase = self.phase
        phase.outcomes[outcome] += 1
        phase.longest = max(phase.longest, time.monotonic() - began)
        if outcome != "answered" and not outcome.startswith(("503", "409")):
            connection.close()
        return outcome

    def _request(self, operation: Operation) -> bytes:
        rows = [self._rows[number] for number in operation.rows]
        body = rows[0] if len(rows) == 1 else b'{"rows":[' + b",".join(rows) + b"]}"
        key = f"idempotency-key: {operation.key}\r\n" if operation.key else ""
        head = (
            "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"x-request-id: {self._name}-{operation.number}\r\n{key}content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def _judge(self, operation: Operation, head: Head, content: bytes) -> str:
        if head.status in (503, 409):
            return self._judge_refusal(head, content)
        if head.status != 200:
            raise Wrong(head, content[:300])
        single = len(operation.rows) == 1
        replies = [msgspec.Raw(content)] if single else msgspec.json.decode(content, type=_Many).predictions
        predictions = [msgspec.json.decode(raw) for raw in replies]
        for number, prediction in zip(operation.rows, predictions, strict=True):
            if not self._right(number, prediction):
                raise Wrong(f"row {number}", prediction)
        is_replayed = "idempotency-replayed" in head.fields
        for raw, prediction in zip(replies, predictions, strict=True):
            if prediction["id"] in self.acknowledged and not is_replayed:
                raise Wrong(f"id {prediction['id']} was returned twice")
            self.acknowledged[prediction["id"]] = zlib.crc32(bytes(raw))
        self.replayed += is_replayed
        if operation.key:
            self.keyed[f"{self._name}-{operation.number}"] = len(operation.rows)
        return "answered"

    def _judge_refusal(self, head: Head, content: bytes) -> str:
        slug = str(msgspec.json.decode(content)["type"]).removeprefix("urn:rowcast:error:")
        known = slug in SLUGS if head.status == 503 else slug == "repeat-in-flight"
        if not known or not head.fields.get("retry-after", "").isdigit():
            raise Wrong(head, content[:300])
        return f"503 {slug}" if head.status == 503 else "409"


class _Many(msgspec.Struct):
    predictions: list[msgspec.Raw]


@dataclass(frozen=True)
class Head:
    """The status and the headers of a reply; header names are in lower case."""

    status: int
    fields: dict[str, str]


class Connection:
    """A persistent connection, which is reopened after it has been closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    def close(self) -> None:
        """Close the connection immediately."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def exchange(self, request: bytes) -> tuple[Head, bytes]:
        """Send a request and return the complete reply."""
        if self._reader is None or self._writer is None or self._reader.at_eof():
            self.close()
            try:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            except TimeoutError:
                raise
            except OSError:
                raise Broken("lost: refused") from None
        try:
            self._writer.write(request)
            await self._writer.drain()
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
            fields = dict(line.split(": ", 1) for line in lines[1:] if line)
            content = await self._reader.readexactly(int(fields["content-length"]))
        except TimeoutError:
            raise
        except (OSError, asyncio.IncompleteReadError):
            raise Broken("lost: cut off") from None
        if fields.get("connection") == "close":
            self.close()
        return Head(int(lines[0].split(" ")[1]), fields), content
