"""Addresses and hosts."""

from __future__ import annotations

import pytest

from rowcast.access.addresses import (
    is_loopback,
    is_loopback_host,
    parse_address,
    parse_host,
    parse_hosts,
    parse_networks,
)
from rowcast.errors import SettingsError


@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_addresses_are_recognized(text: str) -> None:
    assert is_loopback(text)


@pytest.mark.parametrize("text", ["", "10.0.0.1", "0.0.0.0", "::", "::ffff:10.0.0.1", "testclient", "127.0.0.1.evil"])
def test_every_other_address_is_not_a_loopback_address(text: str) -> None:
    assert not is_loopback(text)


@pytest.mark.parametrize(
    "header", [b"localhost", b"LocalHost:8000", b"localhost.", b"a.localhost:1", b"127.0.0.1:80", b"[::1]:8000"]
)
def test_loopback_hosts_are_recognized(header: bytes) -> None:
    assert is_loopback_host(parse_host(header))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"evil.example",
        b"localhost.evil.example",
        b"notlocalhost",
        b"localhost:80@evil.example",
        b"evil.example#localhost",
        b"localhost:80:80",
        b"localhost, evil.example",
        b"0.0.0.0:8000",
        b"10.0.0.1",
        b"\xff",
    ],
)
def test_every_other_host_is_not_a_loopback_host(header: bytes) -> None:
    assert not is_loopback_host(parse_host(header))


def test_allowed_hosts_are_compared_in_lower_case() -> None:
    assert parse_hosts(["API.example", "10.0.0.1", "[2001:DB8::1]", "*"]) == {
        "api.example",
        "10.0.0.1",
        "2001:db8::1",
        "*",
    }


@pytest.mark.parametrize("text", ["api.example:80", "https://api.example", "a b", ""])
def test_an_invalid_host_in_the_settings_is_rejected(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_hosts([text])


@pytest.mark.parametrize("text", ["proxy", "10.0.0.0/33", "10.0.0.1/8", ""])
def test_an_invalid_proxy_in_the_settings_is_rejected(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_networks([text])


def test_the_results_for_at_most_1024_addresses_and_hosts_are_kept_in_memory() -> None:
    assert is_loopback.cache_parameters()["maxsize"] == parse_host.cache_parameters()["maxsize"] == 1024


def test_addresses_and_networks_are_parsed() -> None:
    assert str(parse_address("::ffff:10.0.0.1")) == "10.0.0.1"
    assert str(parse_address("2001:DB8::1")) == "2001:db8::1"
    assert parse_address("proxy") is None
    assert [str(network) for network in parse_networks(["10.0.0.0/8", "::1"])] == ["10.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(
    ("header", "host"),
    [(b"API.example.:80", "api.example"), (b"[::1]:8000", "::1"), (b"[::1", ""), (b"a:b", ""), (b"a_b-c", "a_b-c")],
)
def test_the_host_is_the_header_without_its_port_and_in_lower_case(header: bytes, host: str) -> None:
    assert parse_host(header) == host
