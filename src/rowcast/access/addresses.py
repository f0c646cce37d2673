"""IP addresses, and the hosts in the `Host` headers of requests. No host name is resolved with DNS."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable

from rowcast.errors import SettingsError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_CACHED = 1024
ANY_HOST = "*"
_match_host = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]*)?").fullmatch


def parse_address(text: str) -> Address | None:
    """Parse an IP address; return None if the string is not one. An IPv4-mapped IPv6 address becomes an IPv4
    address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


@functools.lru_cache(MAX_CACHED)
def is_loopback(text: str) -> bool:
    """Return whether the string is a loopback address. Hot path."""
    address = parse_address(text)
    return address is not None and address.is_loopback


@functools.lru_cache(MAX_CACHED)
def parse_host(header: bytes) -> str:
    """Return the host in the value of a `Host` header, without the port; return an empty string if it is invalid.

    Hot path.
    """
    match = _match_host(header.decode("latin-1").lower())
    return (match[1] or match[2]).removesuffix(".") if match else ""


def is_loopback_host(host: str) -> bool:
    """Return whether a host always refers to this machine: a loopback address, `localhost` or a subdomain of
    `localhost`."""
    return host == "localhost" or host.endswith(".localhost") or is_loopback(host)


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Parse addresses and networks such as `10.0.0.0/8`; raise SettingsError if one is invalid."""
    return tuple(_parse_network(text) for text in texts)


def _parse_network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise SettingsError(
            f"invalid address in setting 'trusted_proxies': {error}; expected an IP address or a network"
        ) from None


def parse_hosts(texts: Iterable[str]) -> frozenset[str]:
    """Parse host names without ports; raise SettingsError if one is invalid. `*` matches every host."""
    return frozenset(text if text == ANY_HOST else _parse_allowed_host(text) for text in texts)


def _parse_allowed_host(text: str) -> str:
    address = parse_address(text.strip("[]"))
    if address is not None:
        return str(address)
    host = parse_host(text.encode())
    if not host or ":" in text:
        raise SettingsError(
            f"invalid host {text!r} in setting 'allowed_hosts'; expected a host name or an IP address without a port"
        )
    return host
