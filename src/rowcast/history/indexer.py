"""The indexer loop: moves the entries of one journal folder into the store."""

from __future__ import annotations

from collections.abc import Callable

from rowcast.errors import HistoryError, Unavailable
from rowcast.history.ports import JournalReader, StoreWriter

MAX_PAUSE_SECONDS = 5.0
"""The maximum pause between attempts while the store is unavailable, in seconds."""


def run_indexer(
    journals: JournalReader,
    store: StoreWriter,
    *,
    wait: Callable[[float], bool],
    report: Callable[[str], None],
    maintain: Callable[[], None] = lambda: None,
    every: float = 0.2,
) -> None:
    """Drain the journals every `every` seconds until `wait(seconds)` returns True, then once more.

    `maintain` runs after each round. `report` receives a message about each failure; while the store is unavailable,
    the journals keep all entries.
    """
    stopping, pause, last_damage = False, every, ""
    while not stopping:
        stopping = wait(pause)
        try:
            last_damage = _drain(journals, store, report, last_damage)
            maintain()
            pause = every
        except Unavailable as error:
            report(error.message)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)


def _drain(journals: JournalReader, store: StoreWriter, report: Callable[[str], None], last_damage: str) -> str:
    """Run one round and report any new damage. Return the description of the damage, or an empty string."""
    try:
        journals.drain(store)
    except HistoryError as error:  # `drain` raises this after all undamaged journals have been drained
        if error.message != last_damage:
            report(error.message)
        return error.message
    return ""
