"""The history store in a PostgreSQL database, which several homes on several machines can share.

Each store object has one connection for writing and a few connections for reading. After a connection is lost, the next
call opens a new connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import msgspec
import psycopg

from rowcast.adapters.postgresql import queries
from rowcast.adapters.postgresql.database import LOCK_SECONDS, WRITE_SECONDS, Database, Readers, TimedConnection
from rowcast.adapters.postgresql.migrations import LOCKS, STORE_LOCK, schema_version
from rowcast.adapters.postgresql.partitions import Partitions, due_month, empty_partition
from rowcast.adapters.postgresql.queries import is_id, page_query, storable, where_clause
from rowcast.adapters.sql import changed_fields, decode_names, encode_names, to_entry
from rowcast.errors import Unavailable
from rowcast.history.chain import NO_ROW, Erasure, SealedEntry, decode_erasure
from rowcast.history.copied_fields import CopiedFields, copied_fields
from rowcast.history.entry_filter import EVERYTHING, Selection
from rowcast.history.ports import ErasureRequest, ErasureStep, OpenErasure, Position, StoredEntry
from rowcast.history.signing import seal_next_erasure

CHECK_SECONDS = 2
RECORD_SECONDS = 5.0
"""How long `record` waits for each response. After a failure, the next attempt waits twice as long, up to
WRITE_SECONDS. A lost connection is thus replaced soon, and a slow database can still store large batches."""
SCRUB_MILLISECONDS = 200
"""The maximum time that `scrub` waits for a lock. A longer wait would block the indexer."""
CHUNK = 200
"""The number of entries per query. It is small because each row can have up to `max_row_bytes` bytes."""


class PostgresStore:
    """Reads and writes the schema `rowcast` in one database."""

    disk_folder = None

    def __init__(self, url: str, signing_key: Callable[[], bytes] | None = None) -> None:
        self.url = url
        self._database = Database(url)
        self._signing_key = signing_key
        """A function that returns the key for signing erasures. If there is none, erasures are not signed."""
        self._connection: TimedConnection | None = None
        self._record_seconds = RECORD_SECONDS
        self._readers = Readers(self._database)
        self._partitions = Partitions()

    @property
    def location(self) -> str:
        """The URL of the database, without the user, the password and the parameters."""
        return self._database.location

    def open(self) -> None:
        """Open the connection for writing; create or migrate the schema if necessary."""
        with self._database.translated("open the history"):
            self._writer()

    def close(self) -> None:
        """Close all connections."""
        self._readers.close()
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
        """Connect, and check that the database accepts writes from this user; do not create anything."""
        with (
            self._database.translated("write to the history"),
            self._database.connect(CHECK_SECONDS, connect_timeout=CHECK_SECONDS) as connection,
        ):
            version = schema_version(connection, self.location)
            query = (
                "SELECT has_table_privilege('rowcast.entries', 'INSERT')"
                if version
                else "SELECT has_database_privilege(current_database(), 'CREATE')"
            )
            row = connection.execute(f"{query}, current_setting('transaction_read_only')").fetchone()
        allowed, read_only = row or (False, "off")
        if read_only == "on":
            raise Unavailable(f"cannot write to the history {self.location}: the database is read-only")
        if not allowed:
            raise Unavailable(f"cannot write to the history {self.location}: the user lacks the required privileges")

    @contextmanager
    def maintenance(self) -> Iterator[bool]:
        """Try to acquire an advisory lock on a separate connection; yield whether the attempt succeeded."""
        self.open()
        with self._database.translated("lock the history"):
            connection = self._database.connect()
        try:
            with self._database.translated("lock the history"):
                row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", [LOCKS, STORE_LOCK]).fetchone()
            yield bool(row and row[0])
        finally:
            connection.close()

    def position(self, writer: str) -> Position | None:
        """Return the position of this writer's last entry."""
        query = "SELECT last_seq, last_link FROM rowcast.writers WHERE writer = %s AND last_seq >= 0"
        rows = self._readers.fetch(query, [writer])
        return Position(*rows[0]) if rows else None

    def record(self, writer: str, entries: Sequence[SealedEntry]) -> None:
        """Add the entries that are not in the store yet, in one transaction."""
        if not entries:
            return
        chosen = {entry.seq: entry for entry in reversed(entries)}
        fields = {seq: copied_fields(entry.head) for seq, entry in chosen.items()}
        with self._writing() as connection, self._limited(connection):
            self._partitions.create_missing(connection, [each.id for each in fields.values()])
            with connection.transaction():
                number, last_seq = _lock_writer(connection, writer)
                existing = _existing_seqs(connection, number, min(chosen), min(max(chosen), last_seq))
                new = sorted(chosen.keys() - existing)
                with connection.cursor() as cursor, cursor.copy(queries.COPY_ENTRIES) as copy:
                    copy.set_types(queries.COLUMN_TYPES)
                    for seq in new:
                        copy.write_row(_to_columns(number, chosen[seq], fields[seq]))
                if new and new[-1] > last_seq:
                    connection.execute(
                        "UPDATE rowcast.writers SET last_seq = %s, last_link = %s WHERE number = %s",
                        [new[-1], chosen[new[-1]].link, number],
                    )

    def get(self, prediction_id: str) -> StoredEntry | None:
        """Return the entry for one prediction."""
        rows = self._readers.fetch(queries.SELECT_ENTRY, [prediction_id]) if is_id(prediction_id) else []
        return to_entry(rows[0]) if rows else None

    def latest(self, limit: int, selection: Selection = EVERYTHING, before: str | None = None) -> list[StoredEntry]:
        """Return the selected entries in descending order of id."""
        query, values = page_query(selection, before)
        return [to_entry(row) for row in self._readers.fetch(query, {**values, "limit": limit})]

    def writers(self) -> list[str]:
        """Return every writer that has entries."""
        query = "SELECT writer FROM rowcast.writers WHERE last_seq >= 0 ORDER BY writer"
        return [writer for (writer,) in self._readers.fetch(query)]

    def chain(self, writer: str, after: int = -1) -> Iterator[SealedEntry]:
        """Yield one writer's entries in order, without loading all of them into memory."""
        for row in self._walk(queries.SELECT_CHAIN, writer, after):
            yield SealedEntry(*row)

    def changed_copies(self, writer: str) -> Iterator[tuple[int, str]]:
        """Yield the `seq` and the column of each copied field that differs from the entry."""
        yield from changed_fields(self._walk(queries.SELECT_COPIES, writer), _storable_fields)

    def _walk(self, query: str, writer: str, after: int = -1) -> Iterator[tuple[Any, ...]]:
        """Read in chunks: a long query would prevent PostgreSQL from removing erased rows."""
        while rows := self._readers.fetch(query, [writer, after, CHUNK]):
            yield from rows
            after = rows[-1][0]

    def count(self) -> int:
        """Return the number of entries."""
        return sum(count for (count,) in self._readers.fetch("SELECT count(*) FROM rowcast.entries"))

    def erasures(self) -> list[SealedEntry]:
        """Return the erasure chain."""
        rows = self._readers.fetch("SELECT seq, head, link FROM rowcast.erasures ORDER BY seq")
        return [SealedEntry(seq, head, None, None, NO_ROW, linked) for seq, head, linked in rows]

    def register_folder(self, folder_id: str) -> None:
        """Register this folder, so that all open and future erasures wait for it."""
        with self._requests() as connection:
            added = connection.execute(
                "INSERT INTO rowcast.journal_folders VALUES (%s) ON CONFLICT DO NOTHING", [folder_id]
            )
            if added.rowcount:
                connection.execute(
                    "INSERT INTO rowcast.erasure_folders (number, folder) SELECT number, %s FROM rowcast.requests "
                    "ON CONFLICT DO NOTHING",
                    [folder_id],
                )

    def unregister_folder(self, folder_id: str) -> None:
        """Stop new erasures from waiting for this folder."""
        with self._requests() as connection:
            connection.execute("DELETE FROM rowcast.journal_folders WHERE folder = %s", [folder_id])

    def open_erasure(self, request: ErasureRequest, folder_id: str, journals: frozenset[str]) -> OpenErasure:
        """Store an erasure request, which stays open until every folder has completed it."""
        with self._requests() as connection:
            ((number,),) = connection.execute(
                "INSERT INTO rowcast.requests (request) VALUES (%s) RETURNING number", [msgspec.json.encode(request)]
            )
            connection.execute(
                "INSERT INTO rowcast.erasure_folders (number, folder, journals) "
                "SELECT %s, folder, NULL FROM rowcast.journal_folders WHERE folder <> %s UNION ALL SELECT %s, %s, %s",
                [number, folder_id, number, folder_id, encode_names(journals)],
            )
            folders = connection.execute(
                "SELECT folder, journals FROM rowcast.erasure_folders WHERE number = %s", [number]
            ).fetchall()
        return OpenErasure(number, request, {folder: decode_names(names) for folder, names in folders})

    def open_erasures(self) -> list[OpenErasure]:
        """Return all open erasure requests."""
        rows = self._readers.fetch(
            "SELECT number, request, folder, journals "
            "FROM rowcast.requests JOIN rowcast.erasure_folders USING (number) ORDER BY number"
        )
        erasures: dict[int, OpenErasure] = {}
        for number, request, folder, names in rows:
            decoded = msgspec.json.decode(request, type=ErasureRequest)
            erasures.setdefault(number, OpenErasure(number, decoded, {})).pending[folder] = decode_names(names)
        return list(erasures.values())

    def acknowledge(self, number: int, folder_id: str, journals: frozenset[str]) -> None:
        """Record which journals the folder contained when its indexer first saw this request."""
        with self._requests() as connection:
            connection.execute(
                "UPDATE rowcast.erasure_folders SET journals = %s WHERE number = %s AND folder = %s",
                [encode_names(journals), number, folder_id],
            )

    def complete(self, number: int, folder_id: str) -> None:
        """Record that the folder has completed its part of this request."""
        with self._requests() as connection:
            connection.execute(
                "DELETE FROM rowcast.erasure_folders WHERE number = %s AND folder = %s", [number, folder_id]
            )
            connection.execute(
                "DELETE FROM rowcast.requests AS r WHERE number = %s "
                "AND NOT EXISTS (SELECT FROM rowcast.erasure_folders AS f WHERE f.number = r.number)",
                [number],
            )

    def erase(
        self, request: ErasureRequest, *, number: int, at: int, limit: int, after: str | None = None
    ) -> ErasureStep:
        """Examine up to `limit` selected entries, and erase their rows, in one transaction."""
        where, values = where_clause(request.selection, after=after)
        query = queries.SELECT_ROWS_TO_ERASE.format(where=where)
        with self._transaction() as connection:
            connection.execute("LOCK TABLE rowcast.erasures IN EXCLUSIVE MODE")
            examined = connection.execute(query, {**values, "limit": limit}).fetchall()
            ids = [prediction_id for prediction_id, has_row in examined if has_row]
            if ids:
                _erase_rows(connection, ids)
                self._record_erasure(connection, request, number, at, len(ids))
        return ErasureStep(len(ids), examined[-1][0] if len(examined) == limit else None)

    def erase_partition(self, before: str, *, at: int) -> int | None:
        """Erase all rows in the oldest due partition; return their number, or None if no partition was replaced."""
        with self._writing() as connection:
            month = due_month(connection, before)
            if month is None:
                return None
            connection.seconds = None  # copying the heads of a large partition takes minutes
            try:
                with connection.transaction():
                    rows = empty_partition(connection, month)
                    if rows:
                        selection = Selection(first=month.first_id, end=month.next.first_id)
                        request = ErasureRequest(selection, "retention", "retention")
                        self._record_erasure(connection, request, 0, at, rows)
            except psycopg.errors.LockNotAvailable:
                return None  # a reader is using the table; the next pass of retention tries again
            finally:
                connection.seconds = WRITE_SECONDS
        return rows

    def erase_copies(self, writer: str, seqs: Sequence[int]) -> None:
        """Erase the rows of these entries without recording an erasure."""
        query = (
            "SELECT e.id FROM rowcast.entries AS e JOIN rowcast.writers AS w ON w.number = e.writer "
            "WHERE w.writer = %s AND e.seq = ANY (%s)"
        )
        with self._transaction() as connection:
            _erase_rows(connection, [each for (each,) in connection.execute(query, [writer, list(seqs)])])

    def add_erasures(self, erasures: Sequence[SealedEntry]) -> None:
        """Continue the erasure chain with these entries, and never use their request numbers again."""
        with self._transaction() as connection:
            connection.execute("LOCK TABLE rowcast.erasures IN EXCLUSIVE MODE")
            for sealed in erasures:
                connection.execute(
                    "INSERT INTO rowcast.erasures VALUES (%s, %s, %s)", [sealed.seq, sealed.head, sealed.link]
                )
            connection.execute(
                "SELECT setval(s, greatest(nextval(s), %s)) "
                "FROM pg_get_serial_sequence('rowcast.requests', 'number') AS s",
                [max((decode_erasure(sealed.head).request for sealed in erasures), default=0)],
            )

    def newest_row(self, selection: Selection) -> str | None:
        """Return the id of the newest selected entry that still has its row, or None."""
        where, values = where_clause(selection)
        rows = self._readers.fetch(queries.SELECT_NEWEST_ROW.format(where=where), values)
        return rows[0][0] if rows else None

    def erased_rows(self, number: int) -> int:
        """Return how many rows this request has erased."""
        erasures = [decode_erasure(entry.head) for entry in self.erasures()]
        return sum(erasure.rows for erasure in erasures if erasure.request == number)

    def scrub(self) -> bool:
        """Vacuum the partitions that contain erased rows; return False if an old snapshot or a lock prevents this."""
        with self._writing() as connection:
            partitions = connection.execute("SELECT partition, transaction FROM rowcast.unscrubbed").fetchall()
            if not partitions:
                return True
            row = connection.execute(queries.SELECT_BLOCKED).fetchone()
            if row and row[0]:
                return False
            try:
                connection.execute(f"SET lock_timeout = {SCRUB_MILLISECONDS}")
                connection.seconds = None  # vacuuming a large partition takes minutes
                for partition, transaction in partitions:
                    # Indexes contain no rows, and cleaning them would take much longer.
                    connection.execute(f"VACUUM (INDEX_CLEANUP OFF, TRUNCATE OFF) {partition}")
                    connection.execute(
                        "DELETE FROM rowcast.unscrubbed WHERE partition = %s AND transaction = %s",
                        [partition, transaction],
                    )
            except psycopg.errors.LockNotAvailable:
                return False
            finally:
                connection.seconds = WRITE_SECONDS
                if not connection.closed:
                    connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        return True

    def _record_erasure(
        self, connection: TimedConnection, request: ErasureRequest, number: int, at: int, rows: int
    ) -> None:
        last = connection.execute("SELECT seq, link FROM rowcast.erasures ORDER BY seq DESC LIMIT 1").fetchone()
        erasure = Erasure(at, request.by, request.reason, msgspec.json.encode(request.selection), rows, number)
        key = self._signing_key() if self._signing_key is not None else None
        sealed = seal_next_erasure(Position(*last) if last else None, erasure, key)
        connection.execute("INSERT INTO rowcast.erasures VALUES (%s, %s, %s)", [sealed.seq, sealed.head, sealed.link])

    @contextmanager
    def _requests(self) -> Iterator[TimedConnection]:
        """Commit the changes that the `with` block makes to folders and requests. Such transactions are serialized."""
        with self._transaction() as connection:
            connection.execute("LOCK TABLE rowcast.journal_folders IN EXCLUSIVE MODE")
            yield connection

    @contextmanager
    def _transaction(self) -> Iterator[TimedConnection]:
        """Commit all changes made in the `with` block, or none of them."""
        with self._writing() as connection, connection.transaction():
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[TimedConnection]:
        try:
            yield self._writer()
        except psycopg.errors.UniqueViolation:
            raise Unavailable(f"cannot write to the history {self.location}: a prediction id already exists") from None
        except psycopg.Error as error:
            if isinstance(error, psycopg.OperationalError):
                self._disconnect()
            raise self._database.unavailable("write to the history", error) from None

    @contextmanager
    def _limited(self, connection: TimedConnection) -> Iterator[None]:
        """Limit the time for each response in the `with` block to `_record_seconds`, and adapt this limit."""
        connection.seconds = self._record_seconds
        try:
            yield
            self._record_seconds = RECORD_SECONDS
        except psycopg.OperationalError:
            self._record_seconds = min(2 * self._record_seconds, WRITE_SECONDS)
            raise
        finally:
            connection.seconds = WRITE_SECONDS

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _writer(self) -> TimedConnection:
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect_writer()
        return self._connection


