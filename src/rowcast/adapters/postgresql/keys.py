"""API keys in a PostgreSQL database. All servers that use this store accept the keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import msgspec

from rowcast.access.keys import Key
from rowcast.adapters.postgresql.database import Database, Readers
from rowcast.errors import SettingsError

SELECT_KEYS = "SELECT content FROM rowcast.api_keys ORDER BY number"


class PostgresKeys:
    """Reads and changes the keys. A server calls `revision` in a thread, because each call is a query."""

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self._readers = Readers(self._database, "read the API keys in")

    def all(self) -> Sequence[Key]:
        """Return all keys, in the order of their creation."""
        return self._decode(self._readers.fetch(SELECT_KEYS))

    def revision(self) -> object:
        """Return the number of changes so far, or 0 if the store does not exist yet."""
        rows = self._readers.fetch("SELECT revision FROM rowcast.key_revision")
        return rows[0][0] if rows else 0

    def change(self, edit: Callable[[Sequence[Key]], Sequence[Key]]) -> None:
        """Replace all keys in one transaction, which locks the revision, so that changes are serialized."""
        with (
            self._database.translated("change the API keys in"),
            closing(self._database.connect_writer()) as connection,
            connection.transaction(),
            connection.cursor() as cursor,
        ):
            cursor.execute("UPDATE rowcast.key_revision SET revision = revision + 1")
            keys = edit(self._decode(cursor.execute(SELECT_KEYS).fetchall()))
            cursor.execute("DELETE FROM rowcast.api_keys")
            cursor.executemany(
                "INSERT INTO rowcast.api_keys (number, content) VALUES (%s, %s)",
                [(number, msgspec.json.encode(key)) for number, key in enumerate(keys)],
            )

    def _decode(self, rows: Sequence[tuple[Any, ...]]) -> Sequence[Key]:
        try:
            return tuple(msgspec.json.decode(content, type=Key) for (content,) in rows)
        except msgspec.MsgspecError as error:
            raise SettingsError(f"cannot read the API keys in {self._database.location}: {error}") from None
