"""The history store in one SQLite file.

Any number of indexers can write to it, and any number of processes can read it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from rowcast.adapters.sql import changed_fields, decode_names, encode_names, to_entry
from rowcast.adapters.sqlite.migrations import migrate, read_statement, schema_version
from rowcast.adapters.sqlite.queries import SELECT_NEWEST_ROW, SELECT_ROWS_TO_ERASE, page_query, where_clause
from rowcast.errors import Unavailable
from rowcast.history.chain import NO_ROW, Erasure, SealedEntry, decode_erasure
from rowcast.history.copied_fields import copied_fields
from rowcast.history.entry_filter import EVERYTHING, Selection
from rowcast.history.ports import ErasureRequest, ErasureStep, OpenErasure, Position, StoredEntry
from rowcast.history.signing import seal_next_erasure
from rowcast.private_files import acquire_lock, make_private_folder

BUSY_SECONDS = 30
CHECK_SECONDS = 2
SCRUB_MILLISECONDS = 200
"""The maximum time that `scrub` waits for readers. A slow reader must not block the indexer."""
ERASURES_VERSION = 2
"""The schema version that introduced the erasure chain."""


class SqliteStore:
    """Reads and writes one history file. Each read opens its own connection; all writes share one connection."""

    def __init__(self, path: Path, signing_key: Callable[[], bytes] | None = None) -> None:
        self.path = path
        self._signing_key = signing_key
        """A function that returns the key for signing erasures. If there is none, erasures are not signed."""
        self._connection: sqlite3.Connection | None = None
        self._writer_numbers: dict[str, int] = {}
        self._insert = read_statement("insert.sql")

    @property
    def disk_folder(self) -> Path:
        """The folder that contains the file."""
        return self.path.absolute().parent

    def open(self) -> None:
        """Open the connection for writing; create or migrate the file if necessary."""
        self._writer()

    def close(self) -> None:
        """Close the connection for writing."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def check(self) -> None:
        """Acquire the write lock briefly; do not create the file if it does not exist yet."""
        if not self.path.exists():
            return
        uri = f"{self.path.absolute().as_uri()}?mode=rw"
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=CHECK_SECONDS, isolation_level=None)) as connection:
                schema_version(connection, str(self.path))
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise self._unwritable(error) from None

    @contextmanager
    def maintenance(self) -> Iterator[bool]:
        """Try to lock the file's folder; yield whether the attempt succeeded."""
        self.open()
        descriptor = os.open(self.disk_folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def position(self, writer: str) -> Position | None:
        """Return the position of this writer's last entry."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT e.seq, e.link FROM entries AS e JOIN writers AS w ON w.number = e.writer "
                "WHERE w.writer = ? ORDER BY e.seq DESC LIMIT 1",
                [writer],
            ).fetchone()
        return Position(*row) if row else None

    def record(self, writer: str, entries: Sequence[SealedEntry]) -> None:
        """Add the entries that are not in the store yet, in one transaction."""
        with self._transaction() as connection:
            number = self._writer_numbers.get(writer) or self._add_writer(connection, writer)
            connection.executemany(self._insert, (_to_columns(number, entry) for entry in entries))
        self._writer_numbers[writer] = number

    def get(self, prediction_id: str) -> StoredEntry | None:
        """Return the entry for one prediction."""
        with self._reading() as connection:
            row = connection.execute(read_statement("get.sql"), [prediction_id]).fetchone()
        return to_entry(row) if row else None

    def latest(self, limit: int, selection: Selection = EVERYTHING, before: str | None = None) -> list[StoredEntry]:
        """Return the selected entries in descending order of id."""
        query, values = page_query(selection, before)
        with self._reading() as connection:
            rows = connection.execute(query, {**values, "limit": limit}).fetchall()
        return [to_entry(row) for row in rows]

    def writers(self) -> list[str]:
        """Return every writer that has entries."""
        with self._reading() as connection:
            return [row[0] for row in connection.execute("SELECT writer FROM writers ORDER BY writer")]

    def chain(self, writer: str, after: int = -1) -> Iterator[SealedEntry]:
        """Yield one writer's entries in order, without loading all of them into memory."""
        with self._reading() as connection:
            for row in connection.execute(read_statement("chain.sql"), [writer, after]):
                yield SealedEntry(*row)

    def changed_copies(self, writer: str) -> Iterator[tuple[int, str]]:
        """Yield the `seq` and the column of each copied field that differs from the entry."""
        with self._reading() as connection:
            yield from changed_fields(connection.execute(read_statement("copies.sql"), [writer]))

    def count(self) -> int:
        """Return the number of entries."""
        with self._reading() as connection:
            return int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])

    def erasures(self) -> list[SealedEntry]:
        """Return the erasure chain."""
        with self._reading() as connection:
            if schema_version(connection, str(self.path)) < ERASURES_VERSION:
                return []
            rows = connection.execute("SELECT seq, head, link FROM erasures ORDER BY seq").fetchall()
        return [SealedEntry(seq, head, None, None, NO_ROW, linked) for seq, head, linked in rows]

    def register_folder(self, folder_id: str) -> None:
        """Register this folder, so that all open and future erasures wait for it."""
        with self._transaction() as connection:
            added = connection.execute("INSERT INTO journal_folders VALUES (?) ON CONFLICT DO NOTHING", [folder_id])
            if added.rowcount:
                connection.execute(
                    "INSERT INTO erasure_folders (number, folder) SELECT number, ? FROM requests WHERE true "
                    "ON CONFLICT DO NOTHING",
                    [folder_id],
                )

    def unregister_folder(self, folder_id: str) -> None:
        """Stop new erasures from waiting for this folder."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM journal_folders WHERE folder = ?", [folder_id])

    def open_erasure(self, request: ErasureRequest, folder_id: str, journals: frozenset[str]) -> OpenErasure:
        """Store an erasure request, which stays open until every folder has completed it."""
        with self._transaction() as connection:
            connection.execute("INSERT INTO requests (mark, request) VALUES (0, ?)", [msgspec.json.encode(request)])
            number = connection.execute("SELECT last_insert_rowid()").fetchone()[0]
            connection.execute(
                "INSERT INTO erasure_folders (number, folder) SELECT ?, folder FROM journal_folders", [number]
            )
            connection.execute(
                "INSERT OR REPLACE INTO erasure_folders VALUES (?, ?, ?)", [number, folder_id, encode_names(journals)]
            )
            pending = connection.execute("SELECT folder, journals FROM erasure_folders WHERE number = ?", [number])
            return OpenErasure(number, request, {folder: decode_names(names) for folder, names in pending})

    def open_erasures(self) -> list[OpenErasure]:
        """Return all open erasure requests."""
        try:
            connection = self._writer()
            requests = connection.execute("SELECT number, request FROM requests ORDER BY number").fetchall()
            folders = connection.execute("SELECT number, folder, journals FROM erasure_folders").fetchall()
        except sqlite3.Error as error:
            raise self._unwritable(error) from None
        return [
            OpenErasure(
                number,
                msgspec.json.decode(content, type=ErasureRequest),
                {folder: decode_names(names) for owner, folder, names in folders if owner == number},
            )
            for number, content in requests
        ]

    def acknowledge(self, number: int, folder_id: str, journals: frozenset[str]) -> None:
        """Record which journals the folder contained when its indexer first saw this request."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE erasure_folders SET journals = ? WHERE number = ? AND folder = ?",
                [encode_names(journals), number, folder_id],
            )

    def complete(self, number: int, folder_id: str) -> None:
        """Record that the folder has completed its part of this request."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM erasure_folders WHERE number = ? AND folder = ?", [number, folder_id])
            connection.execute(
                "DELETE FROM requests WHERE number = ? "
                "AND NOT EXISTS (SELECT 1 FROM erasure_folders AS f WHERE f.number = requests.number)",
                [number],
            )

    def erase(
        self, request: ErasureRequest, *, number: int, at: int, limit: int, after: str | None = None
    ) -> ErasureStep:
        """Examine up to `limit` selected entries, and erase their rows, in one transaction."""
        where, values = where_clause(request.selection, after=after)
        query = SELECT_ROWS_TO_ERASE.format(where=where)
        with self._transaction() as connection:
            examined = connection.execute(query, {**values, "limit": limit}).fetchall()
            places = [(writer, seq) for writer, seq, _, has_row in examined if has_row]
            connection.executemany("UPDATE entries SET row = NULL, salt = NULL WHERE writer = ? AND seq = ?", places)
            if places:
                self._record_erasure(connection, request, number, at, len(places))
        return ErasureStep(len(places), examined[-1][2] if len(examined) == limit else None)

    def erase_partition(self, before: str, *, at: int) -> int | None:
        """Return None: this store has no partitions."""

    def newest_row(self, selection: Selection) -> str | None:
        """Return the id of the newest selected entry that still has its row, or None."""
        where, values = where_clause(selection)
        with self._reading() as connection:
            found = connection.execute(SELECT_NEWEST_ROW.format(where=where), values).fetchone()
        return found[0] if found else None

    def erased_rows(self, number: int) -> int:
        """Return how many rows this request has erased."""
        erasures = [decode_erasure(entry.head) for entry in self.erasures()]
        return sum(erasure.rows for erasure in erasures if erasure.request == number)

    def scrub(self) -> bool:
        """Empty the write-ahead log, which can still contain erased rows; return whether it is empty."""
        try:
            connection = self._writer()
            connection.execute(f"PRAGMA busy_timeout = {SCRUB_MILLISECONDS}")
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        except sqlite3.Error as error:
            raise self._unwritable(error) from None
        return not busy

    def _record_erasure(
        self, connection: sqlite3.Connection, request: ErasureRequest, number: int, at: int, rows: int
    ) -> None:
        last = connection.execute("SELECT seq, link FROM erasures ORDER BY seq DESC LIMIT 1").fetchone()
        erasure = Erasure(at, request.by, request.reason, msgspec.json.encode(request.selection), rows, number)
        key = self._signing_key() if self._signing_key is not None else None
        sealed = seal_next_erasure(Position(*last) if last else None, erasure, key)
        connection.execute("INSERT INTO erasures VALUES (?, ?, ?)", [sealed.seq, sealed.head, sealed.link])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit all changes made in the `with` block, or none of them."""
        connection = self._writer()
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unwritable(error) from None
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _unwritable(self, error: sqlite3.Error) -> Unavailable:
        return Unavailable(f"cannot write to the history {self.path}: {error}")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(self._reader()) as connection:
                yield connection
        except sqlite3.Error as error:
            raise Unavailable(f"cannot read the history {self.path}: {error}") from None

    def _reader(self) -> sqlite3.Connection:
        """Return a read-only connection, or a connection to an empty history if the file has no schema yet."""
        if self.path.exists():
            connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)
            if schema_version(connection, str(self.path)) > 0:
                return connection
            connection.close()
        connection = sqlite3.connect(":memory:", isolation_level=None)
        migrate(connection, str(self.path))
        return connection

    def _writer(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                make_private_folder(self.path.parent)
                with _folder_lock(self.path.parent):
                    connection = self._connect()
            except (sqlite3.Error, OSError) as error:
                raise Unavailable(f"cannot open the history {self.path}: {error}") from None
            self._connection = connection
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        if not self.path.exists():
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))  # the file will contain personal data
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL, because entries must be on disk before their journal is deleted.
        connection.execute("PRAGMA synchronous = FULL")
        # Overwrite freed bytes; otherwise erased rows could remain in the file.
        connection.execute("PRAGMA secure_delete = ON")
        migrate(connection, str(self.path))
        return connection

    def _add_writer(self, connection: sqlite3.Connection, writer: str) -> int:
        connection.execute("INSERT INTO writers (writer) VALUES (?) ON CONFLICT DO NOTHING", [writer])
        return int(connection.execute("SELECT number FROM writers WHERE writer = ?", [writer]).fetchone()[0])


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Lock the folder, because several processes cannot switch a new file to WAL mode at the same time."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        acquire_lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _to_columns(writer_number: int, entry: SealedEntry) -> tuple[Any, ...]:
    return (
        writer_number,
        entry.seq,
        *copied_fields(entry.head),
        entry.head,
        entry.salt,
        entry.row,
        entry.row_hash,
        entry.link,
    )
