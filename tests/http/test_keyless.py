"""Requests without a key on a server that has no keys."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from rowcast import settings
from rowcast.access.addresses import parse_networks
from rowcast.app import server
from rowcast.errors import Forbidden
from rowcast.http.keyless import KeylessRules
from rowcast.http.proxies import FORWARDING_HEADERS, TrustedProxies
from support import apps
from support.protected import create_home

LOCAL, REMOTE = ("127.0.0.1", 40_000), ("203.0.113.7", 40_000)
HOST = {b"host": b"localhost:8000"}
PROXY = TrustedProxies(parse_networks(["127.0.0.1"]))


def rules(proxies: TrustedProxies | None = None, *hosts: str, insecure: bool = False) -> KeylessRules:
    return KeylessRules(proxies or TrustedProxies(), frozenset(hosts), insecure=insecure)


def slug(rules: KeylessRules, headers: dict[bytes, bytes], client: tuple[str, int] | None) -> str:
    with pytest.raises(Forbidden) as error:
        rules.is_local(headers, client)
    return error.value.slug


@pytest.mark.parametrize("client", [("127.0.0.1", 1), ("::1", 1), ("::ffff:127.0.0.1", 1)])
def test_local_clients_are_answered(client: tuple[str, int]) -> None:
    assert rules().is_local(HOST, client)


@pytest.mark.parametrize("client", [REMOTE, ("testclient", 1), None])
def test_remote_and_unknown_clients_are_refused(client: tuple[str, int] | None) -> None:
    assert slug(rules(), HOST, client) == "local-only"


@pytest.mark.parametrize("header", sorted(FORWARDING_HEADERS))
def test_forwarded_requests_are_refused_unless_the_proxy_is_trusted(header: bytes) -> None:
    forwarded = {**HOST, header: b"127.0.0.1"}

    assert slug(rules(), forwarded, LOCAL) == "local-only"
    assert not rules(PROXY).is_local(forwarded, LOCAL)


def test_a_remote_client_is_refused_even_if_it_is_a_trusted_proxy() -> None:
    proxies = TrustedProxies(parse_networks(["203.0.113.0/24"]))

    assert slug(rules(proxies), {**HOST, b"x-forwarded-for": b"127.0.0.1"}, REMOTE) == "local-only"


@pytest.mark.parametrize("host", [b"evil.example", b"evil.example:8000", b"10.0.0.1", b"localhost.evil.example", b""])
def test_requests_that_name_an_unknown_host_are_refused(host: bytes) -> None:
    assert slug(rules(), {b"host": host}, LOCAL) == "host-not-allowed"


def test_requests_without_a_host_are_answered() -> None:
    assert rules().is_local({}, LOCAL)


def test_requests_that_name_an_allowed_host_are_answered() -> None:
    assert rules(None, "api.example").is_local({b"host": b"API.example:8000"}, LOCAL)
    assert rules(None, "*").is_local({b"host": b"other.example"}, LOCAL)


def test_an_insecure_server_answers_every_client_and_by_default_accepts_every_host() -> None:
    headers = {b"host": b"api.example", b"x-forwarded-for": b"203.0.113.7"}

    assert not rules(insecure=True).is_local(headers, LOCAL)
    assert not rules(insecure=True).is_local(headers, REMOTE)
    assert slug(rules(None, "other.example", insecure=True), headers, REMOTE) == "host-not-allowed"


@pytest.mark.parametrize(
    ("client", "headers"),
    [(REMOTE, {}), (LOCAL, {"host": "evil.example"}), (LOCAL, {"x-forwarded-for": "203.0.113.7"})],
)
async def test_only_the_health_routes_are_answered_for_refused_clients(
    client: tuple[str, int], headers: dict[str, str], tmp_path: Path
) -> None:
    home = create_home(tmp_path / "home")
    (home / "keys.json").unlink()
    app = server.build_server(settings.load(home=home, default_model="sum", open_metrics=True)).app
    transport = httpx.ASGITransport(app, client=client)
    async with apps.lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://localhost") as remote:
        probes = [
            await remote.get(path, headers=headers)
            for path in ("/health/live", "/health/ready", "/ping", "/v2/health/live", "/v2/health/ready")
        ]
        paths = (
            "/",
            "/docs",
            "/openapi.json",
            "/static/icon.svg",
            "/health",
            "/models",
            "/predictions",
            "/metrics",
            "/v2",
            "/no",
        )
        refused = [await remote.get(path, headers=headers) for path in paths]
        refused.append(await remote.post("/predict", json={"x0": 1, "x1": 2}, headers=headers))

    assert [reply.status_code for reply in probes] == [200] * len(probes)
    assert [reply.status_code for reply in refused] == [403] * len(refused)
