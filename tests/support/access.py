"""API keys for tests: stored like real keys, with secrets derived from their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rowcast.access import keys_and_quotas as access
from rowcast.access.keys_and_quotas import Key, Quota
from rowcast.adapters.files.keys import FileKeys


def secret(name: str) -> str:
    """Return the secret of the key with this name."""
    return access.spelled(name, name.encode() * 4)


def headers(name: str) -> dict[str, str]:
    """Return the request headers for the key with this name."""
    return {"x-api-key": secret(name)}


def add(home: Path, name: str, *scopes: str, quota: str = "", **options: Any) -> None:
    """Add a key to a home."""
    limit: Quota | None = access.read_quota(quota) if quota else None
    made = Key(
        id=name,
        name=name,
        hash=access.hash_of(secret(name)),
        scopes=scopes or ("predict",),  # type: ignore[arg-type]
        created=1,
        quota=limit,
        **options,
    )
    FileKeys(home / "keys.json").change(lambda keys: [*keys, made])
