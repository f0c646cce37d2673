"""`rowcast keys`: create, list, revoke and rotate API keys."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from rowcast.access import keys
from rowcast.access.durations import parse_duration
from rowcast.access.keys import Key
from rowcast.access.quotas import parse_quota
from rowcast.access.scopes import parse_scopes
from rowcast.app import access
from rowcast.cli import output
from rowcast.registry.names import check_name

if TYPE_CHECKING:
    from rowcast.settings import Settings


class KeyOptions(NamedTuple):
    """The options of `rowcast keys create`."""

    name: str
    scopes: str
    tenant: str | None
    models: tuple[str, ...]
    expires: str | None
    quota: str | None


def create(settings: Settings, options: KeyOptions, *, as_json: bool) -> None:
    """Create a key and print its secret."""
    now = int(time.time())
    key_id = secrets.token_hex(keys.ID_BYTES)
    secret = keys.format_key(key_id, secrets.token_bytes(keys.SECRET_BYTES))
    key = Key(
        id=key_id,
        name=keys.parse_name(options.name),
        hash=keys.hash_key(secret),
        scopes=parse_scopes(options.scopes),
        created=now,
        tenant=keys.parse_tenant(options.tenant) if options.tenant is not None else "",
        models=tuple(check_name(model) for model in options.models),
        quota=parse_quota(options.quota) if options.quota is not None else None,
        expires=now + parse_duration(options.expires) if options.expires is not None else None,
    )
    access.keys(settings).change(lambda current: keys.add_key(current, key))
    _print_secret(key, secret, as_json=as_json)


def show(settings: Settings, *, as_json: bool) -> None:
    """Print every key without its secret."""
    current, now = access.keys(settings).all(), time.time()
    if as_json:
        output.print_json({"keys": [_to_document(key, now) for key in current]})
        return
    rows = [
        [
            key.id,
            key.name,
            key.state(now),
            ",".join(key.scopes),
            key.tenant,
            ",".join(key.models) or "all",
            str(key.quota or ""),
            _format_time(key.expires) or "never",
        ]
        for key in current
    ]
    output.print_table(["id", "name", "state", "scopes", "tenant", "models", "quota", "expires"], rows)
    if not rows:
        output.say("no API keys yet; create one with `rowcast keys create NAME`")


def revoke(settings: Settings, id_or_name: str, *, as_json: bool) -> None:
    """Revoke a key."""
    now = int(time.time())
    key_file = access.keys(settings)
    key = keys.find_key(key_file.all(), id_or_name)
    key_file.change(lambda current: keys.revoke_key(current, key.id, now))
    if as_json:
        output.print_json({"id": key.id, "name": key.name, "state": "revoked"})
    else:
        output.say(f"revoked key {key.id} ({key.name}); servers will reject the key within a second")


def rotate(settings: Settings, id_or_name: str, overlap: str, *, as_json: bool) -> None:
    """Replace a key's secret and print the new secret; the old secret stays valid during the overlap."""
    now, seconds = int(time.time()), parse_duration(overlap)
    key_file = access.keys(settings)
    key = keys.find_key(key_file.all(), id_or_name)
    secret = keys.format_key(key.id, secrets.token_bytes(keys.SECRET_BYTES))
    key_file.change(lambda current: keys.rotate_key(current, key.id, keys.hash_key(secret), now, seconds))
    _print_secret(keys.find_key(key_file.all(), key.id), secret, as_json=as_json)


def _print_secret(key: Key, secret: str, *, as_json: bool) -> None:
    """Print the secret to standard output and a description of the key to standard error."""
    if as_json:
        output.print_json({"key": secret, **_to_document(key, time.time())})
        return
    output.say(f"secret of API key {key.id} ({key.name}) with scopes {', '.join(key.scopes)} (shown only once):")
    output.print_lines([secret])
    if key.old_hash:
        output.say(f"the old secret remains valid until {_format_time(key.old_until)}")


def _to_document(key: Key, now: float) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "state": key.state(now),
        "scopes": key.scopes,
        "tenant": key.tenant or None,
        "models": key.models,
        "quota": str(key.quota) if key.quota else None,
        "created": _format_time(key.created),
        "expires": _format_time(key.expires),
        "old_key_until": _format_time(key.old_until) if key.old_hash and now < key.old_until else None,
    }


def _format_time(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
