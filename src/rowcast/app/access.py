"""The stored API keys, and the replies to requests with an Idempotency-Key."""

from __future__ import annotations

from contextlib import closing
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from rowcast.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rowcast.access.keys import Key
    from rowcast.access.ports import IdempotencyStore, KeyReader, KeyWriter
    from rowcast.adapters.files.keys import FileKeys
    from rowcast.runtime.key_follower import KeyFollower
    from rowcast.runtime.lifecycle import Part
    from rowcast.settings import Settings

THREADS = 8
"""The maximum number of PostgreSQL calls that a process makes concurrently for requests with an Idempotency-Key."""


class ServedKeys(NamedTuple):
    """The keys that a server accepts, and the parts that must be closed when the server stops."""

    keys: KeyReader
    parts: tuple[Part, ...]


def keys(settings: Settings) -> KeyWriter:
    """Return the API keys in the PostgreSQL store or, if no such store is configured, those in the home folder."""
    if not settings.has_postgresql_store:
        return file_keys(settings)
    from rowcast.app.history import require_driver

    require_driver()
    from rowcast.adapters.postgresql.keys import PostgresKeys

    return PostgresKeys(settings.store_url)


def file_keys(settings: Settings) -> FileKeys:
    """Return the API keys in the home folder."""
    from rowcast.adapters.files.keys import FileKeys

    return FileKeys(settings.keys_file)


def served_keys(settings: Settings) -> ServedKeys:
    """Return the keys for a server. If they are in PostgreSQL, a thread polls them for changes."""
    if not settings.has_postgresql_store:
        return ServedKeys(keys(settings), ())
    from rowcast.runtime.lifecycle import Closing

    follower = _follow(settings)
    return ServedKeys(follower, (Closing(follower.close),))


def has_key(settings: Settings) -> bool:
    """Return whether any API key exists; if so, callers must send a key."""
    if settings.api_key is not None:
        return True
    if not settings.has_postgresql_store:
        return bool(keys(settings).all())
    with closing(_follow(settings)) as follower:
        return bool(follower.all())


def _refuse_unshared_keys(settings: Settings, shared: Sequence[Key]) -> None:
    """Raise SettingsError if the home folder contains an unrevoked key that is not in the PostgreSQL store."""
    ids = {key.id for key in shared}
    missing = [key.id for key in file_keys(settings).all() if key.revoked is None and key.id not in ids]
    if missing:
        raise SettingsError(
            f"{settings.keys_file} contains API keys that are not in the PostgreSQL store: {', '.join(missing)}; copy "
            "them with `rowcast store copy`, or delete the file"
        )


def idempotency_store(settings: Settings) -> tuple[IdempotencyStore, int]:
    """Return the store of replies to requests with an Idempotency-Key, and the number of threads that may use it."""
    if not settings.has_postgresql_store:
        from rowcast.adapters.sqlite.idempotency import SqliteIdempotencyStore

        return SqliteIdempotencyStore(settings.repeats_file), 1
    from rowcast.app.history import require_driver

    require_driver()
    from rowcast.adapters.postgresql.idempotency import PostgresIdempotencyStore

    return PostgresIdempotencyStore(settings.store_url), THREADS


def _follow(settings: Settings) -> KeyFollower:
    """Poll the keys in PostgreSQL. Their local copy is stored in a file whose name identifies the database."""
    from rowcast.adapters.files.keys import FileKeys
    from rowcast.runtime.key_follower import KeyFollower
    from rowcast.setting_values import hide_credentials

    database = sha256(hide_credentials(settings.store_url).encode()).hexdigest()[:8]
    copy = FileKeys(settings.keys_file.with_name(f"keys-{database}.json"))
    follower = KeyFollower(keys(settings), copy)
    follower.open()
    try:
        _refuse_unshared_keys(settings, follower.all())
    except SettingsError:
        follower.close()
        raise
    return follower
