"""The general path and the quick path with shared in-memory components."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rowcast.access.keys import Key
from rowcast.adapters.memory.cache import MemoryCache
from rowcast.adapters.memory.idempotency import MemoryIdempotencyStore
from rowcast.adapters.memory.journal import MemoryJournal
from rowcast.adapters.memory.keys import MemoryKeys
from rowcast.adapters.memory.store import MemoryStore
from rowcast.events import Event
from rowcast.http.authentication import AccessRules, Authenticator
from rowcast.http.bodies import RequestIds
from rowcast.http.dialects.native import NativeRoutes
from rowcast.http.edge import Edge
from rowcast.http.idempotency import Idempotency
from rowcast.http.quick_path import QuickPath
from rowcast.http.routes import Dialect, RequestRules, Router
from rowcast.serving.batcher import Batcher
from rowcast.serving.cache import ScoreCache
from rowcast.serving.deployment import Deployment
from rowcast.serving.live_models import LiveModel
from rowcast.serving.recorder import Recorder
from rowcast.serving.scorer import LocalScorer
from rowcast.serving.service import PredictionService


class Reply(NamedTuple):
    """A response as the client receives it."""

    status: int
    headers: frozenset[tuple[bytes, bytes]]
    body: bytes


class Front:
    """A server without sockets, files or child processes that serves the given models."""

    def __init__(
        self,
        *models: LiveModel,
        keys: Sequence[Key] = (),
        rules: AccessRules | None = None,
        max_waiting: int = 10_000,
        has_cache: bool = False,
        default: str | None = None,
    ) -> None:
        self.store = MemoryStore()
        self.events: list[Event] = []
        listen = self.events.append
        cache = ScoreCache(MemoryCache(100, 60)) if has_cache else None
        recorder = Recorder(MemoryJournal(self.store, "w"), listen, counts_cache_hits=has_cache)
        self.batcher = Batcher(LocalScorer(), recorder, max_waiting=max_waiting, cache=cache)
        self.deployment = Deployment({model.name: model for model in models}, default)
        self.service = PredictionService(self.deployment, self.batcher, recorder, max_rows=100, cache=cache)
        self.native = NativeRoutes(self.service)
        self.dialects: list[Dialect] = []
        """Dialects that a test adds; the router keeps a reference to this list."""
        router = Router(self.native.routes, self.dialects)
        request_rules, ids = RequestRules(100_000, 60), RequestIds("made")
        access = Authenticator(MemoryKeys(keys), rules or AccessRules(hosts=frozenset("*")))
        idempotency = Idempotency(MemoryIdempotencyStore(), 60)
        self.edge = Edge(router, _not_found, _no_lifespan, listen, access, idempotency, request_rules, ids)
        self.quick_path = QuickPath(router, access, listen, request_rules, ids)

    async def ask(self, path: str, body: bytes, headers: Mapping[bytes, bytes]) -> Reply:
        """Handle a POST request on the general path and return the reply."""
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        address, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": "POST",
            "path": address,
            "query_string": query.encode(),
            "headers": list(headers.items()),
            "client": ("127.0.0.1", 40000),
        }
        await asyncio.create_task(self.edge(scope, receive, send))  # type: ignore[arg-type]
        return Reply(sent[0]["status"], frozenset(sent[0]["headers"]), sent[1]["body"])

    async def ask_quickly(self, path: str, body: bytes, headers: Mapping[bytes, bytes]) -> Reply | None:
        """Handle a POST request on the quick path; return None if the request requires the general path."""
        address, _, query = path.partition("?")
        route = self.quick_path.find(address, b"POST", headers)
        answer: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()

        def send(head: bytes, content: bytes) -> None:
            answer.set_result((head, content))

        client = ("127.0.0.1", 40000)
        if route is None or not self.quick_path.answer(route, dict(headers), query.encode(), body, client, send):
            return None
        head, content = await answer
        first, *lines = head.removesuffix(b"\r\n").split(b"\r\n")
        fields = [line.partition(b": ") for line in lines]
        return Reply(int(first.split()[1]), frozenset((name, value) for name, _, value in fields), content)


async def _not_found(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def _no_lifespan(receive: Any, send: Any) -> None:
    """Do nothing, because nothing needs to be started."""
