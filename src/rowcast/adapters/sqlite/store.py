"""History in one SQLite file: one process writes (the indexer), any number read beside it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from rowcast.errors import HistoryError, Unavailable
from rowcast.history.chain import NO_ROW, Erasure, Sealed, decode_erasure, decode_head, sealed_erasure
from rowcast.history.entry_filter import EVERYTHING, Selection
from rowcast.history.ports import ErasureRequest, OpenRequest, Position, Step, Stored
from rowcast.schema.prediction import Label, searchable_label

MIGRATIONS = ("0001_history.sql", "0002_erasures.sql")
BUSY_SECONDS = 30
ERASURES_SINCE = 2
"""The schema that first records erasures."""
CONDITIONS = {
    "tenant": "e.tenant = :tenant",
    "model": "e.model = :model",
    "version": "e.version = :version",
    "label": "e.label = :label",
    "entity": "e.entity = :entity",
    "first": "e.id >= :first",
    "end": "e.id < :end",
    "ids": "e.id IN (SELECT value FROM json_each(:ids))",
    "models": "e.model IN (SELECT value FROM json_each(:models))",
    "before": "e.id < :before",
    "after": "e.id > :after",
    "mark": "e.rowid > :mark",
}
COLUMNS = "w.writer, e.seq, e.head, e.salt, e.row, e.row_hash, e.link"
ENTRIES = "entries AS e JOIN writers AS w ON w.number = e.writer"


class Copied(msgspec.Struct, gc=False):
    """What is copied out of a reply into columns of its own."""

    id: str
    model: str
    version: int
    prediction: Label
    probability: float | msgspec.UnsetType = msgspec.UNSET


_copied = msgspec.json.Decoder(Copied).decode


def statement(name: str) -> str:
    """The text of one statement in `sql/`."""
    return (resources.files("rowcast.adapters.sqlite") / "sql" / name).read_text()


class SqliteStore:
    """Reader and writer of one history file. Each call that reads opens a connection of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing: sqlite3.Connection | None = None
        self._numbers: dict[str, int] = {}
        self._insert = statement("insert.sql")

    def position(self, writer: str) -> Position | None:
        """The last entry stored of this writer."""
        with self._reading() as connection:
            found = connection.execute(
                "SELECT e.seq, e.link FROM entries AS e JOIN writers AS w ON w.number = e.writer "
                "WHERE w.writer = ? ORDER BY e.seq DESC LIMIT 1",
                [writer],
            ).fetchone()
        return Position(*found) if found else None

    def record(self, writer: str, entries: Sequence[Sealed]) -> None:
        """Keep entries in one transaction; those already kept are left alone."""
        with self._changing() as connection:
            number = self._numbers.get(writer) or self._number(connection, writer)
            connection.executemany(self._insert, (_row(number, entry) for entry in entries))
        self._numbers[writer] = number

    def get(self, prediction_id: str) -> Stored | None:
        """The entry of one prediction."""
        with self._reading() as connection:
            found = connection.execute(statement("get.sql"), [prediction_id]).fetchone()
        return _stored(found) if found else None

    def latest(self, limit: int, wanted: Selection = EVERYTHING, before: str | None = None) -> list[Stored]:
        """Newest first; `before` is the id of the last entry of the page before."""
        query, values = page_query(wanted, before)
        with self._reading() as connection:
            rows = connection.execute(query, {**values, "limit": limit}).fetchall()
        return [_stored(row) for row in rows]

    def erasures(self) -> list[Sealed]:
        """The chain of erasures."""
        with self._reading() as connection:
            if schema_version(connection, self.path) < ERASURES_SINCE:
                return []
            return [_sealed_erasure(*row) for row in connection.execute("SELECT * FROM erasures ORDER BY seq")]

    def writers(self) -> list[str]:
        """Every writer that has entries."""
        with self._reading() as connection:
            return [row[0] for row in connection.execute("SELECT writer FROM writers ORDER BY writer")]

    def chain(self, writer: str, after: int = -1) -> Iterator[Sealed]:
        """One writer's entries in order of `seq`, those after `after`, read as they are asked for."""
        with self._reading() as connection:
            for row in connection.execute(statement("chain.sql"), [writer, after]):
                yield Sealed(*row)

    def count(self) -> int:
        """How many entries are stored."""
        with self._reading() as connection:
            return int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])

    def erase(self, asked: OpenRequest, at: int, most: int, after: str | None = None, *, fresh: bool = False) -> Step:
        """Look at `most` entries, erase their rows and record that, in one transaction."""
        where, values = _where(asked.request.wanted, after=after, mark=asked.mark if fresh else None)
        # The few entries that came since are found by their place in the table.
        source = "entries AS e NOT INDEXED" if fresh else "entries AS e"
        query = f"SELECT e.rowid, e.id, e.row IS NOT NULL FROM {source} WHERE {where} ORDER BY e.id LIMIT :most"  # noqa: S608 - fixed texts
        with self._changing() as connection:
            seen = connection.execute(query, {**values, "most": most}).fetchall()
            numbers = [(number,) for number, _, has_row in seen if has_row]
            connection.executemany("UPDATE entries SET row = NULL, salt = NULL WHERE rowid = ?", numbers)
            if numbers:
                self._record_erasure(connection, asked, at, len(numbers))
        return Step(len(numbers), seen[-1][1] if len(seen) == most else None)

    def erased(self, number: int) -> int:
        """How many rows a request erased so far."""
        found = [decode_erasure(sealed.head) for sealed in self.erasures()]
        return sum(erasure.rows for erasure in found if erasure.request == number)

    def _record_erasure(self, connection: sqlite3.Connection, asked: OpenRequest, at: int, rows: int) -> None:
        request = asked.request
        last = connection.execute("SELECT seq, link FROM erasures ORDER BY seq DESC LIMIT 1").fetchone()
        erasure = Erasure(at, request.by, request.reason, msgspec.json.encode(request.wanted), rows, asked.number)
        sealed = sealed_erasure(last[0] + 1 if last else 0, last[1] if last else None, erasure)
        connection.execute("INSERT INTO erasures VALUES (?, ?, ?)", [sealed.seq, sealed.head, sealed.link])

    def ask(self, request: ErasureRequest) -> OpenRequest:
        """Remember a request until it is settled."""
        with self._changing() as connection:
            mark = int(connection.execute("SELECT coalesce(max(rowid), 0) FROM entries").fetchone()[0])
            added = connection.execute(
                "INSERT INTO requests (mark, request) VALUES (?, ?)", [mark, msgspec.json.encode(request)]
            )
            return OpenRequest(added.lastrowid or 0, mark, request)

    def asked(self) -> list[OpenRequest]:
        """Requests that are open."""
        try:
            found = self._writer().execute("SELECT number, mark, request FROM requests ORDER BY number").fetchall()
        except sqlite3.Error as error:
            raise self._unwritable(error) from None
        return [
            OpenRequest(number, mark, msgspec.json.decode(text, type=ErasureRequest)) for number, mark, text in found
        ]

    def settle(self, numbers: Sequence[int]) -> bool:
        """Forget requests; then empty the write-ahead log, which holds pages as they were before rows were erased."""
        with self._changing() as connection:
            connection.executemany("DELETE FROM requests WHERE number = ?", [(number,) for number in numbers])
        connection = self._writer()
        try:
            connection.execute(
                "PRAGMA busy_timeout = 200"
            )  # who reads for minutes is not waited for: the caller asks again
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        except sqlite3.Error as error:
            raise self._unwritable(error) from None
        return not busy

    def check(self) -> None:
        """Unavailable when an entry could not be written now."""
        try:
            connection = self._writer()
            connection.execute("PRAGMA busy_timeout = 2000")  # who asks for health does not wait for half a minute
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        except sqlite3.Error as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Close the writing connection."""
        if self._writing is not None:
            self._writing.close()
            self._writing = None

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, kept whole or not at all."""
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
        return Unavailable(f"the history {self.path} cannot be written: {error}")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(self._reader()) as connection:
                yield connection
        except sqlite3.Error as error:
            raise Unavailable(f"the history {self.path} cannot be read: {error}") from None

    def _reader(self) -> sqlite3.Connection:
        """A connection that cannot write; to an empty history while there is none on disk yet."""
        if self.path.exists():
            connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
            if schema_version(connection, self.path) > 0:
                return connection
            connection.close()
        connection = sqlite3.connect(":memory:", isolation_level=None)
        migrate(connection, self.path)
        return connection

    def _writer(self) -> sqlite3.Connection:
        if self._writing is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with _alone(self.path.parent):
                    connection = self._opened()
            except (sqlite3.Error, OSError) as error:
                raise Unavailable(f"the history {self.path} cannot be opened: {error}") from None
            self._writing = connection
        return self._writing

    def _opened(self) -> sqlite3.Connection:
        if not self.path.exists():
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))  # it holds what people sent
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        # A journal is deleted once it is stored, so what is stored must be on the disk.
        connection.execute("PRAGMA synchronous = FULL")
        # Bytes that are freed are overwritten, whenever a page is rebuilt: else erased rows could stay in the file.
        connection.execute("PRAGMA secure_delete = ON")
        migrate(connection, self.path)
        return connection

    def _number(self, connection: sqlite3.Connection, writer: str) -> int:
        connection.execute("INSERT INTO writers (writer) VALUES (?) ON CONFLICT DO NOTHING", [writer])
        return int(connection.execute("SELECT number FROM writers WHERE writer = ?", [writer]).fetchone()[0])


