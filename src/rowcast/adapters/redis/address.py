"""The address of a Redis server, parsed from its URL (`setting_values.py` describes the allowed URLs)."""

from __future__ import annotations

import ssl
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from rowcast.adapters.redis.resp import AuthenticationError, RedisError, ReplyError, Word

DEFAULT_PORT = 6379
CERTIFICATES = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


class Address(NamedTuple):
    """Where a Redis server is, and what each connection sends first."""

    host: str
    port: int
    path: str
    """The path of the server's Unix socket; empty for TCP."""
    tls: ssl.SSLContext | None
    credentials: tuple[Word, ...]
    """The command AUTH, or nothing."""
    database: str

    @property
    def server_name(self) -> str | None:
        """The name that the server's certificate must have."""
        return None if self.tls is None else self.host

    @property
    def place(self) -> str:
        """The address without the password, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"

    def greeting(self) -> list[tuple[Word, ...]]:
        """Return the first commands of a connection."""
        select: list[tuple[Word, ...]] = [] if self.database in ("", "0") else [("SELECT", self.database)]
        return [*([self.credentials] if self.credentials else []), *select]

    def refusal(self, words: tuple[Word, ...], error: ReplyError) -> RedisError:
        """Return the error to raise if the server rejects a command of the greeting."""
        return AuthenticationError(str(error)) if words is self.credentials else error


def parse_address(url: str) -> Address:
    """Parse a URL that the settings have checked; raise OSError if a certificate file cannot be read."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    is_local = parts.scheme == "unix"
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    credentials: tuple[Word, ...] = ()
    if password or user:
        credentials = ("AUTH", *([user] if user else []), password)
    return Address(
        host=parts.hostname or "localhost",
        port=parts.port or DEFAULT_PORT,
        path=unquote(parts.path) if is_local else "",
        tls=_tls(options) if parts.scheme == "rediss" else None,
        credentials=credentials,
        database=options.get("db", "" if is_local else parts.path.strip("/")),
    )


def _tls(options: dict[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authorities = options.get("ssl_ca_certs")
    if authorities is not None:
        context.load_verify_locations(authorities)
    mode = CERTIFICATES[options.get("ssl_cert_reqs", "required")]
    context.check_hostname = mode != ssl.CERT_NONE
    context.verify_mode = mode
    certificate = options.get("ssl_certfile")
    if certificate is not None:
        context.load_cert_chain(certificate, options.get("ssl_keyfile"))
    return context
