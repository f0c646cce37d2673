"""The Redis client: shared and blocking connections, TLS, passwords and databases."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rowcast.adapters.redis.address import Address, parse_address
from rowcast.adapters.redis.blocking import connected
from rowcast.adapters.redis.client import RedisClient
from rowcast.adapters.redis.resp import AuthenticationError, ConnectionLost, ReplyError
from support.redis import RedisServer, serving
from support.servers import free_port
from support.sharing import until


@contextlib.asynccontextmanager
async def client_of(url: str) -> AsyncIterator[RedisClient]:
    """Open a client at the start of a `with` block, and close it at the end."""
    client = RedisClient(parse_address(url))
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server that no other test uses, so the test may reconfigure or stop it."""
    with serving(tmp_path) as server:
        yield server


def connections(server: RedisServer) -> int:
    """Return the number of client connections, excluding the connection that this function opens."""
    return len(server.command("client", "list", "type", "normal").splitlines()) - 1


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", Address("h", 6379, "", None, (), "")),
        ("redis://:p%2F@h:1/2", Address("h", 1, "", None, ("AUTH", "p/"), "2")),
        ("redis://u:p@[::1]/0", Address("::1", 6379, "", None, ("AUTH", "u", "p"), "0")),
        ("redis://h/1?db=3", Address("h", 6379, "", None, (), "3")),
        ("unix:///run/a%20b?db=3", Address("localhost", 6379, "/run/a b", None, (), "3")),
        ("unix://u:p@/run/s", Address("localhost", 6379, "/run/s", None, ("AUTH", "u", "p"), "")),
    ],
)
def test_a_url_contains_the_address_the_credentials_and_the_database(url: str, expected: Address) -> None:
    assert parse_address(url) == expected


@pytest.mark.parametrize(
    ("option", "mode", "checks_host"),
    [
        ("", ssl.CERT_REQUIRED, True),
        ("?ssl_cert_reqs=required", ssl.CERT_REQUIRED, True),
        ("?ssl_cert_reqs=optional", ssl.CERT_OPTIONAL, True),
        ("?ssl_cert_reqs=none", ssl.CERT_NONE, False),
    ],
)
def test_tls_verifies_certificates_by_default(option: str, mode: ssl.VerifyMode, checks_host: bool) -> None:
    tls = parse_address(f"rediss://h{option}").tls

    assert tls is not None
    assert (tls.verify_mode, tls.check_hostname) == (mode, checks_host)


async def test_concurrent_commands_share_a_connection_and_get_their_own_replies(own_redis: RedisServer) -> None:
    async with client_of(own_redis.url) as client:
        replies = await asyncio.gather(*[client.execute("ECHO", str(number)) for number in range(100)])

        assert replies == [b"%d" % number for number in range(100)]
        assert connections(own_redis) == 1


async def test_a_blocking_command_delays_no_other_command(own_redis: RedisServer) -> None:
    async with client_of(own_redis.url) as client:
        blocked = asyncio.create_task(client.wait("BLPOP", "list", 0))
        await until(lambda: connections(own_redis) == 1)
        await client.execute("RPUSH", "list", "x")
        first = await blocked
        await client.execute("RPUSH", "list", "y")

        assert [first, await client.wait("BLPOP", "list", 0)] == [[b"list", b"x"], [b"list", b"y"]]
        assert connections(own_redis) == 2


async def test_the_reply_to_a_canceled_command_goes_to_nobody(redis_server: RedisServer) -> None:
    name = uuid.uuid4().hex
    async with client_of(redis_server.url) as client:
        await client.execute("PING")
        canceled = asyncio.create_task(client.execute("ECHO", "late"))
        await asyncio.sleep(0)
        canceled.cancel()
        assert await client.execute("ECHO", "own") == b"own"
        blocked = asyncio.create_task(client.wait("BLPOP", name, 0))
        await asyncio.sleep(0)
        blocked.cancel()

        await client.execute("RPUSH", name, "x")
        assert await client.wait("BLPOP", name, 0) == [name.encode(), b"x"]


