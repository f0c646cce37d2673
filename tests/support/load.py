"""Clients that send requests continuously and store every reply."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx

from support.servers import NO_TLS

SINGLE, BATCH = 4, 2
BATCH_ROWS = 60


@dataclass
class Load:
    """The rows to send, and the row number and reply for each prediction ID."""

    rows: list[dict[str, Any]]
    answered: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    _next: int = 0

    async def until(self, address: str, answers: int, then: Any) -> None:
        """Send requests until `answers` more predictions have arrived, call `then`, and wait until all clients stop."""
        enough = asyncio.Event()
        goal = len(self.answered) + answers
        clients = [
            asyncio.create_task(self._send(address, size, goal, enough)) for size in [1] * SINGLE + [BATCH_ROWS] * BATCH
        ]
        await asyncio.wait_for(enough.wait(), 60)
        await asyncio.to_thread(then)
        await asyncio.wait_for(asyncio.gather(*clients), 30)

    async def _send(self, address: str, size: int, goal: int, enough: asyncio.Event) -> None:
        async with httpx.AsyncClient(base_url=address, timeout=20, trust_env=False, verify=NO_TLS) as client:
            while True:
                numbers = [(self._next + place) % len(self.rows) for place in range(size)]
                self._next += size
                rows = [self.rows[number] for number in numbers]
                try:
                    reply = await client.post("/predict", json=rows[0] if size == 1 else {"rows": rows})
                except httpx.TransportError:
                    return  # the server has stopped; requests without a reply are not counted
                if reply.status_code != 200:
                    self.refused.append(reply.status_code)
                    return
                predictions = [reply.json()] if size == 1 else reply.json()["predictions"]
                for number, prediction in zip(numbers, predictions, strict=True):
                    if prediction["id"] in self.answered:
                        self.repeated.append(prediction["id"])
                    self.answered[prediction["id"]] = (number, prediction)
                if len(self.answered) >= goal:
                    enough.set()
