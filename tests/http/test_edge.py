"""The edge in isolation: rules that apply to every request."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rowcast.access.callers import Caller
from rowcast.access.quotas import Meter, Quota
from rowcast.adapters.memory.idempotency import MemoryIdempotencyStore
from rowcast.adapters.memory.keys import MemoryKeys
from rowcast.errors import HistoryError, Overloaded, Unavailable
from rowcast.events import Event, RequestAnswered, RequestFailed
from rowcast.http.authentication import AccessRules, Authenticator
from rowcast.http.bodies import RequestIds
from rowcast.http.edge import Edge
from rowcast.http.failures import COLD_HEADERS
from rowcast.http.idempotency import Idempotency
from rowcast.http.problems import Problem
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
        Router({route.pattern: route for route in ROUTES}, []),
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

    router = Router({"/note": hot("/note", note)}, [])
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


class Call:
    """Calls an edge without a client library: builds the scope itself and records the messages that the edge sends."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self.received = 0
        self.sent: list[Any] = []

    async def __call__(self, method: str, path: str, body: bytes = b"{}", **scope: Any) -> tuple[int, list[Any], bytes]:
        """Return the status, the headers and the body of the response."""
        self.sent = []

        async def receive() -> Any:
            self.received += 1
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            self.sent.append(message)

        headers = [(b"x-request-id", b"r1"), *scope.pop("headers", [])]
        own = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}
        await self._edge({**own, "client": ("127.0.0.1", 40000), **scope}, receive, send)
        start, end = self.sent
        return start["status"], start["headers"], end["body"]


def build(
    *routes: Route, listen: Any = None, cold_app: Any = cold, keys: Any = (), store: Any = None, **rules: Any
) -> Call:
    """Return an edge with these routes."""
    return Call(
        Edge(
            Router({route.pattern: route for route in routes}, []),
            cold_app,
            no_lifespan,
            listen or (lambda event: None),
            Authenticator(MemoryKeys(keys), AccessRules()),
            Idempotency(store or MemoryIdempotencyStore(), 60),
            RequestRules(**{"max_body": 1000, "wait_seconds": 60, **rules}),
            RequestIds("made"),
        )
    )


async def test_a_response_has_the_common_headers_and_the_headers_of_its_handler() -> None:
    async def answer(request: Request) -> Response:
        request.add_header(b"x-own", b"1")
        return Response(b"teapot", 418, b"text/plain", [(b"x-teapot", b"yes")])

    assert await build(hot("/tea", answer))("POST", "/tea") == (
        418,
        [
            (b"content-type", b"text/plain"),
            (b"x-content-type-options", b"nosniff"),
            (b"cache-control", b"no-store"),
            (b"x-teapot", b"yes"),
            (b"x-own", b"1"),
            (b"x-request-id", b"r1"),
            (b"content-length", b"6"),
        ],
        b"teapot",
    )


async def test_a_problem_response_has_the_security_headers() -> None:
    status, headers, body = await build(*ROUTES)("POST", "/full")

    assert status == 503
    assert headers == [
        (b"content-type", b"application/problem+json"),
        (b"retry-after", b"1"),
        *COLD_HEADERS,
        (b"x-request-id", b"r1"),
        (b"content-length", b"%d" % len(body)),
    ]


async def test_the_cold_app_gets_a_changed_copy_of_the_scope_and_missing_headers_are_added_to_its_response() -> None:
    seen: list[Any] = []

    async def note(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, await receive(), await receive()))
        own = [(b"Cache-Control", b"max-age=9"), (b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 201, "headers": own})
        await send({"type": "http.response.body", "body": b"page"})

    events: list[Event] = []
    state = {"own": 1}
    call = build(cold_app=note, listen=events.append, root_path="/api")
    status, headers, body = await call("HEAD", "/api/page", b"text", state=state)

    scope, first, second = seen[0]
    assert (status, body) == (201, b"page")
    assert headers == [
        (b"Cache-Control", b"max-age=9"),
        (b"content-type", b"text/html"),
        *[header for header in COLD_HEADERS if header[0] != b"cache-control"],
        (b"x-request-id", b"r1"),
    ]
    assert (scope["method"], scope["path"], scope["root_path"]) == ("GET", "/api/page", "/api")
    assert {name: scope["state"][name] for name in ("own", "request_id")} == {"own": 1, "request_id": "r1"}
    assert "admin" in scope["state"]["caller"].scopes
    assert first == {"type": "http.request", "body": b"text", "more_body": False}
    assert second == {"type": "http.request", "body": b"text"}
    assert state == {"own": 1}
    assert [(event.route, event.method, event.status) for event in events if isinstance(event, RequestAnswered)] == [
        ("unmatched", "HEAD", 201)
    ]


