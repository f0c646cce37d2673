"""API keys, and functions to add, revoke, rotate and find them.

A key has the form `rk_<id>_<secret>`. Only the SHA-256 hash of the whole key is stored. The secret has 192 random bits
and therefore cannot be guessed, so a slow hash would add no security. The server looks up a key by its hash, so the
response time does not reveal how much of an invalid key is correct.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from hashlib import sha256

import msgspec

from rowcast.access.quotas import Quota
from rowcast.access.scopes import Scope
from rowcast.errors import SettingsError

ID_BYTES = 5
SECRET_BYTES = 24
_match_tenant = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}").fullmatch


class Key(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stored API key, without its secret. All times are Unix timestamps in seconds."""

    id: str
    name: str
    hash: str
    scopes: tuple[Scope, ...]
    created: int
    tenant: str = ""
    """The key's tenant; empty if the key has no tenant."""
    models: tuple[str, ...] = ()
    """The models that the key allows; an empty tuple allows every model."""
    quota: Quota | None = None
    expires: int | None = None
    revoked: int | None = None
    old_hash: str = ""
    """The key's hash before its most recent rotation; valid until `old_until`."""
    old_until: int = 0

    def valid_until(self) -> float:
        """Return the time at which the key expires: infinity if it never expires, minus infinity if it is revoked."""
        if self.revoked is not None:
            return -math.inf
        return math.inf if self.expires is None else self.expires

    def state(self, now: float) -> str:
        """Return `active`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "active" if now < self.valid_until() else "expired"


def add_key(keys: Sequence[Key], new: Key) -> list[Key]:
    """Return the keys with the new key appended; raise SettingsError if its name is in use.

    The name of a revoked key can be used again.
    """
    if any(key.name == new.name and key.revoked is None for key in keys):
        raise SettingsError(f"a key named {new.name!r} already exists; revoke or rotate it, or choose another name")
    return [*keys, new]


def revoke_key(keys: Sequence[Key], id_or_name: str, now: int) -> list[Key]:
    """Return the keys after revoking the matching key."""
    target = find_key(keys, id_or_name)
    return [msgspec.structs.replace(key, revoked=now, old_hash="") if key is target else key for key in keys]


def rotate_key(keys: Sequence[Key], id_or_name: str, new_hash: str, now: int, overlap: int) -> list[Key]:
    """Return the keys after replacing the matching key's hash; the old hash stays valid for `overlap` seconds."""
    target = find_key(keys, id_or_name)
    rotated = msgspec.structs.replace(target, hash=new_hash, old_hash=target.hash, old_until=now + overlap)
    return [rotated if key is target else key for key in keys]


def find_key(keys: Sequence[Key], id_or_name: str) -> Key:
    """Return the key with this id or, failing that, this name; raise SettingsError if it is unknown or revoked."""
    matches = [key for key in keys if key.id == id_or_name] or [key for key in keys if key.name == id_or_name]
    active = [key for key in matches if key.revoked is None]
    if active:
        return active[0]
    if matches:
        raise SettingsError(f"key {id_or_name!r} is revoked")
    available = ", ".join(key.id for key in keys if key.revoked is None) or "none"
    raise SettingsError(f"unknown key {id_or_name!r}; available keys: {available}")


def hash_key(key: str | bytes) -> str:
    """Return the hash that is stored instead of the key."""
    return sha256(key.encode() if isinstance(key, str) else key).hexdigest()


def format_key(key_id: str, secret: bytes) -> str:
    """Return a key in the form `rk_<id>_<secret>`."""
    return f"rk_{key_id}_{secret.hex()}"


def parse_name(text: str) -> str:
    """Strip and return a key name; raise SettingsError if the name is empty, too long or not printable."""
    if not text.strip() or len(text) > 64 or not text.isprintable():
        raise SettingsError(f"invalid key name {text[:80]!r}; use 1 to 64 printable characters")
    return text.strip()


def parse_tenant(text: str) -> str:
    """Return a tenant name unchanged; raise SettingsError if it is invalid."""
    if not _match_tenant(text):
        raise SettingsError(
            f"invalid tenant {text[:80]!r}; use 1 to 64 characters from a-z, 0-9, '.', '_' and '-', "
            "starting with a letter or digit"
        )
    return text
