"""Run a real Redis server on a free port during a test."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from support.servers import free_port
from support.waiting import eventually


class RedisServer:
    """A Redis server without persistence, which a test can stop, kill, pause and start again on the same port."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it responds."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), *self._options]
        with (self._folder / "redis.log").open("ab") as log:
            command = ["redis-server", "--save", "", "--appendonly", "no", *options]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._process = process
        eventually(lambda: process.poll() is not None or self._responds(), 60)
        assert process.poll() is None, (self._folder / "redis.log").read_text()

    def stop(self) -> None:
        """Stop the server as an operator would; resume it first if it is paused."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Pause the process: connections stay open, but receive no replies."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a paused process."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> str:
        """Run a command with `redis-cli` and return its output."""
        arguments = ["redis-cli", "-p", str(self.port), *words]
        finished = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
        return finished.stdout.strip()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(10)
            self._process = None

    def _responds(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[RedisServer]:
    """Run a Redis server with these options during a `with` block."""
    server = RedisServer(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run a Redis server without persistence and yield its URL."""
    with serving(folder) as server:
        yield server.url


class SlowProxy:
    """Forwards connections to a port, and delays the server's replies by `seconds`."""

    def __init__(self, target: int) -> None:
        self.seconds = 0.0
        self.port = 0
        self._target = target

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection."""
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            await asyncio.gather(self._forward(reader, to_server, False), self._forward(from_server, writer, True))
        except OSError:
            pass
        finally:
            writer.close()
            to_server.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_delayed: bool) -> None:
        while block := await reader.read(65536):
            if is_delayed and self.seconds:
                await asyncio.sleep(self.seconds)
            writer.write(block)
        writer.close()


@contextlib.asynccontextmanager
async def slow_proxy(target: int) -> AsyncIterator[SlowProxy]:
    """Run a proxy during a `with` block."""
    proxy = SlowProxy(target)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