def _lock_writer(connection: TimedConnection, writer: str) -> tuple[int, int]:
    """Lock the writer's row, and return the writer's number and the `seq` of its last entry."""
    query = "SELECT number, last_seq FROM rowcast.writers WHERE writer = %s FOR NO KEY UPDATE"
    row = connection.execute(query, [writer]).fetchone()
    if row is None:
        connection.execute("INSERT INTO rowcast.writers (writer) VALUES (%s) ON CONFLICT DO NOTHING", [writer])
        row = connection.execute(query, [writer]).fetchone()
        assert row is not None
    return row[0], row[1]


def _existing_seqs(connection: TimedConnection, number: int, first: int, last: int) -> set[int]:
    """Return which of a writer's entries from `first` to `last` are in the store. Normally, the range contains no
    entries.
    """
    if last < first:
        return set()
    query = "SELECT seq FROM rowcast.entries WHERE writer = %s AND seq BETWEEN %s AND %s"
    return {seq for (seq,) in connection.execute(query, [number, first, last])}


def _erase_rows(connection: TimedConnection, ids: Sequence[str]) -> None:
    """Erase the rows of these entries, and record which partitions must be vacuumed."""
    erased = connection.execute(
        'UPDATE rowcast.entries SET "row" = NULL, salt = NULL WHERE id = ANY (%s::uuid[]) '
        "RETURNING tableoid::regclass::text",
        [ids],
    )
    connection.execute(
        "INSERT INTO rowcast.unscrubbed SELECT unnest(%s::text[]), pg_current_xact_id() "
        "ON CONFLICT (partition) DO UPDATE SET transaction = excluded.transaction",
        [sorted({partition for (partition,) in erased})],
    )


def _storable_fields(fields: CopiedFields) -> CopiedFields:
    """Return the fields as the table stores them. Only labels can contain characters that PostgreSQL cannot store."""
    return fields._replace(label=storable(fields.label))


def _to_columns(number: int, entry: SealedEntry, fields: CopiedFields) -> tuple[Any, ...]:
    prediction_id, *others = _storable_fields(fields)
    evidence = entry.head, entry.salt, entry.row, entry.row_hash, entry.link
    return number, entry.seq, UUID(str(prediction_id)), *others, *evidence
