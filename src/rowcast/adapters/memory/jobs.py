"""Keeps jobs and their files in memory, for tests and for a server without a disk."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rowcast.errors import NotFound, Overloaded, RepeatConflict
from rowcast.jobs.job import ChunkRecord, Job, claimed, is_claimable
from rowcast.jobs.ports import JobEdit, VisibleJobs
from rowcast.jobs.rules import OTHER_JOB, too_many, unknown_file, unknown_job


def utc_microseconds() -> int:
    """Return the current Unix timestamp in microseconds."""
    return time.time_ns() // 1000


class MemoryJobStore:
    """Stores jobs in the memory of this process."""

    def __init__(self, now: Callable[[], int] = utc_microseconds) -> None:
        self._now = now
        self._jobs: dict[str, Job] = {}
        self._chunks: dict[str, list[ChunkRecord]] = {}
        self._workers: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def add(self, job: Job, *, max_open: int) -> Job:
        """Add a job, or return the earlier job with the same key."""
        with self._lock:
            for other in self._jobs.values():
                if job.repeat_key and other.repeat_key == job.repeat_key:
                    if other.fingerprint != job.fingerprint:
                        raise RepeatConflict(OTHER_JOB, slug="repeat-differs")
                    return other
            own = [other for other in self._jobs.values() if other.is_open and other.owner.tenant == job.owner.tenant]
            if len(own) >= max_open:
                raise Overloaded(too_many(max_open))
            self._jobs[job.id] = job
        return job

    def get(self, job_id: str) -> Job | None:
        """Return a job, or None."""
        return self._jobs.get(job_id)

    def page(self, visible: VisibleJobs, limit: int, before: str | None = None) -> list[Job]:
        """Return the newest visible jobs."""
        with self._lock:
            newest = sorted(self._jobs.values(), key=lambda job: job.id, reverse=True)
        listed = [job for job in newest if (before is None or job.id < before) and visible.contains(job)]
        return listed[:limit]

    def claim(self, runner: str, place: str, *, seconds: float, dead_runner: str = "") -> Job | None:
        """Claim the oldest claimable job."""
        with self._lock:
            now = self._now()
            for job in sorted(self._jobs.values(), key=lambda job: job.id):
                if job.place == place and is_claimable(job, now, dead_runner=dead_runner):
                    job = self._jobs[job.id] = claimed(job, now, runner=runner, seconds=seconds)
                    if job.is_open:
                        return job
        return None

    def change(self, job_id: str, edit: JobEdit) -> Job:
        """Replace a job."""
        with self._lock:
            return self._change(job_id, edit)

    def add_chunk(self, job_id: str, chunk: ChunkRecord, edit: JobEdit) -> Job:
        """Replace a job and add a chunk."""
        with self._lock:
            job = self._change(job_id, edit)
            self._chunks.setdefault(job_id, []).append(chunk)
        return job

    def _change(self, job_id: str, edit: JobEdit) -> Job:
        if job_id not in self._jobs:
            raise NotFound(unknown_job(job_id))
        job = self._jobs[job_id] = edit(self._jobs[job_id], self._now())
        return job

    def chunks(self, job_id: str) -> list[ChunkRecord]:
        """Return the finished chunks."""
        return list(self._chunks.get(job_id, ()))

    def is_work_due(self, place: str) -> bool:
        """Return whether any job with files in `place` is open or can be deleted."""
        with self._lock:
            is_open = any(job.is_open and job.place == place for job in self._jobs.values())
        return is_open or bool(self.expired(place))

    def expired(self, place: str) -> list[str]:
        """Return the jobs that can be deleted."""
        with self._lock:
            now = self._now()
            return [job.id for job in self._jobs.values() if job.place == place and 0 < job.remove_at <= now]

    def remove(self, job_id: str) -> None:
        """Delete a job."""
        with self._lock:
            self._jobs.pop(job_id, None)
            self._chunks.pop(job_id, None)

    def register_worker(self, worker: str, place: str) -> None:
        """Record that a worker is alive."""
        self._workers[worker, place] = self._now()

    def has_worker(self, place: str, seconds: float) -> bool:
        """Return whether a worker is alive."""
        oldest = self._now() - int(seconds * 1_000_000)
        return any(seen > oldest for (_, where), seen in self._workers.items() if where == place)

    def check(self) -> None:
        """Do nothing, because memory is always available."""

    def close(self) -> None:
        """Do nothing: the jobs remain in memory."""


class MemoryFileStore:
    """Stores job files in the memory of this process."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    @property
    def place(self) -> str:
        """The id of this store."""
        return f"memory:{id(self):x}"

    def put(self, name: str, content: bytes) -> None:
        """Store a file."""
        self._files[name] = bytes(content)

    @contextmanager
    def create(self, name: str) -> Iterator[Path]:
        """Yield the path of a temporary file; store its content if the `with` block succeeds."""
        with tempfile.TemporaryDirectory(prefix="rowcast-") as folder:
            path = Path(folder) / Path(name).name
            yield path
            self._files[name] = path.read_bytes()

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """Yield the path of a temporary copy."""
        with tempfile.TemporaryDirectory(prefix="rowcast-") as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(self._content(name))
            yield path

    def read(self, name: str) -> Iterator[bytes]:
        """Return an iterator over the content, which is a single chunk."""
        return iter([self._content(name)])

    def delete(self, name: str) -> None:
        """Delete a file or the files of a job."""
        for each in [each for each in self._files if each == name or each.startswith(f"{name}/")]:
            del self._files[each]

    def jobs(self) -> list[str]:
        """Return the jobs that have files."""
        return sorted({name.partition("/")[0] for name in self._files})

    def check(self) -> None:
        """Do nothing, because memory is always available."""

    def _content(self, name: str) -> bytes:
        if name not in self._files:
            raise NotFound(unknown_file(name))
        return self._files[name]
