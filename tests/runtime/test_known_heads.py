"""Caching the heads of requests, and answering requests with a known head."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowcast.errors import Unauthorized
from rowcast.http.quick_path import QuickAnswer
from rowcast.runtime.connections import ConnectionLimits
from rowcast.runtime.known_heads import MAX_HEAD_BYTES, MAX_HEADS, KnownHead, KnownHeads
from support.connections import MemoryTransport, Server, post

HEADERS = {b"host": b"x", b"content-length": b"2"}


def known(*requests: bytes, url: bytes = b"/predict") -> KnownHeads:
    heads = KnownHeads()
    for request in requests:
        heads.add(request, url, HEADERS, 2)
    return heads


def test_a_request_with_the_same_head_is_recognized_whatever_its_body_is() -> None:
    heads = known(post(b"{}"), url=b"/predict?entity=a")

    assert heads.find(post(b"[]")) == KnownHead("/predict", b"entity=a", HEADERS, 2)


def test_only_one_complete_request_with_exactly_the_same_head_is_recognized() -> None:
    request = post(b"{}")
    heads = known(request)

    assert heads.find(b"") is None
    assert heads.find(b"\r\n\r\n") is None
    assert heads.find(request[:-1]) is None
    assert heads.find(request + b"P") is None
    assert heads.find(request + request) is None
    assert heads.find(b"\r\n" + request) is None
    assert heads.find(request.replace(b"host: x", b"host: y")) is None


def test_a_head_that_does_not_end_where_the_body_begins_is_not_stored() -> None:
    """Some parsers accept two line feeds as the end of a head; the first CRLF CRLF can then be part of the body."""
    request = b"POST /predict HTTP/1.1\nhost: x\ncontent-length: 10\n\n\r\n\r\n123456"
    heads = KnownHeads()

    heads.add(request, b"/predict", HEADERS, 10)

    assert heads.find(request) is None


def test_long_heads_and_heads_that_differ_in_every_request_are_not_stored() -> None:
    heads = KnownHeads()
    named = post(b"{}", b"x-request-id: a")
    longest = post(b"{}", b"a: " + bytes(MAX_HEAD_BYTES - len(post(b"", b"a: "))))
    too_long = post(b"{}", b"a: " + bytes(MAX_HEAD_BYTES - len(post(b"", b"a: ")) + 1))

    heads.add(named, b"/predict", {**HEADERS, b"x-request-id": b"a"}, 2)
    heads.add(longest, b"/predict", HEADERS, 2)
    heads.add(too_long, b"/predict", HEADERS, 2)

    assert heads.find(named) is None
    assert heads.find(longest) is not None
    assert heads.find(too_long) is None


def test_a_limited_number_of_heads_is_stored() -> None:
    requests = [post(b"{}", b"a: %d" % number) for number in range(MAX_HEADS + 1)]
    heads = known(*requests[:MAX_HEADS])
    assert all(heads.find(request) for request in requests[:MAX_HEADS])

    heads.add(requests[MAX_HEADS], b"/predict", HEADERS, 2)

    assert [request for request in requests if heads.find(request)] == requests[MAX_HEADS:]


class NoParser:
    """Fails if a request is parsed."""

    def feed_data(self, data: bytes) -> None:
        raise AssertionError(data)


def replying_server(limits: ConnectionLimits | None = None) -> Server:
    server = Server(limits)
    server.held.replies_at_once = True
    return server


def received(server: Server) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the bodies and headers of the requests on the quick path."""
    requests = [answer.request for answer in server.held.answers if isinstance(answer, QuickAnswer)]
    return [(request.body, request.headers) for request in requests if request is not None]


async def turns() -> None:
    """Run enough iterations of the event loop to finish all tasks that are ready."""
    for _ in range(20):
        await asyncio.sleep(0)


def responses(transport: MemoryTransport) -> list[bytes]:
    """Return the status of each response, with the body if the request was successful."""
    parts = [part.partition(b"\r\n\r\n") for part in transport.written.split(b"HTTP/1.1 ")[1:]]
    return [b"200 " + body if head[:3] == b"200" else head[:3] for head, _, body in parts]


async def test_a_head_is_parsed_only_once_even_if_another_connection_repeats_it() -> None:
    server = replying_server()
    connection, _ = server.connect()
    connection.data_received(post(b"{}", b"x-api-key: k"))
    other, transport = server.connect()
    other.parser = NoParser()

    other.data_received(post(b"[]", b"x-api-key: k"))

    (_, headers), second = received(server)
    assert second == (b"[]", headers)
    assert headers[b"x-api-key"] == b"k"
    assert responses(transport) == [b"200 quick"]
    with pytest.raises(AssertionError):
        other.data_received(post(b"[]", b"x-api-key: l"))


