"""Request heads: the version, method and host, and offers to upgrade the connection."""

from __future__ import annotations

import pytest

from rowcast.errors import RequestError
from rowcast.runtime.request_heads import check_head, remove_upgrade


@pytest.mark.parametrize("host", [b"x", b"x:8000", b"[::1]:80", b"127.0.0.1", b"a_b.example", b""])
def test_the_value_of_the_host_header_is_returned(host: bytes) -> None:
    assert check_head(b"GET", "1.1", [(b"accept", b"*/*"), (b"host", host)]) == host


@pytest.mark.parametrize("host", [b"a b", b"user@x", b"x/y", b"x?", b"x#", b"\xe4", b"x\x00"])
def test_an_invalid_host_is_rejected_with_its_value(host: bytes) -> None:
    with pytest.raises(RequestError, match="Host") as caught:
        check_head(b"GET", "1.1", [(b"host", host)])

    assert repr(host.decode("latin-1")) in caught.value.message


@pytest.mark.parametrize("hosts", [0, 2])
def test_an_http_1_1_request_must_have_exactly_one_host_header(hosts: int) -> None:
    with pytest.raises(RequestError) as caught:
        check_head(b"GET", "1.1", [(b"host", b"x")] * hosts)

    assert caught.value.slug == "bad-request"


def test_an_http_1_0_request_may_omit_the_host_header() -> None:
    assert check_head(b"GET", "1.0", []) is None


@pytest.mark.parametrize("version", ["0.9", "2.0"])
def test_other_versions_are_rejected(version: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_head(b"GET", version, [(b"host", b"x")])

    assert caught.value.slug == "unsupported-version"


def test_the_connect_method_is_rejected() -> None:
    with pytest.raises(RequestError) as caught:
        check_head(b"CONNECT", "1.1", [(b"host", b"x")])

    assert caught.value.slug == "not-supported"


def test_an_h2c_offer_is_removed_and_all_other_headers_are_kept() -> None:
    headers = [(b"host", b"x"), (b"connection", b"Upgrade, close"), (b"upgrade", b"H2C"), (b"empty", b"")]

    assert remove_upgrade(b"POST", b"/predict?a=b", "1.1", headers) == (
        b"POST /predict?a=b HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, close\r\nempty: \r\n\r\n"
    )


@pytest.mark.parametrize("offers", [[b"websocket"], [b"h2c", b"websocket"], [b"h2c, websocket"]])
def test_any_other_offer_also_closes_the_connection(offers: list[bytes]) -> None:
    headers = [(b"connection", b"upgrade"), *[(b"upgrade", offer) for offer in offers]]

    assert remove_upgrade(b"GET", b"/", "1.0", headers) == b"GET / HTTP/1.0\r\nconnection: close\r\n\r\n"
