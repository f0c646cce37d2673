"""Who may do what: API keys, scopes, tenants and quotas as plain values.

A key is `rk_<id>_<secret>`. Only the sha256 of the whole text is kept: the secret has 192 random bits, so there is
nothing to guess and no slow hash to spend. What is presented is hashed and then looked up by that hash, so the time a
check takes says nothing about how much of a key was right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final, Literal

import msgspec

from rowcast.errors import OverQuota, SettingsError
from rowcast.history.entry_filter import Selection

Scope = Literal["predict", "read", "admin"]
SCOPES: tuple[Scope, ...] = ("predict", "read", "admin")
ID_BYTES = 5
SECRET_BYTES = 24
TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}").fullmatch
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_quota = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,6})([smhd]?)").fullmatch
_duration = re.compile(r"([0-9]{1,7})([smhd])").fullmatch


class Quota(msgspec.Struct, frozen=True):
    """So many rows in so many seconds."""

    rows: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.rows}/{self.seconds}s"


class Key(msgspec.Struct, frozen=True, omit_defaults=True):
    """One API key as it is kept: everything but the key."""

    id: str
    name: str
    hash: str
    scopes: tuple[Scope, ...]
    created: int
    """UTC seconds, as all moments here."""
    tenant: str = ""
    """Empty: the key belongs to no tenant."""
    models: tuple[str, ...] = ()
    """Empty: every model."""
    quota: Quota | None = None
    expires: int | None = None
    revoked: int | None = None
    old_hash: str = ""
    """Of the key before the last rotation, good until `old_until`."""
    old_until: int = 0

    def good_until(self) -> float:
        """When the key ends; before any moment once it is revoked."""
        if self.revoked is not None:
            return -math.inf
        return math.inf if self.expires is None else self.expires

    def state(self, now: float) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "active" if now < self.good_until() else "expired"


class Meter:
    """What is left of one quota, by the generic cell rate algorithm: one moment, no list of past requests.

    HOT: asked twice a request, hence without calls of `max` and `ceil`.
    """

    def __init__(self, quota: Quota, share: int = 1) -> None:
        self.quota = quota
        self._share = share  # of so many workers, each of which has a meter of its own
        self._cost = quota.seconds / max(1, quota.rows // share)
        self._most = quota.seconds + quota.seconds * 1e-9
        self._full_at = -math.inf
        policy = b'ratelimit-policy: "default";q=%d;w=%d\r\n' % (quota.rows, quota.seconds)
        self._headers = policy + b'ratelimit: "default";r=%d;t=%d\r\n'

    def spend(self, rows: int, now: float, whole: int = 0) -> None:
        """Take so many rows from the quota, of `whole` in the request; OverQuota, and nothing taken, when they are not
        left."""
        full_at = self._full_at
        if full_at < now:
            full_at = now
        full_at += rows * self._cost
        if full_at - now > self._most:
            self._refuse(max(rows, whole), full_at - now - self.quota.seconds)
        self._full_at = full_at

    def headers(self, now: float) -> bytes:
        """The RateLimit headers: rows left, and seconds until the quota is whole again."""
        used = self._full_at - now
        if used <= 0:
            return self._headers % (self.quota.rows, 0)
        return self._headers % (int((self._most - used) / self._cost) * self._share, int(used) + 1)

    def _refuse(self, rows: int, wait: float) -> None:
        if rows * self._cost > self._most:
            raise OverQuota(f"{rows} rows at once are more than the quota of {self.quota} ever allows; send fewer", 0)
        seconds = math.ceil(wait)
        raise OverQuota(f"the quota is {self.quota} and used up; try again in {seconds} s", seconds)


class Caller(msgspec.Struct, frozen=True, gc=False):
    """Who asks: what a request may do and what is written beside its predictions."""

    key_id: str = ""
    tenant: str = ""
    scopes: frozenset[Scope] = frozenset(SCOPES)
    models: frozenset[str] = frozenset()
    until: float = math.inf
    meter: Meter | None = None

    @property
    def sees(self) -> Selection:
        """Which predictions may be read: of one tenant or of all, of some models or of all."""
        tenant = None if "admin" in self.scopes and not self.tenant else self.tenant
        return Selection(tenant=tenant, models=tuple(sorted(self.models)))

    def may_use(self, model: str) -> bool:
        """Whether this model may be asked."""
        return not self.models or model in self.models


STRANGER: Final = Caller(scopes=frozenset(), models=frozenset(("",)))
"""Whoever has no key where one is needed: no model has an empty name."""


def made(keys: Sequence[Key], new: Key) -> list[Key]:
    """The keys with a new one; its name must not be in use."""
    if any(key.name == new.name and key.revoked is None for key in keys):
        raise SettingsError(f"there is a key named {new.name!r} already; revoke or rotate it, or choose another name")
    return [*keys, new]


def revoked(keys: Sequence[Key], wanted: str, now: int) -> list[Key]:
    """The keys with one of them ended, named by id or by name."""
    chosen = named(keys, wanted)
    return [msgspec.structs.replace(key, revoked=now, old_hash="") if key is chosen else key for key in keys]


def rotated(keys: Sequence[Key], wanted: str, new_hash: str, now: int, overlap: int) -> list[Key]:
    """The keys with a new secret for one of them; the old one stays good for `overlap` seconds."""
    chosen = named(keys, wanted)
    fresh = msgspec.structs.replace(chosen, hash=new_hash, old_hash=chosen.hash, old_until=now + overlap)
    return [fresh if key is chosen else key for key in keys]


def named(keys: Sequence[Key], wanted: str) -> Key:
    """The key of this id, or else the one in use of this name; SettingsError says what there is."""
    found = [key for key in keys if key.id == wanted] or [key for key in keys if key.name == wanted]
    active = [key for key in found if key.revoked is None]
    if active:
        return active[0]
    if found:
        raise SettingsError(f"the key {wanted!r} was revoked")
    known = ", ".join(key.id for key in keys if key.revoked is None) or "none"
    raise SettingsError(f"there is no key {wanted!r}; the ids are: {known}")


def hash_of(key: str | bytes) -> str:
    """What is kept of a key."""
    return sha256(key.encode() if isinstance(key, str) else key).hexdigest()


def spelled(key_id: str, secret: bytes) -> str:
    """A key as its owner gets it."""
    return f"rk_{key_id}_{secret.hex()}"


def callers(keys: Iterable[Key], now: float, default: Quota | None, share: int) -> dict[bytes, Caller]:
    """Who presents what: the digest of each key that is good now, to its caller. A rotated key is one caller twice."""
    found: dict[bytes, Caller] = {}
    for key in keys:
        if key.state(now) != "active":
            continue
        quota = key.quota or default
        caller = Caller(
            key.id,
            key.tenant,
            frozenset(key.scopes),
            frozenset(key.models),
            key.good_until(),
            Meter(quota, share) if quota else None,
        )
        found[bytes.fromhex(key.hash)] = caller
        if key.old_hash and now < key.old_until:
            until = min(caller.until, key.old_until)
            found[bytes.fromhex(key.old_hash)] = msgspec.structs.replace(caller, until=until)
    return found


def with_meters_of(new: dict[bytes, Caller], old: Mapping[bytes, Caller]) -> dict[bytes, Caller]:
    """The same callers, those whose quota is what it was keeping what they have used of it."""
    meters = {caller.key_id: caller.meter for caller in old.values()}

    def kept(caller: Caller) -> Caller:
        before = meters.get(caller.key_id)
        same = before is not None and caller.meter is not None and before.quota == caller.meter.quota
        return msgspec.structs.replace(caller, meter=before) if same else caller

    return {digest: kept(caller) for digest, caller in new.items()}


def read_scopes(text: str) -> tuple[Scope, ...]:
    """`predict,read`; SettingsError names what is no scope."""
    given = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in given if part not in SCOPES]
    if unknown or not given:
        shown = ", ".join(map(repr, unknown)) or "none"
        raise SettingsError(f"--scope takes {', '.join(SCOPES)}, by comma; given: {shown}")
    return tuple(scope for scope in SCOPES if scope in given)


def read_quota(text: str) -> Quota:
    """`100/60s`: so many rows in so long; SettingsError when it is something else."""
    found = _quota(text)
    if not found:
        raise SettingsError(f"the quota {text!r} is not of the form 100/60s: rows, a slash, and s, m, h or d")
    return Quota(int(found[1]), int(found[2]) * _SECONDS[found[3] or "s"])


def read_duration(text: str) -> int:
    """`90d` as seconds; SettingsError when it is something else."""
    found = _duration(text)
    if not found:
        raise SettingsError(f"the time {text!r} is not of the form 90d: a whole number and s, m, h or d")
    return int(found[1]) * _SECONDS[found[2]]


def read_name(text: str) -> str:
    """A key's name; SettingsError says what it may look like."""
    if not text.strip() or len(text) > 64 or not text.isprintable():
        raise SettingsError(f"the name {text[:80]!r} must be 1 to 64 printable characters")
    return text.strip()


def read_tenant(text: str) -> str:
    """A tenant's name; SettingsError says what it may look like."""
    if not TENANT(text):
        raise SettingsError(f"the tenant {text!r} must be 1 to 64 of a-z, 0-9, '.', '_' and '-'")
    return text
