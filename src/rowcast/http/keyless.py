"""The rules for requests without a key on a server that has no keys.

Such a server answers only clients on its own machine, no matter how it was started, unless it is `insecure`. It also
rejects requests that seem local but may come from elsewhere: requests that an untrusted proxy has forwarded, and
requests whose `Host` could be another site's name. (In a DNS rebinding attack, a web page's own host name is made to
resolve to 127.0.0.1.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rowcast.access.addresses import ANY_HOST, is_loopback, is_loopback_host, parse_host
from rowcast.errors import Forbidden
from rowcast.http.proxies import FORWARDING_HEADERS, TrustedProxies

FIX = "create a key with `rowcast keys create NAME` and send it"


class KeylessRules:
    """Decides which requests without a key are answered."""

    def __init__(self, proxies: TrustedProxies, hosts: frozenset[str], *, insecure: bool) -> None:
        self._proxies = proxies
        self._hosts = hosts
        self._insecure = insecure
        self._checks_host = not (ANY_HOST in hosts or (insecure and not hosts))

    def is_local(self, headers: Mapping[bytes, bytes], client: Sequence[Any] | None) -> bool:
        """Return whether the client is on this machine; raise Forbidden if the request must not be answered.

        Hot path.
        """
        is_local = client is not None and is_loopback(client[0])
        if not is_local and not self._insecure:
            raise Forbidden(
                f"a server without API keys answers only clients on its own machine; {FIX}, or set ROWCAST_INSECURE=1",
                slug="local-only",
            )
        if not FORWARDING_HEADERS.isdisjoint(headers):
            if not self._insecure and not self._proxies.trusts(client[0] if client else ""):
                raise Forbidden(
                    "a server without API keys does not answer requests from a proxy that is not listed in the setting "
                    f"'trusted_proxies'; {FIX}, or list the proxy",
                    slug="local-only",
                )
            is_local = False
        host = headers.get(b"host")
        if self._checks_host and host is not None:  # every browser sends a host
            self._check_host(host)
        return is_local

    def _check_host(self, header: bytes) -> None:
        host = parse_host(header)
        if host not in self._hosts and not is_loopback_host(host):
            shown = header.decode("latin-1")[:100]
            raise Forbidden(
                f"unknown host {shown!r}; add it to the setting 'allowed_hosts', or {FIX}", slug="host-not-allowed"
            )
