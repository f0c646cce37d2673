"""The indexer process: moves entries from the journals of one home folder into the store, and maintains the store."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from rowcast.app.history import store, utc_microseconds

if TYPE_CHECKING:
    from rowcast.runtime.lifecycle import IndexerChild
    from rowcast.settings import Settings

INTERVAL_SECONDS = 0.2
SYNCHRONOUS_INTERVAL_SECONDS = 0.01
"""The interval if `durability` is `store`; it is short because every reply waits for the indexer."""


def indexer_command() -> list[str]:
    """Return the command that starts an indexer."""
    return [sys.executable, "-m", "rowcast.cli", "indexer"]


def indexer_child(settings: Settings) -> IndexerChild:
    """Return the component that keeps an indexer running in a single-process server."""
    from rowcast.runtime.lifecycle import IndexerChild

    return IndexerChild(indexer_command(), settings.for_child(), lambda: indexer_is_running(settings))


def index_history(settings: Settings, wait: Callable[[float], bool], report: Callable[[str], None]) -> bool:
    """Run as the indexer of this home folder until `wait` returns True.

    Return False immediately if another process is already the indexer.
    """
    from rowcast.adapters.files.journal_reader import FolderJournalReader, indexer_lock
    from rowcast.history.erasure import Maintenance
    from rowcast.history.indexer import run_indexer

    with indexer_lock(settings.journal_folder) as acquired:
        if acquired:
            history_store, journals = store(settings), FolderJournalReader(settings.journal_folder)
            maintenance = Maintenance(history_store, journals, utc_microseconds, settings.retention_days, report)
            try:
                run_indexer(
                    journals,
                    history_store,
                    wait=wait,
                    report=report,
                    maintain=maintenance.run_once,
                    every=SYNCHRONOUS_INTERVAL_SECONDS if settings.durability == "store" else INTERVAL_SECONDS,
                )
                maintenance.close()
            finally:
                history_store.close()
        return acquired


def indexer_is_running(settings: Settings) -> bool:
    """Return whether any process is running as the indexer of this home folder."""
    from rowcast.adapters.files.journal_reader import indexer_lock

    with indexer_lock(settings.journal_folder) as acquired:
        return not acquired