def page_query(wanted: Selection, before: str | None = None) -> tuple[str, dict[str, Any]]:
    """The query of one page and its values. Built from what is asked: one query for all cases would use no index."""
    where, values = _where(wanted, before=before)
    return f"SELECT {COLUMNS} FROM {ENTRIES} WHERE {where} ORDER BY e.id DESC LIMIT :limit", values  # noqa: S608 - fixed texts


def _where(wanted: Selection, **more: Any) -> tuple[str, dict[str, Any]]:
    values = {name: value for name, value in {**msgspec.structs.asdict(wanted), **more}.items() if value is not None}
    for name in ("ids", "models"):
        if not (several := values.pop(name)):
            continue
        values[name] = msgspec.json.encode(several).decode()
    conditions = [CONDITIONS[name] for name in values]
    # Said in words, so that the indexes that leave empty texts out may be used.
    conditions += [f"e.{name} <> ''" for name in ("tenant", "label", "entity") if values.get(name)]
    return " AND ".join(conditions or ["TRUE"]), values


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process opens a history in this folder meanwhile: who turns a new file to WAL waits for nobody, and
    nobody waits for him."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def schema_version(connection: sqlite3.Connection, path: Path) -> int:
    """How many migrations the file has seen; HistoryError when it has seen more than this version knows."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        connection.close()
        raise HistoryError(
            f"{path} was written by a newer Rowcast (schema {version}); this one knows {len(MIGRATIONS)}"
        )
    return version


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file up to this version, all steps in one transaction; refuse a newer one.

    A migration only adds. What it replaces is dropped by a migration of the release after: docs/reference/history.md.
    """
    connection.execute("BEGIN IMMEDIATE")  # two processes may open a new file at once: the second finds it done
    for name in MIGRATIONS[schema_version(connection, path) :]:
        for part in statement(name).split(";\n"):
            connection.execute(part)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.execute("COMMIT")


def _row(number: int, entry: Sealed) -> tuple[Any, ...]:
    head = decode_head(entry.head)
    copied = _copied(head.reply)
    return (
        number,
        entry.seq,
        copied.id,
        copied.model,
        copied.version,
        searchable_label(copied.prediction, copied.probability),
        head.tenant,
        head.entity,
        entry.head,
        entry.salt,
        entry.row,
        entry.row_hash,
        entry.link,
    )


def _sealed_erasure(seq: int, head: bytes, linked: bytes) -> Sealed:
    return Sealed(seq, head, None, None, NO_ROW, linked)


def _stored(row: Sequence[Any]) -> Stored:
    return Stored(row[0], Sealed(*row[1:]))
