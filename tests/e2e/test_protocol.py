"""Pipelined, slow and invalid requests, and idle connections, over real sockets."""

from __future__ import annotations

import contextlib
import shlex
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from support import commands, models, servers
from support.waiting import eventually

BODY = b'{"x0":1.5,"x1":2.0}'
POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
RECEIVE, IDLE, MOST = 1.5, 3.0, 30


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    home = tmp_path_factory.mktemp("protocol") / "home"
    registry = FolderRegistry(home / "models")
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    settings = {
        "ROWCAST_RECEIVE_SECONDS": str(RECEIVE),
        "ROWCAST_IDLE_SECONDS": str(IDLE),
        "ROWCAST_MAX_CONNECTIONS": str(MOST),
    }
    with servers.running(home, settings=settings) as running:
        yield running


@pytest.fixture
def connection(server: servers.Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        yield connection


def reply(stream: Any) -> tuple[int, dict[bytes, bytes], bytes]:
    """Read one reply from a connection."""
    status = int(stream.readline().split()[1])
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.partition(b": ")
        headers[name] = value
    return status, headers, stream.read(int(headers.get(b"content-length", b"0")))


def test_pipelined_requests_are_answered_in_order(connection: socket.socket) -> None:
    connection.sendall(POST + GET + POST)
    stream = connection.makefile("rb")

    first, second, third = (reply(stream) for _ in range(3))

    assert [status for status, _, _ in (first, second, third)] == [200, 200, 200]
    assert b'"prediction":3.5' in first[2]
    assert second[2] == b'{"live":true}'
    assert b'"prediction":3.5' in third[2]
    for headers in (first[1], second[1]):
        assert len({b"date", b"x-request-id", b"x-content-type-options", b"cache-control"} - headers.keys()) == 0


def test_a_request_that_arrives_byte_by_byte_is_answered(connection: socket.socket) -> None:
    for byte in POST:
        connection.send(bytes([byte]))

    assert reply(connection.makefile("rb"))[0] == 200


def test_a_connection_is_closed_after_the_reply_if_the_request_has_a_connection_close_header(
    connection: socket.socket,
) -> None:
    connection.sendall(POST.replace(b"Host: localhost", b"Host: localhost\r\nConnection: close"))
    stream = connection.makefile("rb")

    assert reply(stream)[1][b"connection"] == b"close"
    assert stream.read() == b""


def test_a_request_with_an_expect_header_gets_100_continue(connection: socket.socket) -> None:
    connection.sendall(POST.replace(b"Host: localhost", b"Host: localhost\r\nExpect: 100-continue").removesuffix(BODY))
    stream = connection.makefile("rb")
    assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
    stream.readline()
    connection.sendall(BODY)

    assert reply(stream)[0] == 200


def test_a_body_above_the_size_limit_is_rejected_without_a_100_continue_response(connection: socket.socket) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"
    connection.sendall(head)
    stream = connection.makefile("rb")
    status, headers, _ = reply(stream)

    assert (status, headers[b"connection"]) == (413, b"close")
    assert stream.read() == b""


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_the_body_of_a_request_that_offers_an_upgrade_is_not_parsed_as_a_request(
    connection: socket.socket, protocol: bytes
) -> None:
    offer = b"Host: localhost\r\nConnection: Upgrade\r\nExpect: 100-continue\r\nUpgrade: " + protocol
    head = POST.replace(b"Host: localhost", offer).removesuffix(BODY).replace(b"%d" % len(BODY), b"%d" % len(GET))
    connection.sendall(head)
    stream = connection.makefile("rb")
    assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
    stream.readline()
    connection.sendall(GET + GET)  # the first is the body
    status, headers, body = reply(stream)

    assert status == 400
    assert b"malformed-body" in body
    if protocol == b"h2c":
        assert reply(stream)[2] == b'{"live":true}'
    else:
        assert headers[b"connection"] == b"close"
        assert stream.read() == b""


def test_a_prediction_is_returned_to_a_client_that_offers_h2c(connection: socket.socket) -> None:
    offer = (
        b"Host: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"
    )
    stream = connection.makefile("rb")

    for _ in range(2):
        connection.sendall(POST.replace(b"Host: localhost", offer))
        status, _, body = reply(stream)
        assert status == 200
        assert b'"prediction":3.5' in body


@pytest.mark.parametrize("sent", [b"POST /predict HTTP/1.1\r\nHost", POST.removesuffix(BODY) + b'{"x0"'])
def test_an_incomplete_request_gets_408_and_its_connection_is_closed(connection: socket.socket, sent: bytes) -> None:
    began = time.monotonic()
    connection.sendall(sent)
    stream = connection.makefile("rb")
    status, headers, body = reply(stream)

    assert (status, headers[b"connection"]) == (408, b"close")
    assert b"urn:rowcast:error:request-timeout" in body
    assert stream.read() == b""
    assert time.monotonic() - began >= RECEIVE


def test_an_idle_connection_is_closed(server: servers.Server) -> None:
    began = time.monotonic()  # earlier than the server, which starts to count when it accepts the connection

    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        assert connection.recv(1) == b""
    assert time.monotonic() - began >= IDLE


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 80_000, 431),
        (GET.replace(b"Host: localhost\r\n", b""), 400),
        (GET.replace(b"Host: localhost", b"Host: localhost\r\nHost: y"), 400),
        (GET.replace(b"HTTP/1.1", b"HTTP/2.0"), 505),
    ],
)
def test_an_invalid_request_gets_a_problem_document(connection: socket.socket, sent: bytes, status: int) -> None:
    connection.sendall(sent)
    received, headers, body = reply(connection.makefile("rb"))

    assert (received, headers[b"content-type"]) == (status, b"application/problem+json")
    assert b"urn:rowcast:error:" in body


