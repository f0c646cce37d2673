"""Trusted proxies. Only a trusted proxy can name the client of a forwarded request. A proxy that adds no header cannot
be recognized: its requests seem to come from the machine on which it runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from rowcast.access.addresses import MAX_CACHED, Network, parse_address

X_FORWARDED_FOR, FORWARDED = b"x-forwarded-for", b"forwarded"
FORWARDING_HEADERS = frozenset(
    (
        X_FORWARDED_FOR,
        FORWARDED,
        b"x-forwarded",
        b"x-forwarded-by",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-scheme",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-original-forwarded-for",
        b"x-original-host",
        b"x-real-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-envoy-external-address",
        b"true-client-ip",
        b"cf-connecting-ip",
        b"fastly-client-ip",
        b"via",
    )
)
"""The headers that show that a request has passed through a proxy."""
_find_for = re.compile(r"""(?:^|[;,])\s*for\s*=\s*(?:"([^"]*)"|([^;,"\s]*))""", re.IGNORECASE).findall
_match_node = re.compile(r"\[?([0-9a-f:.]+?)\]?(?::[0-9]{1,5})?", re.IGNORECASE).fullmatch
_match_bare_ipv6 = re.compile(r"[0-9a-f:.]*:[0-9a-f.]*:[0-9a-f:.]*", re.IGNORECASE).fullmatch


class TrustedProxies:
    """The addresses of the proxies whose forwarding headers are trusted."""

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = networks
        self.trusts = lru_cache(MAX_CACHED)(self._contains)
        """Returns whether the address belongs to a trusted proxy."""

    def client_address(self, headers: Mapping[bytes, bytes], peer: str) -> str:
        """Return the address of the client: the last address in the header that is not a trusted proxy's.

        If the proxy is not trusted or names no client, return the peer's address. A proxy usually sets one of the two
        headers and forwards the client's value of the other. If they disagree, neither is trusted.
        """
        if not self._networks or not self.trusts(peer):
            return peer
        chains = [
            read(headers[name].decode("latin-1"))
            for name, read in ((X_FORWARDED_FOR, _split), (FORWARDED, _forwarded_for))
            if name in headers
        ]
        clients = {self._last_client(chain, peer) for chain in chains}
        return clients.pop() if len(clients) == 1 else peer

    def _last_client(self, chain: Sequence[str], peer: str) -> str:
        client = peer
        for node in reversed(chain):
            address = _node_address(node)
            if address is None:
                return client
            client = address
            if not self.trusts(address):
                break
        return client

    def _contains(self, text: str) -> bool:
        address: Any = parse_address(text)
        return address is not None and any(address in network for network in self._networks)


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",")]


def _forwarded_for(value: str) -> list[str]:
    """Return the values of `for` in a header such as `for=192.0.2.1;proto=https, for="[2001:db8::1]:80"`."""
    return [quoted or plain for quoted, plain in _find_for(value)]


def _node_address(node: str) -> str | None:
    """Return the address of a proxy or client, without its port; return None if the node is hidden or invalid."""
    match = None if _match_bare_ipv6(node) else _match_node(node)
    address = parse_address(match[1] if match else node)
    return None if address is None else str(address)
