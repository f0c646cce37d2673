"""Stores jobs in the history's PostgreSQL database. All servers and workers that use this database share the jobs.

Times come from the database clock, so that leases do not depend on the machines' clocks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from rowcast.adapters.job_encoding import decode_chunk, decode_job, encode
from rowcast.adapters.postgresql.database import Database, Readers, TimedConnection
from rowcast.adapters.postgresql.migrations import JOBS_LOCK, LOCKS
from rowcast.errors import NotFound, Overloaded, RepeatConflict
from rowcast.jobs.job import SECOND, ChunkRecord, Job, claimed, is_claimable
from rowcast.jobs.ports import JobEdit, VisibleJobs
from rowcast.jobs.rules import OTHER_JOB, too_many, unknown_job

ACTION: Final = "use the jobs in"
NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
SAVE: Final = """INSERT INTO rowcast.jobs (id, place, tenant, key_id, model, repeat_key, is_open, remove_at, job)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (id) DO UPDATE SET is_open = excluded.is_open, remove_at = excluded.remove_at, job = excluded.job"""
DUE: Final = f"""SELECT EXISTS (SELECT 1 FROM rowcast.jobs WHERE is_open AND place = %(place)s)
    OR EXISTS (SELECT 1 FROM rowcast.jobs WHERE NOT is_open AND place = %(place)s AND remove_at <= {NOW})"""  # noqa: S608
EXPIRED: Final = f"SELECT id FROM rowcast.jobs WHERE NOT is_open AND place = %s AND remove_at <= {NOW}"  # noqa: S608
REGISTER: Final = f"""INSERT INTO rowcast.job_workers (worker, place, seen) VALUES (%s, %s, {NOW})
    ON CONFLICT (worker) DO UPDATE SET place = excluded.place, seen = excluded.seen"""  # noqa: S608
HAS_WORKER: Final = f"SELECT EXISTS (SELECT 1 FROM rowcast.job_workers WHERE place = %s AND seen > {NOW} - %s)"  # noqa: S608


class PostgresJobStore:
    """Creates its tables when the first job is added."""

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self._readers = Readers(self._database, ACTION)
        self._connection: TimedConnection | None = None
        self._lock = threading.Lock()

    def add(self, job: Job, *, max_open: int) -> Job:
        """Add a job, or return the earlier job with the same key."""
        with self._transaction() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCKS, JOBS_LOCK])
            if job.repeat_key:
                row = connection.execute(
                    "SELECT job FROM rowcast.jobs WHERE repeat_key = %s", [job.repeat_key]
                ).fetchone()
                if row is not None:
                    earlier = decode_job(row[0])
                    if earlier.fingerprint != job.fingerprint:
                        raise RepeatConflict(OTHER_JOB, slug="repeat-differs")
                    return earlier
            query = "SELECT count(*) FROM rowcast.jobs WHERE is_open AND tenant = %s"
            if _first(connection, query, [job.owner.tenant]) >= max_open:
                raise Overloaded(too_many(max_open))
            _save(connection, job)
        return job

    def get(self, job_id: str) -> Job | None:
        """Return a job, or None."""
        rows = self._readers.fetch("SELECT job FROM rowcast.jobs WHERE id = %s", [job_id])
        return decode_job(rows[0][0]) if rows else None

    def page(self, visible: VisibleJobs, limit: int, before: str | None = None) -> list[Job]:
        """Return the newest visible jobs."""
        conditions = {
            "tenant = %s": visible.tenant,
            "key_id = %s": visible.key_id,
            "model = ANY (%s)": list(visible.models) or None,
            "id < %s": before,
        }
        chosen = {condition: value for condition, value in conditions.items() if value is not None}
        where = " AND ".join(chosen) or "TRUE"
        query = f"SELECT job FROM rowcast.jobs WHERE {where} ORDER BY id DESC LIMIT %s"  # noqa: S608
        return [decode_job(job) for (job,) in self._readers.fetch(query, [*chosen.values(), limit])]

    def claim(self, runner: str, place: str, *, seconds: float, dead_runner: str = "") -> Job | None:
        """Claim the oldest claimable job."""
        if not self.is_work_due(place):
            return None
        with self._transaction() as connection:
            # In this order, concurrent claims wait for each other instead of skipping jobs or blocking each other.
            query = "SELECT job FROM rowcast.jobs WHERE is_open AND place = %s ORDER BY id FOR UPDATE"
            rows = connection.execute(query, [place]).fetchall()
            now = _now(connection)
            for (content,) in rows:
                job = decode_job(content)
                if is_claimable(job, now, dead_runner=dead_runner):
                    job = claimed(job, now, runner=runner, seconds=seconds)
                    _save(connection, job)
                    if job.is_open:
                        return job
        return None

    def change(self, job_id: str, edit: JobEdit) -> Job:
        """Replace a job."""
        with self._transaction() as connection:
            return _change(connection, job_id, edit)

    def add_chunk(self, job_id: str, chunk: ChunkRecord, edit: JobEdit) -> Job:
        """Replace a job and add a chunk."""
        with self._transaction() as connection:
            job = _change(connection, job_id, edit)
            connection.execute(
                "INSERT INTO rowcast.job_chunks (job, number, chunk) VALUES (%s, %s, %s)",
                [job_id, chunk.number, encode(chunk)],
            )
        return job

    def chunks(self, job_id: str) -> list[ChunkRecord]:
        """Return the finished chunks."""
        rows = self._readers.fetch("SELECT chunk FROM rowcast.job_chunks WHERE job = %s ORDER BY number", [job_id])
        return [decode_chunk(chunk) for (chunk,) in rows]

    def is_work_due(self, place: str) -> bool:
        """Return whether there is anything to do."""
        return any(due for (due,) in self._readers.fetch(DUE, {"place": place}))

    def expired(self, place: str) -> list[str]:
        """Return the jobs that can be deleted."""
        return [job_id for (job_id,) in self._readers.fetch(EXPIRED, [place])]

    def remove(self, job_id: str) -> None:
        """Delete a job."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM rowcast.job_chunks WHERE job = %s", [job_id])
            connection.execute("DELETE FROM rowcast.jobs WHERE id = %s", [job_id])

    def register_worker(self, worker: str, place: str) -> None:
        """Record that a worker is alive."""
        with self._transaction() as connection:
            connection.execute(REGISTER, [worker, place])

    def has_worker(self, place: str, seconds: float) -> bool:
        """Return whether a worker is alive."""
        rows = self._readers.fetch(HAS_WORKER, [place, int(seconds * SECOND)])
        return any(has_worker for (has_worker,) in rows)

    def check(self) -> None:
        """Connect to the database; create nothing."""
        with self._database.translated(ACTION):
            self._database.connect_reader().close()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
        self._readers.close()

    @contextmanager
    def _transaction(self) -> Iterator[TimedConnection]:
        """Run a transaction; create or migrate the schema if necessary."""
        with self._lock, self._database.translated(ACTION):
            connection = self._connection
            if connection is None or connection.closed or _is_lost(connection):
                connection = self._connection = self._database.connect_writer()
            with connection.transaction():
                yield connection


def _is_lost(connection: TimedConnection) -> bool:
    """Return whether the database has closed the connection, for example because the database was restarted."""
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        connection.close()
        return True
    return False


def _first(connection: TimedConnection, query: str, values: Sequence[Any] = ()) -> Any:
    row = connection.execute(query, values).fetchone()
    assert row is not None
    return row[0]


def _now(connection: TimedConnection) -> int:
    return int(_first(connection, f"SELECT {NOW}"))


def _change(connection: TimedConnection, job_id: str, edit: JobEdit) -> Job:
    row = connection.execute("SELECT job FROM rowcast.jobs WHERE id = %s FOR UPDATE", [job_id]).fetchone()
    if row is None:
        raise NotFound(unknown_job(job_id))
    job = edit(decode_job(row[0]), _now(connection))
    _save(connection, job)
    return job


def _save(connection: TimedConnection, job: Job) -> None:
    owner, repeat_key = job.owner, job.repeat_key or None
    values = [job.id, job.place, owner.tenant, owner.key_id, job.spec.model, repeat_key]
    connection.execute(SAVE, [*values, job.is_open, job.remove_at, encode(job)])
