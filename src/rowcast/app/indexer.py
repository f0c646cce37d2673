"""History: its store, its journals, who moves and who erases."""

from __future__ import annotations

import getpass
import socket
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rowcast.errors import HistoryError, SettingsError

if TYPE_CHECKING:
    from rowcast.adapters.sqlite.store import SqliteStore
    from rowcast.history.entry_filter import Selection
    from rowcast.history.erasure import Erased
    from rowcast.history.service import History
    from rowcast.settings import Settings


def store(settings: Settings) -> SqliteStore:
    """History's store, by its URL's scheme."""
    from rowcast.adapters.sqlite.store import SqliteStore

    scheme, separator, path = settings.store_url.partition(":///")
    if scheme != "sqlite" or not separator or not path:
        raise SettingsError(f"setting 'store' is {settings.store_url!r}: it must be sqlite:///PATH")
    return SqliteStore(Path(path))


def store_folder(settings: Settings) -> Path:
    """The folder whose disk the store fills."""
    return store(settings).path.absolute().parent


def history(settings: Settings) -> History:
    """What was answered: the store, and the journals beside it."""
    from rowcast.adapters.files.journal import FolderSpool
    from rowcast.history.service import History

    return History(store(settings), FolderSpool(settings.journal_folder))


def newest_moment(settings: Settings) -> int | None:
    """When the newest entry of the store was made, in UTC microseconds."""
    from rowcast.history.chain import decode_head

    found = store(settings).latest(1)
    return decode_head(found[0].sealed.head).at if found else None


def indexer_command() -> list[str]:
    """How a server starts its indexer."""
    return [sys.executable, "-m", "rowcast.cli", "indexer"]


def index_history(settings: Settings, wait: Callable[[float], bool], report: Callable[[str], None]) -> bool:
    """Be the indexer of this history until `wait` ends it; False when another process is."""
    from rowcast.adapters.files.journal import FolderSpool, indexer_lock
    from rowcast.history.erasure import Caretaker
    from rowcast.history.service import index

    with indexer_lock(settings.journal_folder) as ours:
        if ours:
            kept, spool = store(settings), FolderSpool(settings.journal_folder)
            caretaker = Caretaker(kept, spool, _microseconds, settings.retention_days)
            # Answers that wait for the store wait for a whole round.
            every = 0.01 if settings.durability == "store" else 0.2
            index(spool, kept, wait, report, caretaker.turn, every)
            kept.close()
        return ours


def indexer_is_running(settings: Settings) -> bool:
    """Whether some process moves this journal folder into the store."""
    from rowcast.adapters.files.journal import indexer_lock

    with indexer_lock(settings.journal_folder) as free:
        return not free


def erase_history(settings: Settings, wanted: Selection, reason: str, wait: Callable[[], bool]) -> Erased:
    """Erase rows; while `wait` says so, wait for what still lies in journals."""
    from rowcast.adapters.files.journal import FolderSpool, indexer_lock
    from rowcast.history.erasure import Eraser

    spool = FolderSpool(settings.journal_folder)
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    with closing(store(settings)) as kept:
        eraser = Eraser(kept, spool, _microseconds)
        erased = eraser.erase(wanted, by, reason)
        while not eraser.is_done(erased.request) and wait():
            with indexer_lock(settings.journal_folder) as ours:
                if ours:  # no server runs
                    with suppress(HistoryError):  # damage is the business of verify
                        spool.drain(kept)
                    eraser.go_on()
        return eraser.result(erased.request)


def _microseconds() -> int:
    return time.time_ns() // 1000
