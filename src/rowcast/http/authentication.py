"""The authentication, scope and cross-origin rules that the edge applies.

The server checks for changed keys during requests, at most once every half second, so no background task is needed.
Once a key exists, the server requires keys until it shuts down, even if the key file is deleted.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import msgspec
import structlog

from rowcast.access.addresses import Network
from rowcast.access.callers import UNAUTHENTICATED, Caller, active_callers, keep_meters
from rowcast.access.ports import KeyReader
from rowcast.access.quotas import Meter, Quota, new_meters
from rowcast.access.scopes import Scope
from rowcast.access.shared_quotas import SharedQuotas
from rowcast.errors import Forbidden, RowcastError, Unauthorized
from rowcast.http.keyless import KeylessRules
from rowcast.http.proxies import TrustedProxies
from rowcast.serving.deployment import Deployment, M

Headers = list[tuple[bytes, bytes]]

REFRESH_SECONDS = 0.5
MAX_ADDRESSES = 10_000
METHODS = b"GET, HEAD, POST, DELETE, OPTIONS"
ALLOWED_HEADERS = (
    b"authorization, content-type, content-encoding, idempotency-key, if-none-match, "
    b"inference-header-content-length, traceparent, x-api-key, x-request-id, x-request-timeout"
)
EXPOSED_HEADERS = (
    b"etag, idempotency-replayed, inference-header-content-length, ratelimit, ratelimit-policy, retry-after, "
    b"traceparent, x-cache, x-request-id"
)
OWN_SITE = (b"same-origin", b"none")

log = structlog.get_logger("rowcast.http")


class AccessRules(msgspec.Struct, frozen=True):
    """The access settings."""

    api_key: str = ""
    """An additional key with every scope."""
    quota: Quota | None = None
    """The quota for each key without its own quota or, if no key is required, for each client address."""
    processes: int = 1
    """The number of server processes that share each quota."""
    local_only: bool = True
    """Whether the server is configured to listen only on this machine. If so, local clients have every scope without a
    key."""
    insecure: bool = False
    """Whether remote clients can send requests without a key."""
    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    """The hosts that a request without a key can name in its `Host` header, in addition to the loopback names."""
    proxies: tuple[Network, ...] = ()
    """The proxies whose forwarding headers are trusted."""
    predict_quota: Quota | None = None
    """A separate quota for predictions. If it is set, predictions do not count against `quota`."""
    shared: SharedQuotas | None = None
    """Counts quota usage across all server processes. If it is None, each process enforces an equal share."""


class Authenticator:
    """Identifies callers by their API keys."""

    def __init__(self, keys: KeyReader, rules: AccessRules, now: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._rules = rules
        self._now = now
        self._callers: dict[bytes, Caller] = {}
        self._revision: object = None
        self.needs_key = bool(rules.api_key)
        self._remote = Caller(scopes=frozenset(("predict", "read")))
        self._local = Caller() if rules.local_only else self._remote
        self._proxies = TrustedProxies(rules.proxies)
        self._keyless = KeylessRules(self._proxies, rules.hosts, insecure=rules.insecure)
        self._has_quota = rules.quota is not None or rules.predict_quota is not None
        self._addresses: OrderedDict[str, tuple[Meter | None, Meter | None]] = OrderedDict()
        self._refresh_at = -math.inf
        self._read_keys()

    def admit(self, headers: dict[bytes, bytes], client: Sequence[Any] | None) -> Caller:
        """Return the caller of a request; raise Unauthorized if a required key is missing or invalid.

        On a server without keys, raise Forbidden if the rules for requests without a key reject the request.
        Hot path. The key's hash is looked up in a dictionary, so the lookup time depends only on the key's length.
        """
        now = self._now()
        if now >= self._refresh_at or now < self._refresh_at - 1.0:  # the second test detects a clock that was set back
            self._refresh(now)
        presented = headers.get(b"x-api-key")
        if presented is None:
            if not self.needs_key:
                return self._admit_without_key(headers, client)
            presented = _bearer(headers)
        caller = self._callers.get(sha256(presented).digest())
        if caller is not None and now < caller.until:
            return caller
        if not self.needs_key:
            return self._admit_without_key(headers, client)
        if not presented:
            raise Unauthorized("an API key is required; send it in the header x-api-key or as a bearer token")
        raise Unauthorized("the API key is unknown, expired or revoked")

    def recognise(self, headers: dict[bytes, bytes], client: Sequence[Any] | None) -> Caller:
        """Return a public route's caller; return UNAUTHENTICATED if keys exist but the request has no valid key."""
        try:
            return self.admit(headers, client)
        except Unauthorized:
            return UNAUTHENTICATED

    def preflight(self, headers: dict[bytes, bytes], method: str) -> Headers | None:
        """Return the response headers if this is a browser's preflight request, otherwise None."""
        if method != "OPTIONS" or b"access-control-request-method" not in headers:
            return None
        if not self._allows(headers[b"origin"]):
            raise Forbidden("the origin is not listed in the setting 'cors_origins'", slug="cross-origin")
        return [
            (b"access-control-allow-origin", headers[b"origin"]),
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", ALLOWED_HEADERS),
            (b"access-control-max-age", b"600"),
            (b"vary", b"Origin"),
        ]

    def cross_origin(self, headers: dict[bytes, bytes], method: str) -> Headers:
        """Return the CORS response headers; raise Forbidden if a request from an unlisted origin could change data.

        Web pages cannot forge the headers `Origin` and `Sec-Fetch-Site`. A server on the user's own machine often
        requires no key; without this check, any page that the user visits could send POST requests to that server.
        """
        origin = headers[b"origin"]
        if self._allows(origin):
            return [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", EXPOSED_HEADERS),
                (b"vary", b"Origin"),
            ]
        site = headers.get(b"sec-fetch-site")
        is_own = site in OWN_SITE if site is not None else origin.partition(b"://")[2] == headers.get(b"host")
        if not is_own and method not in ("GET", "HEAD", "OPTIONS"):
            raise Forbidden(
                "cross-origin request rejected: the origin is not listed in the setting 'cors_origins'",
                slug="cross-origin",
            )
        return []

    def _allows(self, origin: bytes) -> bool:
        return origin.decode("latin-1") in self._rules.origins or "*" in self._rules.origins

    def _refresh(self, now: float) -> None:
        self._refresh_at = now + REFRESH_SECONDS
        if self._keys.revision() != self._revision:
            try:
                self._read_keys()
            except RowcastError as error:  # the previous keys stay valid until a refresh succeeds
                log.warning("cannot read the API keys; the previous keys stay valid", reason=error.message)

    def _read_keys(self) -> None:
        self._revision, now = self._keys.revision(), self._now()
        rules, keys = self._rules, self._keys.all()
        known = active_callers(keys, now, rules.quota, rules.processes, rules.predict_quota, shared=rules.shared)
        if rules.api_key:
            meter, general = self._new_meters("env")
            known[sha256(rules.api_key.encode()).digest()] = Caller("env", meter=meter, general_meter=general)
        self._callers = keep_meters(known, self._callers)
        self.needs_key = self.needs_key or bool(keys)

    def _admit_without_key(self, headers: dict[bytes, bytes], client: Sequence[Any] | None) -> Caller:
        """Return the caller of a request without a key; raise Forbidden if it must not be answered. Hot path."""
        caller = self._local if self._keyless.is_local(headers, client) else self._remote
        return self._with_quota(caller, headers, client) if self._has_quota else caller

    def _with_quota(self, caller: Caller, headers: dict[bytes, bytes], client: Sequence[Any] | None) -> Caller:
        """Return the caller with its address's quota. Quotas of the least recently used addresses are discarded."""
        address = self._proxies.client_address(headers, client[0] if client else "")
        meters = self._addresses.get(address)
        if meters is None:
            meters = self._addresses[address] = self._new_meters(f"address:{address}")
            if len(self._addresses) > MAX_ADDRESSES:
                self._addresses.popitem(last=False)
        else:
            self._addresses.move_to_end(address)
        return msgspec.structs.replace(caller, meter=meters[0], general_meter=meters[1])

    def _new_meters(self, owner: str) -> tuple[Meter | None, Meter | None]:
        rules = self._rules
        return new_meters(rules.quota, rules.predict_quota, rules.processes, shared=rules.shared, owner=owner)


