"""The load of `make drill-services` must detect every invalid reply; otherwise, the drill proves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from typing import Any

import pytest

from support.scripts import load_script

LIMIT = 0.3


service_load = load_script("bench/service_load.py")


def reply(status: int, content: object, *headers: str) -> bytes:
    body = json.dumps(content).encode()
    lines = [f"HTTP/1.1 {status} Reason", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def problem(slug: str) -> dict[str, str]:
    return {"type": f"urn:rowcast:error:{slug}"}


GOOD = reply(200, {"id": "a", "value": 1})


async def outcomes(replies: Sequence[bytes], *, closes: bool) -> tuple[list[str], Any]:
    """Send one request for each of these replies, on a single connection; return the outcomes and the load that counted
    them."""
    remaining = iter(replies)
    open_connections = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended = asyncio.get_running_loop().create_future()
        open_connections.append(ended)
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                writer.write(next(remaining))
                if closes:
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        ended.set_result(None)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    load = service_load.ServiceLoad(port, [b"{}"], lambda row, found: found["value"] == 1, limit=LIMIT, name="test")
    connection = service_load.Connection(port)
    found = [await load.attempt(connection, service_load.Operation(number, [0])) for number in range(len(replies))]
    connection.close()
    server.close()
    await asyncio.gather(*open_connections)
    return found, load


@pytest.mark.parametrize(
    ("sent", "outcome"),
    [
        (GOOD, "answered"),
        (reply(200, {"id": "a", "value": 2}), "wrong"),
        (reply(200, {"id": "a"}), "wrong"),
        (reply(200, ["a"]), "wrong"),
        (reply(503, problem("queue-unavailable"), "Retry-After: 1"), "503 queue-unavailable"),
        (reply(503, problem("queue-unavailable")), "wrong"),
        (reply(503, problem("disk-low"), "Retry-After: 1"), "wrong"),
        (reply(503, "<html>", "Retry-After: 1"), "wrong"),
        (reply(409, problem("repeat-in-flight"), "Retry-After: 1"), "409"),
        (reply(409, problem("job-not-done"), "Retry-After: 1"), "wrong"),
        (reply(500, problem("internal")), "wrong"),
        (reply(502, "bad gateway"), "wrong"),
        (reply(504, problem("too-late")), "wrong"),
        (b"nonsense\r\n\r\n", "wrong"),
        (b"", "hang"),
        (GOOD[:20], "hang"),
        (GOOD[:-1], "hang"),
    ],
)
async def test_every_reply_has_one_outcome(sent: bytes, outcome: str) -> None:
    found, load = await outcomes([sent], closes=False)

    assert found == [outcome]
    assert load.sent == load.total() == 1
    assert bool(load.wrong) == (outcome == "wrong")
    assert list(load.acknowledged) == (["a"] if outcome == "answered" else [])


@pytest.mark.parametrize("sent", [b"", GOOD[:20], GOOD[:-1]])
async def test_a_reply_that_ends_early_is_cut_off(sent: bytes) -> None:
    assert (await outcomes([sent], closes=True))[0] == ["lost: cut off"]


async def test_an_id_may_be_returned_again_only_as_the_reply_to_a_repeated_request() -> None:
    replayed = reply(200, {"id": "a", "value": 1}, "Idempotency-Replayed: true")

    found, _ = await outcomes([GOOD, replayed, GOOD], closes=False)

    assert found == ["answered", "answered", "wrong"]


async def test_a_refused_connection_is_not_a_cut_one() -> None:
    load = service_load.ServiceLoad(9, [b"{}"], lambda row, found: True, limit=LIMIT, name="test")

    assert await load.attempt(service_load.Connection(9), service_load.Operation(1, [0])) == "lost: refused"
