"""Checks of HTTP/1.1 request heads that the parser does not perform."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rowcast.errors import RequestError

HeaderLines = Sequence[tuple[bytes, bytes]]
"""The headers of a request, in order, with lowercase names."""

VERSIONS = ("1.0", "1.1")
HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
"""The characters that a host and a port can contain (RFC 3986)."""


def check_head(method: bytes, version: str, headers: HeaderLines) -> bytes | None:
    """Return the value of the Host header, or None if an HTTP/1.0 request has none.

    Raise RequestError if the server does not support the version or the method, or if Host is missing, repeated or
    invalid. A proxy may interpret such a request differently.
    """
    if version not in VERSIONS:
        raise RequestError(f"HTTP/{version} is not supported; send HTTP/1.1", slug="unsupported-version")
    if method == b"CONNECT":
        raise RequestError("the method CONNECT is not supported; this server is not a proxy", slug="not-supported")
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1:
        raise RequestError(f"the request has {len(hosts)} Host headers; send exactly one")
    if not hosts:
        if version == "1.0":
            return None
        raise RequestError("the request has no Host header; HTTP/1.1 requires one")
    if HOST.fullmatch(hosts[0]) is None:
        shown = hosts[0][:100].decode("latin-1")
        raise RequestError(f"the Host header {shown!r} is invalid; send a host name and, optionally, a port")
    return hosts[0]


def remove_upgrade(method: bytes, target: bytes, version: str, headers: HeaderLines) -> bytes:
    """Return the head of a request without its offer to upgrade the connection.

    If the client offers only h2c, the connection stays open after the response, because some HTTP clients make this
    offer in every request. After any other offer, the connection is closed: a proxy that accepts the upgrade would
    relay everything that the client sends next.
    """
    keeps_open = all(value.strip().lower() == b"h2c" for name, value in headers if name == b"upgrade")
    removed = {b"upgrade"} if keeps_open else {b"upgrade", b"connection"}
    kept = [header for header in headers if header[0] not in removed]
    if not keeps_open:
        kept.append((b"connection", b"close"))
    lines = [b"%b: %b\r\n" % header for header in kept]
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, target, version.encode(), b"".join(lines))