def require(caller: Caller, scope: Scope | None) -> None:
    """Raise Forbidden if the caller lacks the scope."""
    if scope is not None and scope not in caller.scopes:
        who = f"key {caller.key_id}" if caller.key_id else "a caller without a key"
        raise Forbidden(f"{who} lacks the required scope {scope!r}")


def require_everything(caller: Caller) -> None:
    """Raise Forbidden unless the caller has access to all tenants and models."""
    if caller.tenant or caller.models or not caller.scopes & {"read", "admin"}:
        raise Forbidden(
            "metrics cover all tenants and models; send a key that has the scope 'read' and no tenant or model limits"
        )


def allow_model(caller: Caller, name: str) -> None:
    """Raise Forbidden if the caller's key does not grant access to this model. The version in `name` is ignored."""
    if not caller.may_use(name.partition("@")[0]):
        raise Forbidden(f"key {caller.key_id} does not grant access to this model")


def model_for(caller: Caller, deployment: Deployment[M], name: str | None) -> M:
    """Return the named or default model; raise Forbidden if the caller has no access to it."""
    if name is not None:
        allow_model(caller, name)  # checked first, so that the error does not reveal whether the model exists
    model = deployment.get(name, caller.models)
    allow_model(caller, model.name)
    return model


def _bearer(headers: dict[bytes, bytes]) -> bytes:
    credentials = headers.get(b"authorization", b"")
    return credentials[7:].strip() if credentials[:7].lower() == b"bearer " else b""
