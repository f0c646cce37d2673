"""Builds the history from its store and journals, and defines the operations that commands and servers share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rowcast.errors import HistoryError, SettingsError
from rowcast.setting_values import hide_credentials

if TYPE_CHECKING:
    from rowcast.history.entry_filter import Selection
    from rowcast.history.erasure import ErasureResult
    from rowcast.history.heads import ChainHead
    from rowcast.history.ports import Store
    from rowcast.history.replay import Replay
    from rowcast.history.service import History
    from rowcast.history.verification import Verification
    from rowcast.schema.prediction import Score
    from rowcast.serving.live_models import LiveModel
    from rowcast.settings import Settings


def store(settings: Settings) -> Store:
    """Return the configured history store, without opening it."""
    scheme, _, location = settings.store_url.partition("://")
    if settings.has_postgresql_store:
        require_driver()
        from rowcast.adapters.postgresql.store import PostgresStore

        return PostgresStore(settings.store_url, partial(signing_key, settings))
    if scheme != "sqlite" or len(location) < 2 or not location.startswith("/"):
        raise SettingsError(
            f"setting 'store' is {hide_credentials(settings.store_url)!r}; "
            "expected sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    from rowcast.adapters.sqlite.store import SqliteStore

    return SqliteStore(Path(location[1:]), partial(signing_key, settings))


def require_driver() -> None:
    """Raise SettingsError if the driver for PostgreSQL is not installed."""
    try:
        import psycopg  # noqa: F401
    except ImportError:  # psycopg, or the library that it uses, is missing
        raise SettingsError(
            "setting 'store' is a PostgreSQL URL, but the driver is not installed; install rowcast[postgres]"
        ) from None


def signing_key(settings: Settings) -> bytes:
    """Return the key that signs heads and erasures; create it if necessary."""
    from rowcast.adapters.files.secret import FileSecret
    from rowcast.history.secret import load_secret

    return load_secret(FileSecret(settings.signing_key_path))


def history_key(settings: Settings) -> bytes:
    """Return the key for hashing sensitive values. Home folders with the same PostgreSQL store share it."""
    from rowcast.adapters.files.secret import FileSecret
    from rowcast.history.secret import load_secret, load_shared_secret

    own = FileSecret(settings.history_key_file)
    if not settings.has_postgresql_store:
        return load_secret(own)
    require_driver()
    from rowcast.adapters.postgresql.secret import PostgresSecret

    return load_shared_secret(PostgresSecret(settings.store_url, "history"), own)


def verify_history(settings: Settings, published: Sequence[ChainHead]) -> Verification:
    """Verify all chains, the published heads and the signatures."""
    key = signing_key(settings) if settings.signing_key_path.exists() else None
    return history(settings).verify(published, key)


def signed_heads(settings: Settings) -> list[ChainHead]:
    """Return the signed head of every chain."""
    from rowcast.history.signing import sign_head

    key = signing_key(settings)
    return [sign_head(head, key) for head in history(settings).heads()]


def history(settings: Settings) -> History:
    """Return the configured history, which combines the store and the journals."""
    from rowcast.adapters.files.journal_reader import FolderJournalReader
    from rowcast.history.service import History

    return History(
        store(settings), FolderJournalReader(settings.journal_folder), is_shared=settings.has_postgresql_store
    )


def newest_entry_time(settings: Settings) -> int | None:
    """Return the Unix timestamp of the newest stored entry, in microseconds, or None if the store is empty."""
    from rowcast.history.chain import decode_head

    entries = store(settings).latest(1)
    return decode_head(entries[0].sealed.head).at if entries else None


def replay_history(settings: Settings, model: str | None) -> Replay:
    """Rescore the recorded rows of one model, or of all models, with the published bundles."""
    from rowcast.app.models import model_by_digest
    from rowcast.history.replay import replay
    from rowcast.registry.ports import Reference

    load = model_by_digest(settings)

    def load_scorer(name: str, version: int, digest: str) -> _BundleScorer:
        return _BundleScorer(load(Reference(name, version), digest))

    return replay(history(settings), load_scorer, model)


class _BundleScorer:
    """Rescores recorded rows with a live model."""

    def __init__(self, model: LiveModel) -> None:
        self._model = model

    def score(self, rows: Sequence[bytes]) -> Sequence[Score]:
        return self._model.score([self._model.encoder.read(row) for row in rows])

    def compare(self, recorded: Score, current: Score) -> str:
        return self._model.compare(recorded, current)


def erase_history(settings: Settings, selection: Selection, reason: str, wait: Callable[[], bool]) -> ErasureResult:
    """Erase the selected rows; wait until the rows in journals are also erased, or until `wait()` returns False."""
    from rowcast.adapters.files.journal_reader import FolderJournalReader, indexer_lock
    from rowcast.app.models import current_user
    from rowcast.history.erasure import Eraser

    journals = FolderJournalReader(settings.journal_folder)
    with store(settings) as opened:
        eraser = Eraser(opened, journals, utc_microseconds)
        erasure = eraser.erase(selection, current_user(), reason)
        while not eraser.is_complete(erasure.request) and wait():
            with indexer_lock(settings.journal_folder) as acquired:
                if acquired:  # no server is running, so this process does the indexer's work
                    with suppress(HistoryError):  # `history verify` reports damaged journals
                        journals.drain(opened)
                    eraser.advance()
        return eraser.result(erasure.request)


def retention_problem(settings: Settings) -> str | None:
    """Return why rows that are due for erasure cannot be erased, or None if nothing prevents it."""
    from rowcast.history import erasure

    if settings.retention_days is None:
        return None
    with store(settings) as opened:
        return erasure.retention_problem(opened, utc_microseconds(), settings.retention_days)


def utc_microseconds() -> int:
    """Return the current Unix timestamp in microseconds."""
    return time.time_ns() // 1000