async def test_a_problem_that_the_cold_app_reports_is_counted() -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["problem"] = "not-found"
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    events: list[Event] = []
    await build(cold_app=refuse, listen=events.append)("GET", "/none")

    assert [event for event in events if isinstance(event, RequestFailed)] == [RequestFailed("not-found")]


async def test_a_cold_app_that_sends_nothing_is_counted_as_an_internal_error() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        """Send nothing."""

    events: list[Event] = []
    with pytest.raises(ValueError, match="not enough values"):
        await build(cold_app=silent, listen=events.append)("GET", "/none")

    assert [event.status for event in events if isinstance(event, RequestAnswered)] == [500]


async def test_websockets_are_closed_and_lifespan_events_are_forwarded(edge: Edge) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    await edge({"type": "websocket"}, receive, send)
    await edge({"type": "lifespan"}, receive, send)

    assert sent == [
        {"type": "websocket.close", "code": 1000},
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (None, 200),
        (b"application/json", 200),
        (b"Application/JSON ; charset=utf-8", 200),
        (b"application/vnd.rows+json", 200),
        (b"text/plain", 415),
        (b"", 415),
    ],
)
async def test_json_content_types_are_accepted(sent: bytes | None, status: int) -> None:
    headers = [] if sent is None else [(b"content-type", sent)]

    code, _, body = await build(*ROUTES)("POST", "/echo", headers=headers)

    assert code == status
    if status == 415:
        shown = sent.decode() if sent is not None else ""
        assert json.loads(body)["detail"] == f"unsupported content type {shown!r}; send application/json"


async def test_a_route_for_other_content_types_lists_them() -> None:
    route = Route(
        pattern="/x",
        method="POST",
        handler=echo,
        content_types=frozenset((b"text/csv", b"a/b")),
        read_options=any_options,
    )
    call = build(route)

    assert (await call("POST", "/x", headers=[(b"content-type", b"text/csv")]))[0] == 200
    _, _, body = await call("POST", "/x", headers=[(b"content-type", b"x/y+json")])
    assert json.loads(body)["detail"] == "unsupported content type 'x/y+json'; send a/b or text/csv"
    _, _, body = await call("POST", "/x", headers=[(b"content-type", b"z" * 200)])
    assert f"{'z' * 100!r};" in json.loads(body)["detail"]


@pytest.mark.parametrize(
    ("own", "method", "status"),
    [("GET", "GET", 200), ("GET", "HEAD", 200), ("GET", "POST", 405), ("POST", "GET", 405), ("POST", "HEAD", 405)],
)
async def test_a_hot_route_accepts_only_its_method(own: str, method: str, status: int) -> None:
    route = Route(pattern="/x", method=own, handler=echo, read_options=any_options)

    code, headers, _ = await build(route)(
        method, "/x", headers=[(b"content-type", b"text/csv")] if own == "GET" else []
    )

    assert code == status
    assert dict(headers).get(b"allow") == (own.encode() if status == 405 else None)


async def test_a_body_whose_declared_length_exceeds_the_limit_is_not_read() -> None:
    call = build(*ROUTES)

    assert (await call("POST", "/echo", headers=[(b"content-length", b"1001")]))[0] == 413
    assert call.received == 0
    assert (await call("POST", "/echo", headers=[(b"content-length", b"1000")]))[0] == 200
    assert call.received == 1


