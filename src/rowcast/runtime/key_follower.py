"""Keeps a current copy of API keys that are stored on another machine, so that requests never wait for that machine."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import structlog

from rowcast.access.keys import Key
from rowcast.access.ports import KeyReader, KeyWriter
from rowcast.errors import RowcastError, Unavailable

POLL_SECONDS = 0.25

log = structlog.get_logger("rowcast.runtime")


class KeyFollower:
    """Polls the keys in a thread; `all` and `revision` return the last known state immediately.

    While the keys are unavailable, the last known keys stay valid. `copy` stores the keys on this machine, so that a
    server can start even then.
    """

    def __init__(self, keys: KeyReader, copy: KeyWriter) -> None:
        self._keys = keys
        self._copy = copy
        self._known: tuple[object, Sequence[Key]] = (None, ())
        self._failed = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="keys", daemon=True)

    def open(self) -> None:
        """Read the keys, or their copy, and start to poll for changes; raise Unavailable if neither can be read."""
        try:
            self._read()
        except Unavailable as error:
            if self._copy.revision() is None:
                raise
            self._known = (None, self._copy.all())
            self._report(error)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._ended.set()

    def all(self) -> Sequence[Key]:
        """Return the last known keys."""
        return self._known[1]

    def revision(self) -> object:
        """Return the revision of the last known keys."""
        return self._known[0]

    def _follow(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            try:
                if self._keys.revision() != self._known[0]:
                    self._read()
                self._failed = False
            except RowcastError as error:
                self._report(error)

    def _read(self) -> None:
        revision = self._keys.revision()  # read before the keys, so that no change is missed
        keys = self._keys.all()
        if self._copy.revision() is None or tuple(self._copy.all()) != tuple(keys):
            self._copy.change(lambda _: keys)
        self._known = (revision, keys)

    def _report(self, error: RowcastError) -> None:
        """Log the first failure of an outage."""
        if not self._failed:
            self._failed = True
            log.warning("cannot read the API keys; the last known keys stay valid", reason=error.message)