async def test_a_head_that_arrives_before_its_body_is_not_stored_as_a_head_without_a_body() -> None:
    server = replying_server()
    connection, transport = server.connect()
    head, body = post(b"{}")[:-2], b"{}"

    for part in (head, body, head, body, head + body):
        connection.data_received(part)

    assert [content for content, _ in received(server)] == [body] * 3
    assert responses(transport) == [b"200 quick"] * 3


async def test_a_request_with_a_known_head_is_authenticated_and_routed_anew() -> None:
    server = replying_server()
    connection, transport = server.connect()
    connection.data_received(post())

    admit = server.quick_path._admit

    def refuse(*_: Any) -> Any:
        raise Unauthorized("the API key is unknown, expired or revoked")

    server.quick_path._admit = refuse
    connection.data_received(post())
    server.quick_path._admit = admit
    server.quick_path._router.hot.clear()
    connection.data_received(post())
    await turns()

    assert responses(transport) == [b"200 quick", b"401", b"404"]


async def test_a_request_with_a_known_head_can_take_the_general_path() -> None:
    server = replying_server()
    connection, transport = server.connect()

    for body in (b'{"row" :1}', b'{"rows":1}', b'{"row" :2}'):
        connection.data_received(post(body))
        await turns()

    assert [body for body, _ in received(server)] == [b'{"row" :1}', b'{"row" :2}']
    assert responses(transport) == [b"200 quick", b'200 general rows":1}', b"200 quick"]


async def test_a_known_head_ends_the_poll_for_the_next_request() -> None:
    server = replying_server(ConnectionLimits(busy_poll_seconds=60))
    connection, _ = server.connect()
    connection.data_received(post())
    polls = connection.pool.busy_poll
    polls.begin(asyncio.get_running_loop())
    server.held.replies_at_once = False

    connection.data_received(post())

    assert not polls.is_waiting
    assert not connection.idle


async def test_a_closing_or_paused_connection_does_not_answer_a_request_with_a_known_head() -> None:
    server = replying_server()
    connection, _ = server.connect()
    connection.data_received(post())
    closing, _ = server.connect()
    closing.transport.close()
    server.protocol.pool.is_closing = True
    unread, _ = server.connect()
    unread.pause_writing()

    closing.data_received(post())
    unread.data_received(post())

    assert len(server.held.answers) == 1
    unread.connection_lost(None)


MESSAGES = (
    post(),
    post(b"[]"),
    post(b'{"rows":1}'),
    post(b"{}", b"accept: */*"),
    post(b"", b"accept: */*"),
    post(b"{}", b"x-request-id: a"),
    post(target=b"/predict?partial=true"),
    post(b"{}", b"transfer-encoding: chunked"),
    b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    post(b"\r\n\r\n"),
    b"\r\n" + post(),
    post(b"{}", b"connection: upgrade", b"upgrade: h2c"),
    post(b"{}", b"connection: close"),
    b"POST /predict HTTP/1.1\nhost: x\ncontent-length: 2\n\n{}",
    b"GET /predict HTTP/1.1\r\nhost: x\r\n\r\n",
)


@given(st.lists(st.sampled_from(MESSAGES), max_size=8), st.lists(st.integers(0, 400), max_size=8), st.booleans())
def test_requests_are_answered_as_if_every_head_were_parsed(
    messages: list[bytes], cuts: list[int], heads_alone: bool
) -> None:
    stream = b"".join(messages)
    after_heads = [found.end() for found in re.finditer(rb"\r\n\r\n", stream)] if heads_alone else []
    ends = sorted({0, len(stream), *after_heads, *(cut % (len(stream) + 1) for cut in cuts)})

    async def exchange(server: Server) -> tuple[list[bytes], list[bytes], bool]:
        server.held.answers.clear()
        connection, transport = server.connect()
        for start, end in pairwise(ends):
            connection.data_received(stream[start:end])
            await turns()
        return [body for body, _ in received(server)], responses(transport), transport.is_closing()

    async def compare() -> None:
        parsing, server = replying_server(), replying_server()
        parsing.protocol.pool.known_heads.find = lambda data: None  # type: ignore[method-assign]
        expected = await exchange(parsing)
        for message in messages:
            server.connect()[0].data_received(message)
        assert await exchange(server) == expected
        assert await exchange(server) == expected

    asyncio.run(compare())
