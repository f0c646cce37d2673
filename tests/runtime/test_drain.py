"""The shutdown of the HTTP server: received requests are answered, unless the shutdown times out."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from structlog.testing import capture_logs
from uvicorn.lifespan.off import LifespanOff

from rowcast.runtime import drain
from rowcast.runtime.drain import DrainingServer
from support.connections import MemoryTransport, Server, post

unread_bytes = drain._unread_bytes


class SocketTransport(MemoryTransport):
    """Calls `connection_lost` after `abort`, or after `close` if the client reads responses."""

    connection: Any = None

    def close(self) -> None:
        if not self.is_closing():
            super().close()
            if not self.connection.flow.write_paused:
                asyncio.get_running_loop().call_soon(self._lose)

    def abort(self) -> None:
        super().close()
        asyncio.get_running_loop().call_soon(self._lose)

    def _lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self.connection.connection_lost(None)


def connect(server: Server) -> tuple[Any, SocketTransport]:
    transport = SocketTransport()
    connection = transport.connection = server.protocol(server.config, server.state, {}, asyncio.get_running_loop())
    connection.connection_made(transport)
    return connection, transport


def draining(server: Server, seconds: float = 5.0) -> DrainingServer:
    def on_drain() -> None:
        server.protocol.pool.is_closing = True

    running = DrainingServer(server.config, on_drain=on_drain, drain_seconds=seconds)
    running.server_state, running.servers, running.lifespan = server.state, [], LifespanOff(server.config)
    return running


@pytest.fixture(autouse=True)
def _no_unread_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report no unread bytes, because an in-memory transport has no socket."""
    monkeypatch.setattr(drain, "_unread_bytes", lambda transport: 0)


class Ends(NamedTuple):
    """The two ends of a socket connection."""

    client: socket.socket
    server: socket.socket


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    """A socket pair that every connection in the test uses. Idle connections are closed immediately."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ends = Ends(client, listener.accept()[0])
    monkeypatch.setattr(drain, "_unread_bytes", unread_bytes)
    monkeypatch.setattr(drain, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(drain, "POLL_SECONDS", 0.0)
    get_other_info = SocketTransport.get_extra_info

    def get_extra_info(transport: SocketTransport, name: str, default: Any = None) -> Any:
        return ends.server if name == "socket" else get_other_info(transport, name, default)

    monkeypatch.setattr(SocketTransport, "get_extra_info", get_extra_info)
    with ends.client, ends.server:
        yield ends


async def test_requests_in_progress_on_both_paths_are_answered_before_their_connections_are_closed() -> None:
    server = Server()
    quick, quick_transport = connect(server)
    general, general_transport = connect(server)
    quick.data_received(post())
    general.data_received(post(b"{}", target=b"/wait"))

    ending = asyncio.create_task(draining(server).shutdown())
    await asyncio.sleep(0)
    server.held.answers[0].set_result(b"quick")
    server.gate.set()
    await asyncio.wait_for(ending, 5)

    for transport, body in ((quick_transport, b"quick"), (general_transport, b"waited")):
        assert b"connection: close" in transport.written
        assert transport.written.endswith(body)
    assert not server.state.connections


async def test_a_drain_closes_idle_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "IDLE_SECONDS", 0.0)
    server = Server()
    _, transport = connect(server)

    await asyncio.wait_for(draining(server).shutdown(), 5)

    assert transport.is_closing()


async def test_a_drain_that_times_out_reports_unanswered_requests() -> None:
    server = Server()
    connection, _ = connect(server)
    connection.data_received(post())

    with capture_logs() as logs:
        await asyncio.wait_for(draining(server, 0.0).shutdown(), 5)

    assert [(line["log_level"], line["requests"]) for line in logs] == [("warning", 1)]
    await asyncio.sleep(0)
    server.held.answers[0].set_result(b"too late")


async def test_a_drain_finishes_even_if_a_client_does_not_read_responses() -> None:
    server = Server()
    connection, transport = connect(server)
    connection.pause_writing()
    connection.data_received(post())

    await asyncio.wait_for(draining(server, 0.05).shutdown(), 5)
    for _ in range(10):
        await asyncio.sleep(0)

    assert transport.is_lost
    assert not server.state.tasks


async def test_a_second_signal_ends_a_drain_immediately() -> None:
    server = Server()
    connection, transport = connect(server)
    connection.data_received(post())
    running = draining(server, 60.0)

    running.handle_exit(15, None)
    assert (running.should_exit, running.force_exit) == (True, False)
    running.handle_exit(15, None)
    await asyncio.wait_for(running.shutdown(), 5)

    assert running.force_exit
    assert transport.is_closing()


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGHUP])
async def test_a_hangup_does_not_end_a_drain(first: signal.Signals) -> None:
    running = draining(Server())

    running.handle_exit(first, None)
    running.handle_exit(signal.SIGHUP, None)

    assert (running.should_exit, running.force_exit) == (True, False)


async def test_a_request_that_has_not_been_read_yet_is_answered_before_its_connection_is_closed(ends: Ends) -> None:
    server = Server()
    connection, transport = connect(server)
    ends.client.sendall(post())

    ending = asyncio.create_task(draining(server).shutdown())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not transport.is_closing()
    connection.data_received(ends.server.recv(65536))
    server.held.answers[0].set_result(b"answered")
    await asyncio.wait_for(ending, 5)

    assert transport.written.endswith(b"answered")
    assert transport.is_lost


async def test_a_request_that_is_unread_when_the_drain_times_out_is_reported(ends: Ends) -> None:
    server = Server()
    _, transport = connect(server)
    ends.client.sendall(post())

    with capture_logs() as logs:
        await asyncio.wait_for(draining(server, 0.0).shutdown(), 5)

    assert [(line["log_level"], line["requests"]) for line in logs] == [("warning", 1)]
    assert transport.is_closing()
