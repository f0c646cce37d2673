"""Ports of the jobs package: a store of jobs and a store of files.

Every adapter passes the contract tests `tests/contracts/test_job_store.py` and `test_job_files.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from rowcast.jobs.job import ChunkRecord, Job

JobEdit = Callable[[Job, int], Job]
"""A function that returns the changed job; its second argument is the store's time. If it raises an error, the job is
not changed."""


class VisibleJobs(NamedTuple):
    """A filter for the jobs that a caller can see: a job must match every field that is set."""

    tenant: str | None = None
    key_id: str | None = None
    models: tuple[str, ...] = ()
    """An empty tuple allows every model."""

    def contains(self, job: Job) -> bool:
        """Return whether the caller can see the job."""
        return (
            self.tenant in (None, job.owner.tenant)
            and self.key_id in (None, job.owner.key_id)
            and (not self.models or job.spec.model in self.models)
        )


class JobStore(Protocol):
    """Stores jobs for all servers and runners. Every method is atomic, and raises Unavailable if the store fails.

    The store has its own clock, so that leases do not depend on the runners' clocks. A store that does not exist
    yet counts as empty.
    """

    def add(self, job: Job, *, max_open: int) -> Job:
        """Add a job and return it, or return the job that was added with the same `repeat_key`.

        Raise RepeatConflict if that job has a different fingerprint. Raise Overloaded if the tenant already has
        `max_open` open jobs.
        """
        ...

    def get(self, job_id: str) -> Job | None:
        """Return a job, or None."""
        ...

    def page(self, visible: VisibleJobs, limit: int, before: str | None = None) -> list[Job]:
        """Return up to `limit` jobs with ids below `before`, in descending order of id."""
        ...

    def claim(self, runner: str, place: str, *, seconds: float, dead_runner: str = "") -> Job | None:
        """Claim, for `seconds`, the oldest claimable job whose files are in `place`; return None if there is no such
        job.

        Jobs of `dead_runner` are claimable even if their leases have not expired.
        """
        ...

    def change(self, job_id: str, edit: JobEdit) -> Job:
        """Replace a job with the result of `edit`, and return the result; raise NotFound if the job does not exist."""
        ...

    def add_chunk(self, job_id: str, chunk: ChunkRecord, edit: JobEdit) -> Job:
        """Change the job as `change` does, and add a finished chunk in the same transaction."""
        ...

    def chunks(self, job_id: str) -> list[ChunkRecord]:
        """Return the finished chunks of a job in order."""
        ...

    def is_work_due(self, place: str) -> bool:
        """Return whether any job with files in `place` is open or can be deleted."""
        ...

    def expired(self, place: str) -> list[str]:
        """Return the ids of the jobs with files in `place` that can be deleted."""
        ...

    def remove(self, job_id: str) -> None:
        """Delete a job and its chunks. Idempotent."""
        ...

    def register_worker(self, worker: str, place: str) -> None:
        """Record that a worker that runs jobs with files in `place` is alive. Call this every few seconds."""
        ...

    def has_worker(self, place: str, seconds: float) -> bool:
        """Return whether a worker was recorded as alive within the last `seconds`."""
        ...

    def check(self) -> None:
        """Raise Unavailable if the store cannot be used; do not create or change anything."""
        ...

    def close(self) -> None:
        """Release all connections. The store can be used again."""
        ...


class FileStore(Protocol):
    """Stores the uploads, chunks and results of jobs. A file's name is `JOB/NAME` or `JOB/chunks/DIGEST`.

    A file appears only when it is complete. Every method raises Unavailable if the store fails.
    """

    @property
    def place(self) -> str:
        """The permanent id of this store. Runners use it to claim only jobs whose files they can read."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Store a file. An existing file can be replaced or left unchanged, because files with the same name have the
        same content."""
        ...

    def create(self, name: str) -> AbstractContextManager[Path]:
        """Yield the path of a new local file; store it under this name if the `with` block succeeds."""
        ...

    def local(self, name: str) -> AbstractContextManager[Path]:
        """Yield the path of a local copy of a file; raise NotFound if the file does not exist."""
        ...

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the content in chunks; raise NotFound before the first chunk if the file does not exist."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file, or all files of a job if the name is a job's id. Idempotent."""
        ...

    def jobs(self) -> list[str]:
        """Return the ids of all jobs that have files."""
        ...

    def check(self) -> None:
        """Raise Unavailable if the store is full or cannot be used; do not create or change anything."""
        ...
