"""Stores jobs in a separate SQLite file, which all processes with the same home share.

The column `job` contains the whole job. The other columns copy values from it for queries.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from rowcast.adapters.job_encoding import decode_chunk, decode_job, encode
from rowcast.errors import NotFound, Overloaded, RepeatConflict, Unavailable
from rowcast.jobs.job import SECOND, ChunkRecord, Job, claimed, is_claimable
from rowcast.jobs.ports import JobEdit, VisibleJobs
from rowcast.jobs.rules import OTHER_JOB, too_many, unknown_job
from rowcast.private_files import make_private_folder

VERSION = 1
CREATE = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, place TEXT NOT NULL, tenant TEXT NOT NULL, key_id TEXT NOT NULL, model TEXT NOT NULL,
    repeat_key TEXT UNIQUE, is_open INTEGER NOT NULL, remove_at INTEGER NOT NULL, job BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs_open ON jobs (place, id) WHERE is_open = 1;
CREATE INDEX IF NOT EXISTS jobs_ended ON jobs (place, remove_at) WHERE is_open = 0;
CREATE INDEX IF NOT EXISTS jobs_tenant ON jobs (tenant, id);
CREATE TABLE IF NOT EXISTS chunks (
    job TEXT NOT NULL, number INTEGER NOT NULL, chunk BLOB NOT NULL, PRIMARY KEY (job, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS workers (worker TEXT PRIMARY KEY, place TEXT NOT NULL, seen INTEGER NOT NULL) WITHOUT ROWID
"""
SAVE = """INSERT INTO jobs (id, place, tenant, key_id, model, repeat_key, is_open, remove_at, job)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET is_open = excluded.is_open, remove_at = excluded.remove_at, job = excluded.job"""


def utc_microseconds() -> int:
    """Return the current Unix timestamp in microseconds."""
    return time.time_ns() // 1000


