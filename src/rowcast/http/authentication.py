"""Who may come in: keys, scopes, quotas and origins, for the edge.

Keys are looked at again when a second has passed and their file has changed; there is no task that could die. Once a
key was seen, keys are needed until the server ends: a deleted file opens nothing.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import msgspec
import structlog

from rowcast.access.callers import STRANGER, Caller, active_callers, keep_meters
from rowcast.access.ports import KeyReader
from rowcast.access.quotas import Meter, Quota
from rowcast.access.scopes import Scope
from rowcast.errors import Forbidden, RowcastError, Unauthorized
from rowcast.serving.live_models import Deployment, LiveModel

Headers = list[tuple[bytes, bytes]]

LOOK_EVERY_SECONDS = 0.5
MOST_ADDRESSES = 10_000
OPEN_ROUTES = frozenset({"/", "/docs", "/redoc", "/openapi.json", "/health/live", "/health/ready"})
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


class Rules(msgspec.Struct, frozen=True):
    """What the settings say about access."""

    api_key: str = ""
    """One more key, which may do everything."""
    quota: Quota | None = None
    """Of every key without one of its own, and of every address where no key is needed."""
    workers: int = 1
    open_metrics: bool = False
    local: bool = True
    """Only this machine can connect: without keys, everything may be done."""
    origins: frozenset[str] = frozenset()


class Gate:
    """Lets a request in, or says why not."""

    def __init__(self, keys: KeyReader, rules: Rules, now: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._rules = rules
        self._now = now
        self._callers: dict[bytes, Caller] = {}
        self._mark: object = None
        self.needs_key = bool(rules.api_key)
        scopes: frozenset[Scope] = frozenset(("predict", "read", "admin") if rules.local else ("predict", "read"))
        self._anonymous = Caller(scopes=scopes)
        self._addresses: OrderedDict[str, Meter] = OrderedDict()
        self._look_again = 0.0
        self._read()

    def admit(self, headers: dict[bytes, bytes], scope: Any) -> Caller:
        """The caller of a request; Unauthorized without a good key where one is needed. HOT.

        What is presented is hashed before anything is compared, and a dict of hashes is asked once: how long that
        takes depends on the length of what was presented alone.
        """
        now = self._now()
        if now >= self._look_again or now < self._look_again - 1.0:  # the clock may be set back
            self._look(now)
        presented = headers.get(b"x-api-key")
        if presented is None:
            if not self.needs_key:
                return self._anonymous if self._rules.quota is None else self._by_address(scope)
            presented = _bearer(headers)
        caller = self._callers.get(sha256(presented).digest())
        if caller is not None and now < caller.until:
            return caller
        if not self.needs_key:
            return self._anonymous if self._rules.quota is None else self._by_address(scope)
        if not presented:
            raise Unauthorized("a key is needed; send it as x-api-key, or as Authorization: Bearer")
        raise Unauthorized("the key is unknown, expired or revoked")

    def recognise(self, headers: dict[bytes, bytes]) -> Caller:
        """Who asks on a route that is open to all: it shows everybody what his key may see."""
        if not self.needs_key:
            return self._anonymous
        try:
            return self.admit(headers, None)
        except Unauthorized:
            return STRANGER

    def check(self, caller: Caller, method: str, path: str) -> Scope | None:
        """What a cold route needs of its caller; Forbidden when that is not given. None: nothing in particular."""
        if path == "/metrics":
            if caller.tenant or caller.models or not caller.scopes & {"read", "admin"}:
                raise Forbidden("metrics tell of all tenants and models: they need a key for all, with the scope read")
            return None
        wanted = _scope(method, path)
        if wanted is not None:
            require(caller, wanted)
        parts = path.split("/", 3)
        if len(parts) > 2 and parts[1] == "models" and parts[2] not in ("info", "reload"):
            allow_model(caller, parts[2])
        return wanted

    def is_open(self, path: str) -> bool:
        """Routes that need no key."""
        return path in OPEN_ROUTES or path.startswith("/static/") or (path == "/metrics" and self._rules.open_metrics)

    def preflight(self, headers: dict[bytes, bytes], method: str) -> Headers | None:
        """The answer to a browser that asks before it sends; None when this is no such question."""
        if method != "OPTIONS" or b"access-control-request-method" not in headers:
            return None
        if not self._allows(headers[b"origin"]):
            raise Forbidden("this origin is not in the setting 'cors_origins'", slug="cross-origin")
        return [
            (b"access-control-allow-origin", headers[b"origin"]),
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", ALLOWED_HEADERS),
            (b"access-control-max-age", b"600"),
            (b"vary", b"Origin"),
        ]

    def cross_origin(self, headers: dict[bytes, bytes], method: str) -> Headers:
        """Headers for a page of another origin; Forbidden when it would change something and is not listed.

        A page cannot forge these headers, and a server on one's own machine often needs no key: without this check any
        page that one visits could post to it.
        """
        origin = headers[b"origin"]
        if self._allows(origin):
            return [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", EXPOSED_HEADERS),
                (b"vary", b"Origin"),
            ]
        site = headers.get(b"sec-fetch-site")
        own = site in OWN_SITE if site is not None else origin.partition(b"://")[2] == headers.get(b"host")
        if not own and method not in ("GET", "HEAD", "OPTIONS"):
            raise Forbidden(
                "a page of another origin may not do this; see the setting 'cors_origins'", slug="cross-origin"
            )
        return []

    def _allows(self, origin: bytes) -> bool:
        return origin.decode("latin-1") in self._rules.origins or "*" in self._rules.origins

    def _look(self, now: float) -> None:
        self._look_again = now + LOOK_EVERY_SECONDS
        if self._keys.revision() != self._mark:
            try:
                self._read()
            except RowcastError as error:  # those that were known stay; the file is looked at again
                log.warning("the keys cannot be read; the ones from before stay", reason=error.message)

    def _read(self) -> None:
        self._mark, now = self._keys.revision(), self._now()
        kept: Sequence[Any] = self._keys.all()
        found = active_callers(kept, now, self._rules.quota, self._rules.workers)
        if self._rules.api_key:
            meter = Meter(self._rules.quota, self._rules.workers) if self._rules.quota else None
            found[sha256(self._rules.api_key.encode()).digest()] = Caller("env", meter=meter)
        self._callers = keep_meters(found, self._callers)
        self.needs_key = self.needs_key or bool(kept)

    def _by_address(self, scope: Any) -> Caller:
        """Without keys, each address has a quota of its own; those not seen for longest are forgotten."""
        address = (scope.get("client") or ("unknown",))[0]
        meter = self._addresses.get(address)
        if meter is None:
            assert self._rules.quota is not None
            meter = self._addresses[address] = Meter(self._rules.quota, self._rules.workers)
            if len(self._addresses) > MOST_ADDRESSES:
                self._addresses.popitem(last=False)
        else:
            self._addresses.move_to_end(address)
        return msgspec.structs.replace(self._anonymous, meter=meter)


def require(caller: Caller, scope: Scope) -> None:
    """Forbidden when the caller's key has no such scope."""
    if scope not in caller.scopes:
        who = f"the key {caller.key_id} has not" if caller.key_id else "without a key nobody has"
        raise Forbidden(f"this needs the scope {scope!r}, which {who}")


def model_for(caller: Caller, deployment: Deployment, name: str | None) -> LiveModel:
    """The model that is meant, if the caller may use it; ModelNotFound says what there is, of what may be seen."""
    if name is not None:
        allow_model(caller, name)  # before anybody can learn which models there are
    model = deployment.get(name, caller.models)
    allow_model(caller, model.name)
    return model


def allow_model(caller: Caller, name: str) -> None:
    """Forbidden when the caller's key is for other models; a key is for all versions of a model."""
    if not caller.may_use(name.partition("@")[0]):
        raise Forbidden(f"the key {caller.key_id} is not for this model")


def _scope(method: str, path: str) -> Scope | None:
    """What is not listed needs nothing but a good key to be read, and admin to be changed."""
    reads = method in ("GET", "HEAD", "OPTIONS")
    if path.startswith(("/predictions", "/history")):
        return "read" if reads else "admin"
    if method == "POST" and path.endswith("/predict"):
        return "predict"
    return None if reads else "admin"


def _bearer(headers: dict[bytes, bytes]) -> bytes:
    given = headers.get(b"authorization", b"")
    return given[7:].strip() if given[:7].lower() == b"bearer " else b""
