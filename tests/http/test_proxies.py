"""Client addresses behind trusted proxies."""

from __future__ import annotations

import pytest

from rowcast.access.addresses import parse_networks
from rowcast.http.proxies import TrustedProxies

PROXIES = TrustedProxies(parse_networks(["127.0.0.1", "10.0.0.0/8"]))


def client(peer: str = "127.0.0.1", **headers: str) -> str:
    return PROXIES.client_address(
        {name.replace("_", "-").encode(): text.encode() for name, text in headers.items()}, peer
    )


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("192.0.2.1, 203.0.113.7", "203.0.113.7"),
        ("192.0.2.1, 203.0.113.7, 10.1.2.3", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("10.1.2.3", "10.1.2.3"),
        ("203.0.113.7, unknown", "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
def test_the_client_is_the_last_address_that_is_not_a_trusted_proxy(header: str, expected: str) -> None:
    assert client(x_forwarded_for=header) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("for=203.0.113.7;proto=https;by=10.0.0.1", "203.0.113.7"),
        ('for=192.0.2.1, For="[2001:db8::1]:80"', "2001:db8::1"),
        ("for=203.0.113.7, for=10.1.2.3", "203.0.113.7"),
        ("for=_hidden", "127.0.0.1"),
        ("proto=https", "127.0.0.1"),
    ],
)
def test_the_standard_forwarded_header_is_read(header: str, expected: str) -> None:
    assert client(forwarded=header) == expected


def test_the_headers_of_untrusted_peers_are_ignored() -> None:
    assert client("192.0.2.1", x_forwarded_for="203.0.113.7") == "192.0.2.1"
    assert TrustedProxies().client_address({b"x-forwarded-for": b"203.0.113.7"}, "127.0.0.1") == "127.0.0.1"


def test_contradictory_headers_are_ignored() -> None:
    assert client(x_forwarded_for="203.0.113.7", forwarded="for=203.0.113.7") == "203.0.113.7"
    assert client(x_forwarded_for="203.0.113.7", forwarded="for=192.0.2.1") == "127.0.0.1"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("203.0.113.7, 10.1.2.3, 127.0.0.1", "203.0.113.7"),
        ("10.9.9.9, 10.1.2.3", "10.9.9.9"),
        ("unknown, 10.1.2.3", "10.1.2.3"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:123456", "127.0.0.1"),
    ],
)
def test_the_addresses_are_read_from_the_last_to_the_first(header: str, expected: str) -> None:
    assert client(x_forwarded_for=header) == expected


def test_only_addresses_in_the_networks_are_trusted() -> None:
    assert [PROXIES.trusts(text) for text in ("127.0.0.1", "10.255.0.1", "11.0.0.1", "::1", "proxy", "")] == [
        *(True, True),
        *(False, False, False, False),
    ]
    assert PROXIES.trusts.cache_parameters()["maxsize"] == 1024  # type: ignore[attr-defined]
    assert client() == "127.0.0.1"
