"""`rowcast keys`: API keys made, listed, ended and renewed."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from rowcast.access import keys_and_quotas as access
from rowcast.access.keys_and_quotas import Key
from rowcast.app import server as app_server
from rowcast.cli import output

if TYPE_CHECKING:
    from rowcast.settings import Settings


class Wanted(NamedTuple):
    """A new key as the command line describes it."""

    name: str
    scopes: str
    tenant: str | None
    models: tuple[str, ...]
    expires: str | None
    quota: str | None


def create(settings: Settings, wanted: Wanted, *, as_json: bool) -> None:
    """Make a key and show it."""
    from rowcast.registry.names import check_name

    now = int(time.time())
    key_id = secrets.token_hex(access.ID_BYTES)
    secret = access.spelled(key_id, secrets.token_bytes(access.SECRET_BYTES))
    key = Key(
        id=key_id,
        name=access.read_name(wanted.name),
        hash=access.hash_of(secret),
        scopes=access.read_scopes(wanted.scopes),
        created=now,
        tenant=access.read_tenant(wanted.tenant) if wanted.tenant is not None else "",
        models=tuple(check_name(model) for model in wanted.models),
        quota=access.read_quota(wanted.quota) if wanted.quota is not None else None,
        expires=now + access.read_duration(wanted.expires) if wanted.expires is not None else None,
    )
    app_server.keys(settings).change(lambda keys: access.made(keys, key))
    _hand_over(key, secret, as_json=as_json)


def show(settings: Settings, *, as_json: bool) -> None:
    """Every key."""
    keys, now = app_server.keys(settings).all(), time.time()
    if as_json:
        output.print_json({"keys": [_shown(key, now) for key in keys]})
        return
    headings = ("id", "name", "state", "scopes", "tenant", "models", "quota", "expires")
    rows = []
    for key in keys:
        models = ",".join(key.models) or "all"
        ends = _date(key.expires) or "never"
        quota = str(key.quota or "")
        rows.append((key.id, key.name, key.state(now), ",".join(key.scopes), key.tenant, models, quota, ends))
    output.print_table(headings, rows)


def revoke(settings: Settings, wanted: str, *, as_json: bool) -> None:
    """End a key."""
    now = int(time.time())
    book = app_server.keys(settings)
    chosen = access.named(book.all(), wanted)
    book.change(lambda keys: access.revoked(keys, chosen.id, now))
    if as_json:
        output.print_json({"id": chosen.id, "name": chosen.name, "state": "revoked"})
    else:
        output.say(f"revoked {chosen.id} ({chosen.name}); servers refuse it within a second")


def rotate(settings: Settings, wanted: str, overlap: str, *, as_json: bool) -> None:
    """Give a key a new secret."""
    now, seconds = int(time.time()), access.read_duration(overlap)
    book = app_server.keys(settings)
    chosen = access.named(book.all(), wanted)
    secret = access.spelled(chosen.id, secrets.token_bytes(access.SECRET_BYTES))
    book.change(lambda keys: access.rotated(keys, chosen.id, access.hash_of(secret), now, seconds))
    _hand_over(access.named(book.all(), chosen.id), secret, as_json=as_json)


def _hand_over(key: Key, secret: str, *, as_json: bool) -> None:
    """The only time that a key is seen."""
    if as_json:
        output.print_json({"key": secret, **_shown(key, time.time())})
        return
    output.say(f"{key.name} ({key.id}) may {', '.join(key.scopes)}; this is its key, it is not shown again:")
    output.print_lines([secret])
    if key.old_hash:
        output.say(f"the key from before is good until {_date(key.old_until)}")


def _shown(key: Key, now: float) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "state": key.state(now),
        "scopes": key.scopes,
        "tenant": key.tenant or None,
        "models": key.models,
        "quota": str(key.quota) if key.quota else None,
        "created": _date(key.created),
        "expires": _date(key.expires),
        "old_key_until": _date(key.old_until) if key.old_hash and now < key.old_until else None,
    }


def _date(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
