"""API keys for tests, identified by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rowcast.access import keys as access_keys
from rowcast.access.keys import Key
from rowcast.access.quotas import Quota, parse_quota
from rowcast.adapters.files.keys import FileKeys

SECRET = "rk_1_secret"


def new_key(id_: str = "1", secret_text: str = SECRET, **fields: Any) -> Key:
    """Return a key; its scope is `predict` unless `fields` overrides it."""
    defaults = {"name": f"key {id_}", "scopes": ("predict",), "created": 0}
    return Key(id=id_, hash=access_keys.hash_key(secret_text), **{**defaults, **fields})


def secret(name: str) -> str:
    """Return the secret of the key with this name."""
    return access_keys.format_key(name, name.encode() * 4)


def headers(name: str) -> dict[str, str]:
    """Return the request headers for the key with this name."""
    return {"x-api-key": secret(name)}


def add(home: Path, name: str, *scopes: str, quota: str = "", **fields: Any) -> None:
    """Add a key to a home."""
    limit: Quota | None = parse_quota(quota) if quota else None
    key = Key(
        id=name,
        name=name,
        hash=access_keys.hash_key(secret(name)),
        scopes=scopes or ("predict",),  # type: ignore[arg-type]
        created=1,
        quota=limit,
        **fields,
    )
    FileKeys(home / "keys.json").change(lambda keys: [*keys, key])