async def test_an_error_fails_only_its_own_command(redis_server: RedisServer) -> None:
    name = uuid.uuid4().hex
    async with client_of(redis_server.url) as client:
        with pytest.raises(ReplyError) as refused:
            await client.execute("LPUSH")
        error, text = await client.execute_all([("LPUSH",), ("ECHO", "x")])
        with pytest.raises(ReplyError, match="WRONGTYPE"):
            await client.execute_atomically(("SET", name, "x"), ("LPUSH", name, "y"))
        with pytest.raises(ReplyError, match="EXECABORT"):
            await client.execute_atomically(("LPUSH",))
        with pytest.raises(ReplyError, match="WRONGTYPE"):
            await client.wait("BLPOP", name, 0)

        assert refused.value.code == "ERR"
        assert (type(error), text) == (ReplyError, b"x")
        assert await client.execute_atomically(("GET", name), ("DEL", name)) == [b"x", 1]


async def test_a_lost_connection_fails_the_commands_in_flight_and_is_replaced(own_redis: RedisServer) -> None:
    async with client_of(own_redis.url) as client:
        blocked = asyncio.create_task(client.wait("BLPOP", "list", 0))
        await client.execute("PING")
        await until(lambda: connections(own_redis) == 2)
        own_redis.command("client", "kill", "type", "normal")

        with pytest.raises(ConnectionLost):
            await blocked
        assert await client.execute("ECHO", "x") == b"x"
        own_redis.kill()
        with pytest.raises(ConnectionLost):
            await client.execute_all([("PING",), ("PING",)])


async def test_a_closed_client_opens_no_connection(redis_server: RedisServer) -> None:
    async with client_of(redis_server.url) as client:
        opening = asyncio.create_task(client.execute("PING"))
        await asyncio.sleep(0)
        client.close()

        with pytest.raises(ConnectionLost):
            await opening


@pytest.mark.parametrize("user", ["default", ""])
async def test_a_password_and_a_database_are_sent_on_every_connection(tmp_path: Path, user: str) -> None:
    with serving(tmp_path, "--requirepass", "p/w") as server:
        url = server.url.replace("//", f"//{user}:p%2Fw@").removesuffix("0") + "5"
        async with client_of(url) as client:
            await client.execute("RPUSH", "list", "x")
            assert await client.wait("BLPOP", "list", 0) == [b"list", b"x"]
            await client.execute("SET", "key", "x")
        with connected(url, 10) as blocking:
            assert (blocking.execute("GET", "key"), blocking.execute("DBSIZE")) == (b"x", 1)
        for wrong in (url.replace("p%2Fw", "no"), url.replace("default", "nobody") if user else url.replace("w", "v")):
            async with client_of(wrong) as client:
                with pytest.raises(AuthenticationError):
                    await client.execute("PING")
            with pytest.raises(AuthenticationError), connected(wrong, 10):
                """The block is never entered, because the password is checked first."""


@contextlib.contextmanager
def tls_redis(folder: Path, authenticates: str) -> Iterator[tuple[int, Path, Path]]:
    """Run a Redis server with TLS; yield its TLS port, its certificate and its key."""
    certificate, key, port = folder / "cert.pem", folder / "key.pem", free_port()
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += [
        "-keyout",
        str(key),
        "-out",
        str(certificate),
        "-subj",
        "/CN=x",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    subprocess.run(command, check=True, capture_output=True)
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate))
    with serving(folder, "--tls-port", str(port), *files, "--tls-auth-clients", authenticates):
        yield port, certificate, key


async def test_tls_verifies_the_server_and_can_send_a_client_certificate(tmp_path: Path) -> None:
    with tls_redis(tmp_path, "yes") as (port, certificate, key):
        own = f"ssl_certfile={certificate}&ssl_keyfile={key}"
        trusted = f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}&{own}"
        for url in (trusted, f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none&{own}"):
            async with client_of(url) as client:
                assert await client.execute("ECHO", "x" * 100_000) == b"x" * 100_000
                await client.execute("RPUSH", "list", "y")
                assert await client.wait("BLPOP", "list", 0) == [b"list", b"y"]
            with connected(url, 10) as blocking:
                assert blocking.execute("ECHO", "x") == b"x"
        untrusted, other_name = f"rediss://127.0.0.1:{port}?{own}", trusted.replace("127.0.0.1", "localhost")
        for url in (untrusted, other_name, f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}"):
            async with client_of(url) as client:
                with pytest.raises(ConnectionLost):
                    await client.execute("PING")
            with pytest.raises((ConnectionLost, OSError)), connected(url, 10) as blocking:
                blocking.execute("PING")
