"""A TCP proxy in its own process that drops, delays or cuts connections.

    python bench/faulty_link.py 6379

The proxy prints its port, then reads one command per line from standard input, and exits at the end of the input:

    pass    forward everything
    drop    discard all bytes without closing anything, like a firewall that has lost its state. A connection that was
            open during the fault never forwards anything again. If one side closes it, the other side notices this only
            when its keepalive probes fail
    delay   hold back every block for up to 0.1 seconds
    cut     abort each connection after a random number of bytes, often within a message
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODES = ("pass", "drop", "delay", "cut")
MOST_DELAY = 0.1
KEEPALIVE_SECONDS = 60.0
MOST_BYTES = 4000
"""In `cut` mode, a connection is aborted before it has forwarded this many bytes."""


class FaultyLink:
    """A proxy process, controlled by the drill."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._process = process
        self.port = int(process.stdout.readline())

    def switch(self, mode: str) -> None:
        """Change the mode of all connections."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(mode + "\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != mode + "\n":
            raise RuntimeError("the proxy has ended")


@contextmanager
def faulty_link(target: int) -> Iterator[FaultyLink]:
    """Run a proxy for this port on the loopback interface during a `with` block."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield FaultyLink(process)
    finally:
        process.kill()
        process.communicate()


class _Connection:
    """One forwarded connection and the fault that affects it."""

    def __init__(self, mode: str) -> None:
        self.is_silent = False
        self.budget: int | None = None
        self.is_slow = False
        self.writers: list[asyncio.StreamWriter] = []
        self.suffer(mode)

    def suffer(self, mode: str) -> None:
        self.is_silent = self.is_silent or mode == "drop"
        self.is_slow = mode == "delay"
        self.budget = random.randrange(MOST_BYTES) if mode == "cut" else None

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while block := await reader.read(65536):
            if self.is_silent:
                continue
            if self.is_slow:
                await asyncio.sleep(random.uniform(0, MOST_DELAY))
            if self.budget is not None:
                block, self.budget = block[: self.budget], self.budget - len(block)
            writer.write(block)
            await writer.drain()
            if self.budget is not None and self.budget <= 0:
                break
        if self.is_silent:
            await asyncio.sleep(KEEPALIVE_SECONDS)
        self.end()

    def end(self) -> None:
        for writer in self.writers:
            if self.budget is not None:
                writer.transport.abort()
            else:
                writer.close()


class _Proxy:
    def __init__(self, target: int) -> None:
        self._target = target
        self._mode = "pass"
        self._connections: set[_Connection] = set()

    def switch(self, mode: str) -> None:
        self._mode = mode
        for connection in self._connections:
            connection.suffer(mode)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self._mode)
        connection.writers.append(writer)
        self._connections.add(connection)
        try:
            from_target, to_target = await asyncio.open_connection("127.0.0.1", self._target)
            connection.writers.append(to_target)
            await asyncio.gather(connection.forward(reader, to_target), connection.forward(from_target, writer))
        except OSError:
            pass  # one side is gone, so the other must learn of it
        finally:
            connection.end()
            self._connections.discard(connection)


async def _serve(target: int) -> None:
    proxy = _Proxy(target)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        mode = line.decode().strip()
        if mode not in MODES:
            raise SystemExit(f"unknown mode {mode!r}; expected one of {', '.join(MODES)}")
        proxy.switch(mode)
        print(mode, flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
