"""Generate constant load, check every reply and classify every request that gets no reply."""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

BATCH = 20


@dataclass
class Tally:
    """The results of all requests, and the acknowledged predictions by id."""

    counts: Counter[str] = field(default_factory=Counter)
    acknowledged: dict[str, int] = field(default_factory=dict)
    """The checksum of each reply, by prediction id."""
    wrong: list[str] = field(default_factory=list)


class Pressure:
    """Clients that send one request after another on persistent connections.

    `right(version, row, prediction)` returns whether the prediction is correct. A request is counted as `answered`,
    `shed` (503), `refused` (the connection was refused, or closed before its first reply), `cut` (the connection was
    closed after an earlier reply) or `torn` (the reply was truncated).
    """

    def __init__(self, port: int, rows: list[bytes], right: Callable[[int, int, Any], bool], clients: int = 6) -> None:
        self.tally = Tally()
        self._port = port
        self._rows = rows
        self._right = right
        self._clients = clients
        self._next = 0
        self._stop = threading.Event()

    @contextmanager
    def on(self, pause: float = 0.01) -> Iterator[Tally]:
        """Generate load during a `with` block."""
        self._stop.clear()
        thread = threading.Thread(target=lambda: asyncio.run(self._all(pause)), name="pressure")
        thread.start()
        try:
            yield self.tally
        finally:
            self._stop.set()
            thread.join(60)

    async def _all(self, pause: float) -> None:
        await asyncio.gather(*[self._client(BATCH if number == 0 else 1, pause) for number in range(self._clients)])

    async def _client(self, size: int, pause: float) -> None:
        while not self._stop.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                self.tally.counts["refused"] += 1
                await asyncio.sleep(0.05)
                continue
            try:
                await self._ask_on(reader, writer, size, pause)
            finally:
                writer.close()

    async def _ask_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int, pause: float
    ) -> None:
        used = False
        while not self._stop.is_set():
            first = self._next
            self._next += size
            numbers = [(first + place) % len(self._rows) for place in range(size)]
            rows = [self._rows[number] for number in numbers]
            body = rows[0] if size == 1 else b'{"rows":[' + b",".join(rows) + b"]}"
            head = (
                b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n"
            )
            begun = False
            try:
                writer.write(head % len(body) + body)
                await writer.drain()
                answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
                begun = True
                length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                content = await reader.readexactly(length)
            except (OSError, asyncio.IncompleteReadError) as error:
                begun = begun or bool(getattr(error, "partial", b""))
                self.tally.counts["torn" if begun else "cut" if used else "refused"] += 1
                return
            used = True
            self._note(answer, content, numbers)
            if b"connection: close" in answer.lower():
                return
            await asyncio.sleep(pause)

    def _note(self, head: bytes, content: bytes, numbers: list[int]) -> None:
        status = head.split(b" ", 2)[1]
        tally = self.tally
        if status == b"503":
            tally.counts["shed"] += 1
            return
        tally.counts["answered"] += 1
        if status != b"200":
            tally.wrong.append(f"{head[:40]!r} {content[:300]!r}")
            return
        single = len(numbers) == 1
        replies = [msgspec.Raw(content)] if single else msgspec.json.decode(content, type=_Many).predictions
        for number, raw in zip(numbers, replies, strict=True):
            prediction = msgspec.json.decode(raw)
            if prediction["id"] in tally.acknowledged:
                tally.wrong.append(f"id {prediction['id']} was returned twice")
            tally.acknowledged[prediction["id"]] = zlib.crc32(bytes(raw))
            if not self._right(prediction["version"], number, prediction):
                tally.wrong.append(f"row {number}: {prediction}")


class _Many(msgspec.Struct):
    predictions: list[msgspec.Raw]
