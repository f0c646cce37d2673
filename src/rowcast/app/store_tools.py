"""Migrates, checks and copies the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from rowcast.app import access, history
from rowcast.errors import SettingsError
from rowcast.setting_values import hide_credentials

if TYPE_CHECKING:
    from rowcast.history.copying import StoreCopy
    from rowcast.history.inspection import SchemaState, StoreState
    from rowcast.settings import Settings


class CopiedStore(NamedTuple):
    """What was copied into a PostgreSQL store."""

    history: StoreCopy
    keys: int
    has_secret: bool


def migrate_store(settings: Settings) -> tuple[int, int]:
    """Create the store or apply all pending migrations; return the schema version before and after."""
    before = _schema(settings)
    with history.store(settings):
        pass
    return before.schema, before.newest


def check_store(settings: Settings) -> StoreState:
    """Check the schema, the tables and a sample of the chains."""
    from rowcast.history.inspection import StoreState, spot_check

    state = _schema(settings)
    writers, entries, problems = spot_check(history.store(settings)) if state.schema == state.newest else (0, 0, [])
    if 0 < state.schema < state.newest:
        problems = [f"schema version {state.schema} is older than version {state.newest}; run `rowcast store migrate`"]
    return StoreState(
        schema=state.schema,
        newest=state.newest,
        partitions=state.partitions,
        problems=[*state.problems, *problems],
        location=hide_credentials(settings.store_url),
        writers=writers,
        entries=entries,
    )


def copy_to(settings: Settings, url: str, report: Callable[[int, int], None]) -> CopiedStore:
    """Copy the history, the API keys and the hashing key into a PostgreSQL store.

    `report` receives the number of entries in the target and the number of entries in the source.
    """
    from rowcast.history.copying import copy_store

    target = settings.model_copy(update={"store": url})
    if settings.has_postgresql_store or not target.has_postgresql_store:
        raise SettingsError("the store to copy must be a SQLite history, and --to must be a PostgreSQL URL")
    has_secret = _copy_secret(target)  # first, so that a different key is detected before a long copy
    history.require_driver()
    from rowcast.adapters.postgresql.store import PostgresStore

    source = history.store(settings)
    total = source.count()
    with PostgresStore(url) as opened, source:
        copied = copy_store(source, opened, lambda count: report(count, total))
    return CopiedStore(copied, _copy_keys(settings, target), has_secret)


def _copy_keys(settings: Settings, target: Settings) -> int:
    """Add the keys that the target lacks; return how many were added."""
    own, shared = access.keys(settings).all(), access.keys(target)
    present = {key.id for key in shared.all()}
    new = [key for key in own if key.id not in present]
    if new:
        shared.change(lambda keys: [*keys, *(key for key in new if key.id not in {each.id for each in keys})])
    return len(new)


def _copy_secret(target: Settings) -> bool:
    """Copy this home folder's hashing key, if any; raise SettingsError if the target has a different hashing key."""
    if not target.history_key_file.exists():
        return False
    history.history_key(target)
    return True


def _schema(settings: Settings) -> SchemaState:
    if settings.has_postgresql_store:
        history.require_driver()
        from rowcast.adapters.postgresql.inspection import inspect_schema

        return inspect_schema(settings.store_url)
    from rowcast.adapters.sqlite import inspection
    from rowcast.adapters.sqlite.store import SqliteStore

    store = history.store(settings)
    assert isinstance(store, SqliteStore)
    return inspection.inspect_schema(store.path)