@pytest.mark.parametrize(("scope", "spent"), [("predict", "predict"), ("read", "general"), (None, None)])
async def test_a_request_is_charged_against_the_quota_of_its_route(scope: Any, spent: str | None) -> None:
    meters = {"predict": Meter(Quota(5, 60)), "general": Meter(Quota(7, 60))}
    caller = Caller(meter=meters["predict"], general_meter=meters["general"])
    call = build(Route(pattern="/x", method="POST", handler=echo, scope=scope, read_options=any_options))
    call._edge._authenticator.admit = lambda headers, client: caller  # type: ignore[method-assign]

    _, headers, _ = await call("POST", "/x")

    used = [name for name, meter in meters.items() if b";t=0" not in meter.headers(time.perf_counter())]
    assert used == ([spent] if spent else [])
    policy = {"predict": b'"default";q=5;w=60', "general": b'"default";q=7;w=60', None: None}
    assert dict(headers).get(b"ratelimit-policy") == policy[spent]


async def test_a_client_chooses_between_the_error_formats_with_its_accept_header() -> None:
    def form(problem: Problem) -> tuple[int, bytes]:
        return 400, b"short"

    error = failing(Overloaded("wait"))
    call = build(Route(pattern="/x", method="POST", handler=error, error_form=form, read_options=any_options))

    dialect = await call("POST", "/x")
    problem = await call("POST", "/x", headers=[(b"accept", b"text/html, application/problem+json;q=1")])

    assert (dialect[0], dialect[2]) == (400, b"short")
    assert (problem[0], json.loads(problem[2])["detail"]) == (503, "wait")


async def test_a_stored_reply_from_an_earlier_release_is_returned() -> None:
    class OldStore(MemoryIdempotencyStore):
        def claim(self, key: str, fingerprint: bytes, now: float) -> bytes | None:
            return b'{"old":1}'

    route = Route(pattern="/x", method="POST", handler=echo, is_idempotent=True, read_options=any_options)

    status, headers, body = await build(route, store=OldStore())("POST", "/x", headers=[(b"idempotency-key", b"k")])

    assert (status, body) == (200, b'{"old":1}')
    assert (b"idempotency-replayed", b"true") in headers
    assert headers[0] == (b"content-type", b"application/json")


async def test_a_repeated_request_gets_the_status_and_the_headers_of_the_first() -> None:
    calls: list[bytes] = []

    async def answer(request: Request) -> Response:
        calls.append(request.body)
        return Response(b"teapot", 418, b"text/plain", [(b"x-teapot", b"yes")])

    call = build(Route(pattern="/x", method="POST", handler=answer, is_idempotent=True, read_options=any_options))
    key = (b"idempotency-key", b"k")
    first, again = [await call("POST", "/x", headers=[key]) for _ in range(2)]
    changed = [
        (await call("POST", "/x", **part))[0]
        for part in (
            {"headers": [key], "query_string": b"a=1"},
            {"headers": [key, (b"content-type", b"application/x+json")]},
            {"headers": [key, (b"accept-encoding", b"gzip")]},
            {"headers": [key, (b"inference-header-content-length", b"1")]},
        )
    ]

    assert len(calls) == 1
    assert changed == [422] * 4
    assert [reply[0] for reply in (first, again)] == [418, 418]
    replayed = (b"idempotency-replayed", b"false"), (b"idempotency-replayed", b"true")
    assert (replayed[0] in first[1], replayed[1] in again[1]) == (True, True)
    assert set(first[1]) - {replayed[0]} == set(again[1]) - {replayed[1]}


async def test_a_preflight_response_has_no_body_and_is_counted_separately() -> None:
    events: list[Event] = []
    call = build(*ROUTES, listen=events.append)
    call._edge._authenticator = Authenticator(MemoryKeys(), AccessRules(origins=frozenset({"https://a.example"})))
    headers = [(b"origin", b"https://a.example"), (b"access-control-request-method", b"POST")]

    status, sent, body = await call("OPTIONS", "/echo", headers=headers)
    _, posted, _ = await call("POST", "/echo", headers=headers[:1])

    assert (status, body, sent[-1]) == (204, b"", (b"x-request-id", b"r1"))
    assert b"content-length" not in dict(sent)
    assert (b"access-control-allow-origin", b"https://a.example") in posted
    assert [event.route for event in events if isinstance(event, RequestAnswered)] == ["preflight", "/echo"]
    assert [0 < event.seconds < 60 for event in events if isinstance(event, RequestAnswered)] == [True, True]
