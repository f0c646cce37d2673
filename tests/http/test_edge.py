"""The edge in isolation: rules that apply to every request."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rowcast.adapters.memory.idempotency import MemoryIdempotencyStore
from rowcast.adapters.memory.keys import MemoryKeys
from rowcast.errors import HistoryError, Overloaded, Unavailable
from rowcast.events import Event, RequestAnswered
from rowcast.http.authentication import AccessRules, Authenticator
from rowcast.http.bodies import RequestIds
from rowcast.http.edge import Edge
from rowcast.http.idempotency import Idempotency
from rowcast.http.routes import Handler, Request, RequestRules, Response, Route, Router, any_options
from support import apps, logs

SECRET = "the password is swordfish"


async def echo(request: Request) -> Response:
    return Response(json.dumps({"body": request.body.decode(), "path": request.path}).encode())


def failing(error: Exception) -> Handler:
    async def answer(request: Request) -> Response:
        raise error

    return answer


def hot(pattern: str, handler: Handler) -> Route:
    return Route(pattern=pattern, method="POST", handler=handler, scope="predict", read_options=any_options)


async def cold(scope: Any, receive: Any, send: Any) -> None:
    """Send the request body back; raise an error for paths that start with `/broken`."""
    if scope["path"].startswith("/broken"):
        raise RuntimeError(SECRET)
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": message["body"]})


async def no_lifespan(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


ROUTES = [
    hot("/echo", echo),
    hot("/broken/hot", failing(RuntimeError(SECRET))),
    hot("/full", failing(Overloaded("too many rows are waiting"))),
    hot("/away", failing(Unavailable("the journal cannot be written"))),
    hot("/damaged", failing(HistoryError(SECRET))),
]


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def edge(events: list[Event]) -> Edge:
    return Edge(
        Router({route.pattern: route for route in ROUTES}, [], []),
        cold,
        no_lifespan,
        events.append,
        Authenticator(MemoryKeys(), AccessRules()),
        Idempotency(MemoryIdempotencyStore(), 60),
        RequestRules(max_body=1000, wait_seconds=60),
        RequestIds("made"),
    )


@pytest.mark.parametrize("path", ["/broken/hot", "/broken", "/damaged"])
async def test_an_internal_error_reveals_only_the_request_id(edge: Edge, path: str, capsys: Any) -> None:
    async with apps.client(edge) as client:
        reply = await client.post(path, content=b"{}", headers={"x-request-id": "r1"})

    assert (reply.status_code, reply.json()["type"]) == (500, "urn:rowcast:error:internal")
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["x-request-id"] == "r1"
    assert reply.json()["instance"] == "urn:rowcast:request:r1"
    assert "swordfish" not in reply.text
    logged = "".join(capsys.readouterr())
    assert "swordfish" in logged
    assert "r1" in logged


async def test_an_internal_error_is_logged_with_the_trace_id_but_without_client_data(edge: Edge, capsys: Any) -> None:
    async with apps.client(edge) as client:
        trace = "0af7651916cd43dd8448eb211c80319c"
        headers = {"x-request-id": "r2", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        await client.post(f"/broken/{logs.CANARY}?{logs.CANARY}", content=b"{}", headers=headers)

    logged = "".join(capsys.readouterr())
    assert "r2" in logged
    assert trace in logged
    assert logs.leaks(logged) == []


@pytest.mark.parametrize("path", ["/full", "/away"])
async def test_overloaded_and_unavailable_responses_include_a_retry_after_header(edge: Edge, path: str) -> None:
    async with apps.client(edge) as client:
        reply = await client.post(path, content=b"{}")

    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.parametrize("path", ["/echo", "/cold"])
async def test_a_body_of_the_maximum_size_is_accepted_and_a_larger_body_is_rejected(edge: Edge, path: str) -> None:
    async with apps.client(edge) as client:
        largest = await client.post(path, content=b"x" * 1000)
        larger = await client.post(path, content=b"x" * 1001)
        endless = await client.post(path, content=_pieces(100, 50))

    assert largest.status_code == 200
    assert (larger.status_code, endless.status_code) == (413, 413)


@pytest.mark.parametrize("path", ["/echo", "/cold"])
async def test_the_chunks_of_a_body_are_joined(edge: Edge, path: str) -> None:
    async with apps.client(edge) as client:
        reply = await client.post(path, content=_pieces(10, 7))

    assert "xxxxxxxxx|" * 7 in reply.text


async def _pieces(size: int, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * (size - 1) + b"|"


@pytest.mark.parametrize("path", ["/echo", "/cold"])
async def test_a_request_is_not_answered_or_counted_if_the_client_disconnects_while_sending_it(
    edge: Edge, path: str, events: list[Event]
) -> None:
    incoming = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(incoming)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [], "root_path": ""}
    await edge({**scope, "client": ("127.0.0.1", 40000)}, receive, send)

    assert sent == []
    assert events == []


async def test_an_event_with_the_route_pattern_is_emitted_for_every_response(edge: Edge, events: list[Event]) -> None:
    async with apps.client(edge) as client:
        await client.post("/echo", content=b"{}")
        await client.post("/full", content=b"{}")
        await client.get("/nowhere/17")

    found = [(event.route, event.method, event.status) for event in events if isinstance(event, RequestAnswered)]
    assert found == [("/echo", "POST", 200), ("/full", "POST", 503), ("unmatched", "GET", 200)]
    assert all(event.seconds >= 0 for event in events if isinstance(event, RequestAnswered))


async def test_generated_request_ids_are_unique(edge: Edge) -> None:
    async with apps.client(edge) as client:
        seen = [(await client.post("/echo", content=b"{}")).headers["x-request-id"] for _ in range(5)]

    assert len(set(seen)) == 5
    assert all(request_id.startswith("made-") for request_id in seen)


async def test_the_root_path_is_removed_from_the_request_path(edge: Edge) -> None:
    async with apps.client(edge, root_path="/api") as client:
        reply = await client.post("/api/echo?a=1", content=b"{}")

    assert reply.json() == {"body": "{}", "path": "/echo"}


async def test_the_root_path_is_removed_twice_if_the_request_path_contains_it_twice(edge: Edge) -> None:
    async with apps.client(edge, root_path="/api") as client:
        reply = await client.post("/api/api/echo", content=b"{}")

    assert reply.json()["path"] == "/echo"


async def test_a_client_cannot_extend_the_deadline_of_its_request() -> None:
    deadlines: list[float] = []

    async def note(request: Request) -> Response:
        deadlines.append(request.context.deadline - time.perf_counter())
        return Response(b"{}")

    router = Router({"/note": hot("/note", note)}, [], [])
    rules, ids = RequestRules(100_000, 5.0), RequestIds("made")
    access = Authenticator(MemoryKeys(), AccessRules())
    idempotency = Idempotency(MemoryIdempotencyStore(), 60)
    edge = Edge(router, cold, no_lifespan, lambda event: None, access, idempotency, rules, ids)
    async with apps.client(edge) as client:
        for seconds in ("2", "500"):
            await client.post("/note", content=b"{}", headers={"x-request-timeout": seconds})
        await client.post("/note", content=b"{}")

    assert 1.0 < deadlines[0] <= 2.0
    assert 4.0 < deadlines[1] <= 5.0
    assert 4.0 < deadlines[2] <= 5.0
