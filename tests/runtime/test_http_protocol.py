"""The HTTP protocol without sockets: path selection, pipelining, disconnects, shutdown and uvicorn's internals."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from typing import Any

import pytest
import uvicorn
from structlog.testing import capture_logs
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from rowcast.events import RequestAnswered
from rowcast.http.quick_path import QuickAnswer
from rowcast.http.routes import LONG_BODY
from rowcast.runtime.connections import ALONE_SECONDS, ConnectionLimits
from rowcast.runtime.cycles import Cycle, QuickCycle
from rowcast.runtime.http_protocol import LONG_BODY_SECONDS, MAX_QUICK_BODY
from support.connections import MemoryTransport, Server, post
from support.waiting import eventually_async

CHUNKED = b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"


async def until(transport: MemoryTransport, text: bytes) -> None:
    """Wait until the server has written these bytes."""

    async def is_written() -> bool:
        return text in transport.written

    await eventually_async(is_written, every=0)


async def turns(count: int = 20) -> None:
    """Run the event loop for `count` iterations; the default is enough to finish all tasks that are ready."""
    for _ in range(count):
        await asyncio.sleep(0)


async def only_sender() -> None:
    """Wait until the connection that sent the latest request counts as the only sender."""
    loop = asyncio.get_running_loop()
    alone_at = loop.time() + ALONE_SECONDS

    async def is_alone() -> bool:
        return loop.time() > alone_at

    await eventually_async(is_alone, every=0)


def statuses(transport: MemoryTransport) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", transport.written)]


async def test_a_plain_prediction_request_is_answered_without_creating_a_task() -> None:
    server = Server()
    connection, transport = server.connect()

    connection.data_received(post())
    server.held.answers[0].set_result(b"quick")

    assert not server.state.tasks
    head, _, body = transport.written.partition(b"\r\n\r\n")
    assert body == b"quick"
    assert head.splitlines()[0] == b"HTTP/1.1 200 OK"
    assert {line.partition(b":")[0] for line in head.splitlines()[1:]} == {
        b"content-type",
        b"content-length",
        b"x-content-type-options",
        b"cache-control",
        b"x-request-id",
        b"date",
    }
    assert [event.status for event in server.events if isinstance(event, RequestAnswered)] == [200]


async def test_only_responses_to_a_lone_client_are_sent_immediately() -> None:
    server = Server()
    connection, transport = server.connect()
    other, _ = server.connect()
    connection.data_received(post())
    server.held.answers[0].set_result(b"first")
    assert transport.write_limit is None
    await only_sender()
    connection.data_received(post())
    server.held.answers[1].set_result(b"second")
    assert transport.write_limit == 0

    other.data_received(post())
    connection.data_received(post())

    assert transport.write_limit is None


async def test_the_process_polls_for_the_next_request_only_if_there_is_a_lone_client() -> None:
    server = Server(ConnectionLimits(busy_poll_seconds=60))
    polls = server.protocol.pool.busy_poll
    connection, _ = server.connect()
    other, _ = server.connect()
    server.held.replies_at_once = True
    connection.data_received(post())
    assert not polls.is_waiting
    await only_sender()
    connection.data_received(post())
    assert polls.is_waiting

    connection.data_received(post()[:20])
    assert not polls.is_waiting
    connection.data_received(post()[20:])
    assert polls.is_waiting

    other.data_received(post())
    connection.data_received(post())
    assert not polls.is_waiting


async def test_the_process_does_not_poll_while_a_request_waits_for_its_answer() -> None:
    server = Server(ConnectionLimits(busy_poll_seconds=60))
    connection, _ = server.connect()
    connection.pool.is_only_sender = lambda connection, now: True  # type: ignore[method-assign]

    connection.data_received(post())

    assert len(server.held.answers) == 1
    assert not connection.pool.busy_poll.is_waiting


async def test_a_request_received_byte_by_byte_takes_the_quick_path() -> None:
    server = Server()
    connection, transport = server.connect()

    for byte in post(b'{"x":1}'):
        connection.data_received(bytes([byte]))
    answer = server.held.answers[0]
    answer.set_result(b"quick")

    assert isinstance(answer, QuickAnswer)
    assert answer.request is not None
    assert answer.request.body == b'{"x":1}'
    assert transport.written.endswith(b"\r\n\r\nquick")


GENERAL = {
    "a batch": post(b'{"rows":[{}]}'),
    "an option": post(target=b"/predict?partial=true"),
    "a chunked body": CHUNKED,
    "a large body": post(b"x" * (MAX_QUICK_BODY + 1)),
    "a percent-encoded path": post(target=b"/pr%65dict"),
    "an absolute address": post(target=b"http://x/predict"),
    "HTTP/1.0": post(version=b"1.0"),
    "Connection: close": post(b"{}", b"connection: close"),
    **{
        header.decode(): post(b"{}", header)
        for header in (
            b"origin: http://x",
            b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"content-encoding: identity",
            b"idempotency-key: k",
            b"x-request-timeout: 5",
            b"expect: 100-continue",
            b"content-type: application/json; charset=utf-8",
        )
    },
}


@pytest.mark.parametrize("request_bytes", GENERAL.values(), ids=GENERAL)
async def test_the_general_path_answers_requests_that_the_quick_path_does_not_support(request_bytes: bytes) -> None:
    server = Server()
    connection, transport = server.connect()

    connection.data_received(request_bytes)
    await until(transport, b"general")

    assert statuses(transport)[-1] == 200
    assert server.held.answers == []


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"OPTIONS"])
async def test_the_general_path_rejects_methods_other_than_post(method: bytes) -> None:
    server = Server()
    connection, transport = server.connect()

    connection.data_received(post().replace(b"POST", method))
    await until(transport, b"HTTP/1.1 405")

    assert server.held.answers == []


async def test_the_quick_path_also_rejects_a_body_above_the_size_limit() -> None:
    server = Server(max_body=1000)
    connection, transport = server.connect()

    connection.data_received(post(b"x" * 1001))
    await until(transport, b"HTTP/1.1 413")

    assert server.held.answers == []


@pytest.mark.parametrize(("target", "is_known"), [(b"/api/predict", True), (b"/predict", True), (b"/a/predict", False)])
@pytest.mark.parametrize("header", [b"accept: */*", b"x-request-timeout: 5"], ids=["quick", "general"])
async def test_both_paths_remove_the_root_path_exactly_once(target: bytes, header: bytes, *, is_known: bool) -> None:
    server = Server(root_path="/api")
    for address, answers in ((target, is_known), (b"/api/api/predict", False)):
        connection, transport = server.connect()
        connection.data_received(post(b"{}", header, target=address))
        for answer in server.held.answers:
            answer.set_result(b"general")
        await until(transport, b"\r\n\r\n")
        assert statuses(transport) == [200 if answers else 404]


async def test_pipelined_requests_are_answered_in_order() -> None:
    server = Server()
    connection, transport = server.connect()

    connection.data_received(post() + post(b"second") + CHUNKED + post(b"fourth"))
    await turns()
    assert transport.written == b""
    server.held.answers[0].set_result(b"quick")
    await until(transport, b"fourth")

    assert re.findall(rb"\r\n\r\n([a-z {}]+?)(?=HTTP|$)", transport.written) == [
        b"quick",
        b"general second",
        b"general {}",
        b"general fourth",
    ]
    assert transport.is_reading


async def test_reading_pauses_while_pipelined_requests_wait() -> None:
    server = Server()
    connection, transport = server.connect()

    connection.data_received(post() + post(b"{}", target=b"/wait") + post(b"third"))
    assert not transport.is_reading
    server.held.answers[0].set_result(b"quick")
    await turns()

    assert not transport.is_reading
    server.gate.set()
    await until(transport, b"third")
    assert transport.is_reading


async def test_requests_from_a_client_that_does_not_read_responses_are_not_scored() -> None:
    server = Server()
    connection, transport = server.connect()

    connection.pause_writing()
    connection.data_received(post() * 1000)
    await turns()

    assert server.held.answers == []
    assert transport.written == b""
    assert not transport.is_reading
    connection.expire()
    assert transport.is_closing()
    connection.connection_lost(None)


async def test_a_disconnected_client_does_not_affect_other_clients() -> None:
    server = Server()
    connection, transport = server.connect()
    connection.data_received(post() + post(b"second"))
    other, other_transport = server.connect()
    other.data_received(post())

    transport.abort()
    connection.connection_lost(None)
    with capture_logs() as logs:
        for answer in server.held.answers:
            answer.set_result(b"quick")
        await turns()

    assert logs == []
    assert transport.written == b""
    assert other_transport.written.endswith(b"quick")
    assert server.state.connections == {other}


async def test_a_client_that_disconnects_during_pipelined_requests_on_the_general_path_causes_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    connection, transport = server.connect()
    connection.data_received(post(b"{}", target=b"/wait") + post(b"second"))
    await turns()

    transport.abort()
    connection.connection_lost(None)
    server.gate.set()
    await turns()

    assert not server.state.tasks
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_request_that_fails_on_the_quick_path_is_answered_and_logged_with_its_request_id() -> None:
    server = Server()
    connection, transport = server.connect()

    with capture_logs() as logs:
        connection.data_received(post(b"fail", b"x-request-id: r1") + post())
        server.held.answers[0].set_result(b"quick")

    assert statuses(transport) == [500, 200]
    assert [(line["event"], line["request_id"], line["path"]) for line in logs] == [
        ("request failed", "r1", "/predict")
    ]


async def test_a_listener_that_fails_does_not_affect_the_response() -> None:
    server = Server()
    connection, transport = server.connect()
    connection.data_received(post())
    answer = server.held.answers[0]

    class Full(list[Any]):
        def append(self, event: object) -> None:
            raise OSError

    server.quick_path._listen = Full().append
    with capture_logs() as logs:
        answer.set_result(b"quick")

    assert statuses(transport) == [200]
    assert logs
    assert answer.done()


async def test_a_request_in_progress_at_shutdown_is_answered_before_its_connection_is_closed() -> None:
    server = Server()
    connection, transport = server.connect()
    connection.data_received(post())

    server.protocol.pool.is_closing = True
    server.held.answers[0].set_result(b"quick")

    assert b"\r\nconnection: close\r\n\r\nquick" in transport.written
    assert transport.is_closing()


async def test_pipelined_requests_are_answered_before_a_shutdown_closes_the_connection() -> None:
    server = Server()
    connection, transport = server.connect()
    connection.data_received(post() + post(b"second"))

    server.protocol.pool.is_closing = True
    server.held.answers[0].set_result(b"quick")
    await until(transport, b"general second")

    assert statuses(transport) == [200, 200]


async def test_requests_after_a_response_that_closes_the_connection_are_not_scored() -> None:
    server = Server()
    connection, transport = server.connect()
    server.protocol.pool.is_closing = True

    connection.data_received(post(b"fail") + post())
    await turns()

    assert statuses(transport) == [500]
    assert server.held.answers == []


@pytest.mark.parametrize("rubbish", [b"\x00\x01\r\n\r\n", b"GET / HTTP/1.1\r\nhost" * 10_000])
async def test_an_invalid_request_is_rejected_after_earlier_requests_are_answered(rubbish: bytes) -> None:
    server = Server(ConnectionLimits(max_head_bytes=1000))
    connection, transport = server.connect()

    connection.data_received(post())
    connection.data_received(rubbish)
    await turns()
    assert transport.written == b""
    server.held.answers[0].set_result(b"quick")
    await until(transport, b"HTTP/1.1 4")

    assert statuses(transport) == [200, 400]
    assert transport.is_closing()


async def test_a_request_head_above_the_size_limit_is_rejected() -> None:
    server = Server(ConnectionLimits(max_head_bytes=1000))
    connection, transport = server.connect()

    connection.data_received(b"GET / HTTP/1.1\r\nx: ")
    for _ in range(11):
        connection.data_received(b"x" * 100)

    assert statuses(transport) == [431]
    assert transport.is_closing()


async def test_a_body_does_not_count_toward_the_head_size_limit_of_the_next_pipelined_request() -> None:
    server = Server(ConnectionLimits(max_head_bytes=1000))
    connection, transport = server.connect()

    connection.data_received(post(b"x" * 5000) + post()[:20])
    server.held.answers[0].set_result(b"quick")
    connection.data_received(post()[20:])
    server.held.answers[1].set_result(b"quick")

    assert statuses(transport) == [200, 200]


HEADS = {
    "a body in one piece": post(b"x" * 5000, b"x: y"),
    "a chunked body": CHUNKED.replace(b"2\r\n{}", b"1388\r\n" + b"x" * 5000),
}


@pytest.mark.parametrize("earlier", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("cut", [3000, -1], ids=["inside the body", "before the last byte"])
async def test_a_body_in_several_segments_does_not_count_toward_the_head_size_limit(earlier: bytes, cut: int) -> None:
    server = Server(ConnectionLimits(max_head_bytes=1000))
    connection, transport = server.connect()
    head = post(b"{}", b"accept: " + b"x" * 800)

    for segment in (earlier[:cut], earlier[cut:] + head[:500], head[500:]):
        connection.data_received(segment)
    await turns()
    for answer in server.held.answers:
        answer.set_result(b"quick")
    await turns()

    assert statuses(transport) == [200, 200]


BAD_CHUNK = CHUNKED.replace(b"2\r\n{}", b"x\r\n")


@pytest.mark.parametrize("target", [b"/predict", b"/wait"], ids=["quick", "general"])
async def test_an_invalid_body_is_refused_once_after_the_response_to_the_previous_request(target: bytes) -> None:
    server = Server()
    connection, transport = server.connect()

    connection.data_received(post(target=target))
    connection.data_received(BAD_CHUNK)
    connection.data_received(post())
    await turns()
    assert transport.written == b""
    for answer in server.held.answers:
        answer.set_result(b"quick")
    server.gate.set()
    await until(transport, b"HTTP/1.1 4")
    await turns()

    assert statuses(transport) == [200, 400]
    assert transport.is_closing()
    assert not server.state.tasks


async def test_a_request_with_an_invalid_body_gets_only_one_response() -> None:
    server = Server()
    connection, transport = server.connect()

    connection.data_received(BAD_CHUNK.replace(b"POST", b"PUT"))  # the general path would respond with 405
    await turns()

    assert statuses(transport) == [400]
    assert not server.state.tasks


LARGE = CHUNKED.replace(b"2\r\n{}\r\n0\r\n\r\n", b"7d0\r\n" + b"x" * 2000 + b"\r\n")


@pytest.mark.parametrize("is_late", [True, False], ids=["the rest is late", "the rest is invalid"])
async def test_a_request_that_was_rejected_before_it_was_complete_gets_no_second_response(*, is_late: bool) -> None:
    server = Server(max_body=1000)
    connection, transport = server.connect()

    connection.data_received(LARGE)
    await until(transport, b"HTTP/1.1 413")
    if is_late:
        connection.expire()
    else:
        connection.data_received(b"x\r\n")
    await turns()

    assert statuses(transport) == [413]
    assert transport.is_closing()


async def test_the_rest_of_a_rejected_request_is_not_parsed_as_the_next_request() -> None:
    server = Server(max_body=1000)
    connection, transport = server.connect()

    connection.data_received(LARGE)
    await until(transport, b"HTTP/1.1 413")
    connection.data_received(b"40\r\n" + post(b"x" * (64 - len(post())) + b"{}")[:64] + b"\r\n0\r\n\r\n" + post())
    server.held.answers[0].set_result(b"quick")

    assert statuses(transport) == [413, 200]
    assert len(server.held.answers) == 1


async def test_a_body_above_the_size_limit_is_rejected_without_a_100_continue_response() -> None:
    server = Server(max_body=1000)
    connection, transport = server.connect()

    connection.data_received(post(b"x" * 1001, b"expect: 100-continue").removesuffix(b"x" * 1001))
    await until(transport, b"HTTP/1.1 413")

    assert statuses(transport) == [413]
    assert b"\r\nconnection: close\r\n" in transport.written
    assert transport.is_closing()  # the next bytes could be the body or another request


H2C = (b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AAMAAABkAAQAAP__")
OFFERS = {"h2c": H2C, "websocket": (b"connection: Upgrade", b"upgrade: websocket")}
INNER = post(b"inner")


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_the_body_of_a_request_that_offers_an_upgrade_is_never_parsed_as_a_request(
    offer: tuple[bytes, ...], size: int, *, is_chunked: bool
) -> None:
    server = Server()
    connection, transport = server.connect()
    request = post(INNER, *offer)
    if is_chunked:
        head = post(b"", *offer).replace(b"content-length: 0", b"transfer-encoding: chunked")
        request = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)

    for start in range(0, len(request), size):
        connection.data_received(request[start : start + size])
    await turns()
    for answer in server.held.answers:
        assert isinstance(answer, QuickAnswer)
        assert answer.request is not None
        assert answer.request.body == INNER
        answer.set_result(b"quick")
    await until(transport, b"HTTP/1.1 200")

    assert statuses(transport) == [200]
    assert len(server.events) == 1


async def test_a_connection_stays_open_after_h2c_offers_are_ignored() -> None:
    server = Server()
    connection, transport = server.connect()

    connection.data_received(post(b"{}", *H2C) + post(b"second", *H2C) + post(b"third"))
    server.held.answers[0].set_result(b"quick")
    await until(transport, b"third")

    assert statuses(transport) == [200, 200, 200]
    assert not transport.is_closing()


async def test_a_thousand_requests_with_upgrade_offers_in_one_segment_are_answered() -> None:
    server = Server()
    connection, transport = server.connect()

    connection.data_received(post(b"{}", *H2C, target=b"/nowhere") * 1000)

    async def are_answered() -> bool:
        return len(statuses(transport)) == 1000

    await eventually_async(are_answered, every=0)


@pytest.mark.parametrize("offer", [b"websocket", b"h2c, websocket", b"tls/1.0"])
async def test_nothing_after_another_upgrade_offer_is_parsed(offer: bytes) -> None:
    server = Server()
    connection, transport = server.connect()

    connection.data_received(post(b"first", b"connection: upgrade", b"upgrade: " + offer) + post(b"second"))
    await until(transport, b"first")

    assert statuses(transport) == [200]
    assert b"\r\nconnection: close\r\n" in transport.written
    assert transport.is_closing()
    assert server.held.answers == []


INVALID_HEADS = {
    "no Host": (post().replace(b"host: x\r\n", b""), 400),
    "two Hosts": (post(b"{}", b"Host: x"), 400),
    "an invalid Host": (post().replace(b"host: x", b"host: x/y"), 400),
    "HTTP/2.0": (post(version=b"2.0"), 505),
    "HTTP/0.9": (post(version=b"0.9"), 505),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n", 501),
}


@pytest.mark.parametrize(("head", "status"), INVALID_HEADS.values(), ids=INVALID_HEADS)
@pytest.mark.parametrize("before", [b"", post()], ids=["first", "second"])
async def test_a_request_with_an_invalid_head_is_refused_and_nothing_after_it_is_parsed(
    head: bytes, status: int, before: bytes
) -> None:
    server = Server()
    connection, transport = server.connect()

    connection.data_received(before)
    for answer in server.held.answers:
        answer.set_result(b"quick")
    connection.data_received(head + post())
    await turns()

    assert statuses(transport) == [*([200] if before else []), status]
    assert transport.is_closing()
    assert len(server.held.answers) == bool(before)


async def test_an_http_1_0_request_needs_no_host() -> None:
    server = Server()
    connection, transport = server.connect()

    connection.data_received(post(version=b"1.0").replace(b"host: x\r\n", b""))
    await until(transport, b"general")

    assert statuses(transport) == [200]


async def test_a_slow_request_times_out_but_a_slow_response_does_not() -> None:
    server = Server()
    connection, transport = server.connect()
    connection.data_received(post()[:20])
    connection.expire()
    assert statuses(transport) == [408]

    connection, transport = server.connect()
    connection.data_received(post() + post()[:20])
    connection.expire()
    assert transport.written == b""
    assert not transport.is_closing()
    server.held.answers[0].set_result(b"quick")
    connection.expire()
    assert statuses(transport) == [200, 408]


async def test_each_chunk_of_a_long_body_extends_the_time_limit_up_to_a_maximum() -> None:
    server = Server(ConnectionLimits(receive_seconds=30))
    head, piece = CHUNKED[: CHUNKED.index(b"2\r\n")], b"2\r\n{}\r\n"
    connection, _ = server.connect()
    now = 1000.0
    connection._time = lambda: now

    connection.data_received(head)
    now += 20
    connection.data_received(piece)
    assert connection.due == 1030  # other bodies must arrive within the time limit

    connection.scope["extensions"][LONG_BODY]["allow"]()
    connection.data_received(piece)
    assert connection.due == 1050
    now += LONG_BODY_SECONDS - 10
    connection.data_received(piece)
    assert connection.due == 1020 + LONG_BODY_SECONDS

    connection.data_received(b"0\r\n\r\n")
    await turns()
    connection.data_received(head)
    connection.data_received(piece)
    assert connection.due == now + 30  # the next request has no more time than others


async def test_the_log_ids_of_a_request_do_not_leak_into_the_next_request() -> None:
    server = Server()
    connection, transport = server.connect()
    trace = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    connection.data_received(post(b"{}", trace, target=b"/wait") + post(b"second", b"x-request-id: r2"))
    await turns()
    server.gate.set()
    await until(transport, b"second")

    assert server.log_contexts == [{"request_id": "r2"}]


# The parts of uvicorn that runtime/http_protocol.py and runtime/drain.py use or override.
USED_ATTRIBUTES = {
    HttpToolsProtocol: {
        *("app", "loop", "logger", "access_logger", "access_log", "parser", "root_path", "asgi_version", "app_state"),
        *("server_state", "connections", "tasks", "transport", "flow", "server", "client", "scheme", "pipeline"),
        *("scope", "headers", "expect_100_continue", "cycle"),
    },
    ServerState: {"total_requests", "connections", "tasks", "default_headers"},
    uvicorn.Server: {"config", "server_state", "should_exit", "force_exit"},
    FlowControl: {"read_paused", "write_paused"},
}
METHODS = {
    HttpToolsProtocol: {
        "connection_made": ["transport"],
        "connection_lost": ["exc"],
        "data_received": ["data"],
        "on_message_begin": [],
        "on_url": ["url"],
        "on_header": ["name", "value"],
        "on_headers_complete": [],
        "on_body": ["body"],
        "on_message_complete": [],
        "on_response_complete": [],
        "pause_writing": [],
        "resume_writing": [],
        "_start_asgi_task": ["cycle", "app"],
    },
    RequestResponseCycle: {"run_asgi": ["app"], "receive": [], "send": ["message"], "send_500_response": []},
    FlowControl: {"pause_reading": [], "resume_reading": [], "pause_writing": [], "resume_writing": [], "drain": []},
    uvicorn.Server: {
        "handle_exit": ["sig", "frame"],
        "startup": ["sockets"],
        "shutdown": ["sockets"],
        "run": ["sockets"],
        "main_loop": [],
    },
}


def made() -> dict[type, object]:
    """Return an instance of each uvicorn class whose attributes are used."""
    config, state = uvicorn.Config(lambda: None, log_config=None), ServerState()
    transport = MemoryTransport()
    protocol = HttpToolsProtocol(config, state, {}, asyncio.get_running_loop())
    return {
        HttpToolsProtocol: protocol,
        ServerState: state,
        uvicorn.Server: uvicorn.Server(config),
        FlowControl: FlowControl(transport),
    }


async def test_uvicorn_has_all_attributes_that_rowcast_uses() -> None:
    missing = {
        kind.__name__: USED_ATTRIBUTES[kind] - vars(thing).keys()
        for kind, thing in made().items()
        if not USED_ATTRIBUTES[kind] <= vars(thing).keys()
    }

    assert missing == {}


@pytest.mark.parametrize("kind", METHODS)
def test_uvicorn_has_all_methods_that_rowcast_uses_or_overrides(kind: type) -> None:
    signatures = {name: list(inspect.signature(getattr(kind, name)).parameters)[1:] for name in METHODS[kind]}

    assert signatures == METHODS[kind]


def test_uvicorn_accepts_the_expected_protocol_arguments_and_options() -> None:
    assert list(inspect.signature(HttpToolsProtocol.__init__).parameters)[1:] == [
        "config",
        "server_state",
        "app_state",
        "_loop",
    ]
    config = inspect.signature(uvicorn.Config.__init__).parameters
    options = {"loop", "http", "ws", "lifespan", "access_log", "log_config", "server_header", "proxy_headers"}
    assert options | {"root_path", "backlog"} <= config.keys()


async def test_a_request_cycle_has_the_same_attributes_as_a_uvicorn_request_cycle() -> None:
    own = RequestResponseCycle(
        scope={},  # type: ignore[typeddict-item]
        transport=MemoryTransport(),
        flow=FlowControl(MemoryTransport()),
        logger=logging.getLogger(),
        access_logger=logging.getLogger(),
        access_log=False,
        default_headers=[],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=True,
        on_response=lambda: None,
    )
    connection, _ = Server().connect()
    cycle = Cycle(connection, {}, expects_continue=False, keep_alive=True)
    set_elsewhere = {"scope", "transport", "flow", "logger", "access_logger", "default_headers", "message_event"}

    assert {name for name in vars(own) if not hasattr(cycle, name)} == set()
    assert {name for name in vars(cycle) if not hasattr(own, name)} == {"_connection"}
    for name in vars(own).keys() - set_elsewhere - {"on_response", "access_log"}:
        assert getattr(cycle, name) == getattr(own, name), name


async def test_a_quick_request_cycle_has_all_attributes_that_uvicorn_uses() -> None:
    used = set(re.findall(r"self\.cycle\.(\w+)", inspect.getsource(HttpToolsProtocol)))
    connection, _ = Server().connect()
    assert connection.quick_path is not None
    route = connection.quick_path.find("/predict", b"POST", {})
    assert route is not None
    cycle = QuickCycle(connection, route, {})

    assert {name for name in used if not hasattr(cycle, name)} == set()
