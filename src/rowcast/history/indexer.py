"""The indexer loop: moves the entries of one journal folder into the store."""

from __future__ import annotations

from collections.abc import Callable

from rowcast.errors import HistoryError, Unavailable
from rowcast.history.ports import JournalReader, StoreWriter

MAX_PAUSE_SECONDS = 5.0
"""The maximum pause between attempts while the store is unavailable, in seconds."""


def run_now(round_: Callable[[], None]) -> None:
    """Run a round in the calling thread."""
    round_()


def run_indexer(
    journals: JournalReader,
    store: StoreWriter,
    *,
    wait: Callable[[float], bool],
    report: Callable[[str], None],
    maintain: Callable[[], None] = lambda: None,
    every: float = 0.2,
    run: Callable[[Callable[[], None]], None] = run_now,
) -> None:
    """Drain the journals every `every` seconds until `wait(seconds)` returns True, then once more.

    `maintain` is part of each round, and `run` runs each round except the last one. `report` receives a message about
    each failure; while the store is unavailable, the journals keep all entries.
    """
    stopping, pause, last_damage = False, every, ""

    def one_round() -> None:
        nonlocal last_damage
        last_damage = _drain(journals, store, report, last_damage)
        maintain()

    while not stopping:
        stopping = wait(pause)
        try:
            if stopping:  # a server is waiting
                one_round()
            else:
                run(one_round)
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