class SqliteJobStore:
    """Creates its file when the first job is added."""

    def __init__(self, path: Path, now: Callable[[], int] = utc_microseconds) -> None:
        self._path = path
        self._now = now
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def add(self, job: Job, *, max_open: int) -> Job:
        """Add a job, or return the earlier job with the same key."""
        with self._transaction(creates=True) as connection:
            if job.repeat_key:
                row = connection.execute("SELECT job FROM jobs WHERE repeat_key = ?", [job.repeat_key]).fetchone()
                if row is not None:
                    earlier = decode_job(row[0])
                    if earlier.fingerprint != job.fingerprint:
                        raise RepeatConflict(OTHER_JOB, slug="repeat-differs")
                    return earlier
            (count,) = connection.execute(
                "SELECT count(*) FROM jobs WHERE is_open = 1 AND tenant = ?", [job.owner.tenant]
            ).fetchone()
            if count >= max_open:
                raise Overloaded(too_many(max_open))
            _save(connection, job)
        return job

    def get(self, job_id: str) -> Job | None:
        """Return a job, or None."""
        with self._transaction() as connection:
            row = connection.execute("SELECT job FROM jobs WHERE id = ?", [job_id]).fetchone()
        return None if row is None else decode_job(row[0])

    def page(self, visible: VisibleJobs, limit: int, before: str | None = None) -> list[Job]:
        """Return the newest visible jobs."""
        conditions, values = ["1"], list[Any]()
        for condition, value in (
            ("tenant = ?", visible.tenant),
            ("key_id = ?", visible.key_id),
            ("id < ?", before),
        ):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        if visible.models:
            conditions.append("model IN (SELECT value FROM json_each(?))")
            values.append(msgspec.json.encode(visible.models).decode())
        query = f"SELECT job FROM jobs WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?"  # noqa: S608
        with self._transaction() as connection:
            return [decode_job(job) for (job,) in connection.execute(query, [*values, limit])]

    def claim(self, runner: str, place: str, *, seconds: float, dead_runner: str = "") -> Job | None:
        """Claim the oldest claimable job."""
        with self._transaction(writes=True) as connection:
            now = self._now()
            rows = connection.execute("SELECT job FROM jobs WHERE is_open = 1 AND place = ? ORDER BY id", [place])
            for (content,) in rows.fetchall():
                job = decode_job(content)
                if is_claimable(job, now, dead_runner=dead_runner):
                    job = claimed(job, now, runner=runner, seconds=seconds)
                    _save(connection, job)
                    if job.is_open:
                        return job
        return None

    def change(self, job_id: str, edit: JobEdit) -> Job:
        """Replace a job."""
        with self._transaction(writes=True) as connection:
            return self._change(connection, job_id, edit)

    def add_chunk(self, job_id: str, chunk: ChunkRecord, edit: JobEdit) -> Job:
        """Replace a job and add a chunk."""
        with self._transaction(writes=True) as connection:
            job = self._change(connection, job_id, edit)
            connection.execute("INSERT INTO chunks VALUES (?, ?, ?)", [job_id, chunk.number, encode(chunk)])
        return job

    def _change(self, connection: sqlite3.Connection, job_id: str, edit: JobEdit) -> Job:
        row = connection.execute("SELECT job FROM jobs WHERE id = ?", [job_id]).fetchone()
        if row is None:
            raise NotFound(unknown_job(job_id))
        job = edit(decode_job(row[0]), self._now())
        _save(connection, job)
        return job

    def chunks(self, job_id: str) -> list[ChunkRecord]:
        """Return the finished chunks."""
        with self._transaction() as connection:
            rows = connection.execute("SELECT chunk FROM chunks WHERE job = ? ORDER BY number", [job_id])
            return [decode_chunk(chunk) for (chunk,) in rows]

    def is_work_due(self, place: str) -> bool:
        """Return whether there is anything to do."""
        query = """SELECT EXISTS (SELECT 1 FROM jobs WHERE is_open = 1 AND place = ?1)
            OR EXISTS (SELECT 1 FROM jobs WHERE is_open = 0 AND place = ?1 AND remove_at <= ?2)"""
        with self._transaction() as connection:
            return bool(connection.execute(query, [place, self._now()]).fetchone()[0])

    def expired(self, place: str) -> list[str]:
        """Return the jobs that can be deleted."""
        query = "SELECT id FROM jobs WHERE is_open = 0 AND place = ? AND remove_at <= ?"
        with self._transaction() as connection:
            return [job_id for (job_id,) in connection.execute(query, [place, self._now()])]

    def remove(self, job_id: str) -> None:
        """Delete a job."""
        with self._transaction(writes=True) as connection:
            connection.execute("DELETE FROM chunks WHERE job = ?", [job_id])
            connection.execute("DELETE FROM jobs WHERE id = ?", [job_id])

    def register_worker(self, worker: str, place: str) -> None:
        """Record that a worker is alive."""
        with self._transaction(creates=True) as connection:
            connection.execute("INSERT OR REPLACE INTO workers VALUES (?, ?, ?)", [worker, place, self._now()])

    def has_worker(self, place: str, seconds: float) -> bool:
        """Return whether a worker is alive."""
        oldest = self._now() - int(seconds * SECOND)
        with self._transaction() as connection:
            query = "SELECT EXISTS (SELECT 1 FROM workers WHERE place = ? AND seen > ?)"
            return bool(connection.execute(query, [place, oldest]).fetchone()[0])

    def check(self) -> None:
        """Run `PRAGMA quick_check` on the file, if the file exists."""
        if not self._path.exists():
            return
        uri = f"{self._path.absolute().as_uri()}?mode=ro"
        try:
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                (verdict,) = connection.execute("PRAGMA quick_check").fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        if verdict != "ok":
            raise self._unusable(verdict)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def _transaction(self, *, creates: bool = False, writes: bool = False) -> Iterator[sqlite3.Connection]:
        """Run a transaction. If `creates` is false, a missing file is treated as empty and is not created."""
        with self._lock:
            try:
                connection = self._connection
                if connection is None:
                    if creates or self._path.exists():
                        connection = self._connection = self._connect()
                    else:
                        with closing(sqlite3.connect(":memory:", isolation_level=None)) as empty:
                            empty.executescript(CREATE)
                            yield empty
                        return
                connection.execute("BEGIN IMMEDIATE" if creates or writes else "BEGIN")
                try:
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
            except (sqlite3.Error, OSError) as error:
                raise self._unusable(error) from None

    def _unusable(self, reason: Exception | str) -> Unavailable:
        return Unavailable(f"cannot use the job store {self._path}: {reason}")

    def _connect(self) -> sqlite3.Connection:
        make_private_folder(self._path.parent)
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("PRAGMA user_version").fetchone()[0] > VERSION:
            connection.close()
            raise Unavailable(f"{self._path} was written by a newer version of Rowcast")
        for statement in CREATE.split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
        return connection


def _save(connection: sqlite3.Connection, job: Job) -> None:
    owner, repeat_key = job.owner, job.repeat_key or None
    values = [job.id, job.place, owner.tenant, owner.key_id, job.spec.model, repeat_key]
    connection.execute(SAVE, [*values, job.is_open, job.remove_at, encode(job)])