def test_idle_connections_are_closed_to_make_room_for_new_connections(server: servers.Server) -> None:
    crowd = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(MOST + 10)]
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as late:
            late.sendall(POST)
            assert reply(late.makefile("rb"))[0] in (200, 503)
        with server.client() as client:
            assert client.post("/predict", json={"x0": 1, "x1": 1}).status_code in (200, 503)
    finally:
        for connection in crowd:
            connection.close()


def test_idle_connections_do_not_use_up_a_low_limit_on_open_files(tmp_path: Path) -> None:
    registry = FolderRegistry(tmp_path / "models")
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    port = servers.free_port()
    command = shlex.join([*servers.ROWCAST, "serve", "--home", str(tmp_path), "--port", str(port)])
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5, trust_env=False)
    with servers.run_in(tmp_path, ["sh", "-c", f"ulimit -n 64; exec {command}"], {}), contextlib.ExitStack() as crowd:
        eventually(lambda: servers.is_ready(client), 20)
        client.close()
        for _ in range(100):
            crowd.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))

        def is_answered() -> bool:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as late:
                late.sendall(POST)
                return reply(late.makefile("rb"))[0] == 200

        eventually(is_answered)


def test_a_body_that_exceeds_the_size_limit_is_rejected_before_it_is_fully_received(connection: socket.socket) -> None:
    connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 1000)
    status, _, _ = reply(connection.makefile("rb"))

    assert status == 413


def test_a_server_on_a_public_interface_requires_a_key(tmp_path: Path) -> None:
    registry = FolderRegistry(tmp_path / "home" / "models")
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    without_key = commands.rowcast(
        "serve", "--host", "0.0.0.0", "--port", "0", "--home", tmp_path / "home", cwd=tmp_path
    )
    created = commands.rowcast("keys", "create", "web", "--scope", "predict", "--home", tmp_path / "home", cwd=tmp_path)

    assert without_key.returncode == 2
    assert "rowcast keys create" in without_key.stderr
    with servers.running(tmp_path / "home", "--host", "0.0.0.0") as server:
        headers = {"x-api-key": created.stdout.strip()}
        with server.client() as client:
            address = f"http://127.0.0.1:{server.port}/predict"
            assert client.post(address, json={"x0": 1, "x1": 1}).status_code == 401
            assert client.post(address, json={"x0": 1, "x1": 1}, headers=headers).status_code == 200
