"""History in one SQLite file: one process writes (the indexer), any number read beside it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from rowcast.domain.chain import Sealed, decode_head
from rowcast.domain.prediction import Label, label_text
from rowcast.errors import HistoryError, Unavailable
from rowcast.ports import Position, Stored

MIGRATIONS = ("0001_history.sql",)


class Copied(msgspec.Struct, gc=False):
    """What is copied out of a reply into columns of its own."""

    id: str
    model: str
    version: int
    prediction: Label


_copied = msgspec.json.Decoder(Copied).decode


def statement(name: str) -> str:
    """The text of one statement in `sql/`."""
    return (resources.files("rowcast.adapters") / "sql" / name).read_text()


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
        connection = self._writer()
        try:
            connection.execute("BEGIN IMMEDIATE")
            number = self._numbers.get(writer) or self._number(connection, writer)
            connection.executemany(self._insert, (_row(number, entry) for entry in entries))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise Unavailable(f"the history {self.path} cannot be written: {error}") from None
        self._numbers[writer] = number

    def get(self, prediction_id: str) -> Stored | None:
        """The entry of one prediction."""
        with self._reading() as connection:
            found = connection.execute(statement("get.sql"), [prediction_id]).fetchone()
        return _stored(found) if found else None

    def latest(self, limit: int, before: str | None = None, model: str | None = None) -> list[Stored]:
        """Newest first; `before` is the id of the last entry of the page before."""
        with self._reading() as connection:
            rows = connection.execute(
                statement("latest.sql"), {"limit": limit, "before": before, "model": model}
            ).fetchall()
        return [_stored(row) for row in rows]

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

    def check(self) -> None:
        """Unavailable when an entry could not be written now."""
        try:
            connection = self._writer()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise Unavailable(f"the history {self.path} cannot be written: {error}") from None

    def close(self) -> None:
        """Close the writing connection."""
        if self._writing is not None:
            self._writing.close()
            self._writing = None

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
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))  # it holds what people sent
                connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
                connection.execute("PRAGMA journal_mode = WAL")
                # A journal is deleted once it is stored, so what is stored must be on the disk.
                connection.execute("PRAGMA synchronous = FULL")
                migrate(connection, self.path)
            except (sqlite3.Error, OSError) as error:
                raise Unavailable(f"the history {self.path} cannot be opened: {error}") from None
            self._writing = connection
        return self._writing

    def _number(self, connection: sqlite3.Connection, writer: str) -> int:
        connection.execute("INSERT INTO writers (writer) VALUES (?) ON CONFLICT DO NOTHING", [writer])
        return int(connection.execute("SELECT number FROM writers WHERE writer = ?", [writer]).fetchone()[0])


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
    """Bring the file up to this version, all steps in one transaction; refuse a newer one."""
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
        label_text(copied.prediction),
        head.tenant,
        head.entity,
        entry.head,
        entry.salt,
        entry.row,
        entry.row_hash,
        entry.link,
    )


def _stored(row: Sequence[Any]) -> Stored:
    return Stored(row[0], Sealed(*row[1:]))
