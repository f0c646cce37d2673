"""Runs jobs one after another: claims a job, renews its lease while it runs, and stores its outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import structlog

from rowcast.errors import EngineUnavailable, NotFound, RowcastError, Unavailable
from rowcast.jobs.job import (
    SECOND,
    Job,
    JobClaim,
    JobError,
    JobResult,
    JobStop,
    LostClaim,
    checked,
    claim_of,
    done,
    failed,
    postponed,
    released,
    renewed,
)
from rowcast.jobs.ports import FileStore, JobStore
from rowcast.jobs.rules import chunks_name, input_name

LEASE_SECONDS: Final = 15.0
RENEW_SECONDS: Final = 4.0
PAUSE_SECONDS: Final = 2.0
"""The pause after a store has failed."""
ORPHAN_SECONDS: Final = 86_400
"""The age at which files without a job are deleted. Younger files may belong to an upload in progress."""

log = structlog.get_logger("rowcast.jobs")


class Execute(Protocol):
    """Executes a claimed job and returns its result; see `JobExecution.run` for the errors that it raises."""

    def __call__(self, job: Job, claim: JobClaim, is_stopping: Callable[[], bool]) -> JobResult: ...


class JobRunner:
    """Runs the jobs whose files are in one file store.

    `dead_runner` is an earlier runner that is known to have exited. Its jobs can continue immediately.
    """

    def __init__(
        self, store: JobStore, files: FileStore, execute: Execute, *, name: str, dead_runner: str = ""
    ) -> None:
        self._store = store
        self._files = files
        self._execute = execute
        self._name = name
        self._dead_runner = dead_runner

    def run_next(self, is_stopping: Callable[[], bool]) -> bool:
        """Run one job; return whether there was one. Raise Unavailable if a store fails."""
        job = self._store.claim(self._name, self._files.place, seconds=LEASE_SECONDS, dead_runner=self._dead_runner)
        if job is None:
            return False
        claim = claim_of(job)
        try:
            with self._lease(claim) as is_lost:
                self._run(job, claim, lambda: is_stopping() or is_lost())
        except LostClaim:
            self._clean_up_canceled(job.id)
        return True

    def _run(self, job: Job, claim: JobClaim, is_stopping: Callable[[], bool]) -> None:
        try:
            result = self._execute(job, claim, is_stopping)
        except LostClaim:
            raise
        except EngineUnavailable as error:
            log.warning("a job was postponed", job=job.id, slug=error.slug, reason=error.message)
            self._postpone(claim, JobError(error.slug, error.message))
        except Unavailable:
            self._release(claim)
            raise
        except JobStop:
            self._release(claim)
        except RowcastError as error:
            log.info("a job failed", job=job.id, slug=error.slug)
            self._fail(job, claim, JobError(error.slug, error.message))
        except Exception:
            log.exception("a job failed", job=job.id)
            self._fail(job, claim, JobError("internal", "an internal error occurred; search the log for the job's id"))
        else:
            self._store.change(job.id, lambda current, now: done(checked(current, claim), now, result))
            self._files.delete(input_name(job))
            self._files.delete(chunks_name(job))

    def _fail(self, job: Job, claim: JobClaim, error: JobError) -> None:
        self._store.change(job.id, lambda current, now: failed(checked(current, claim), now, error))
        self._files.delete(job.id)

    def _postpone(self, claim: JobClaim, problem: JobError) -> None:
        job = self._store.change(claim.job_id, lambda current, now: postponed(checked(current, claim), now, problem))
        if not job.is_open:
            self._files.delete(job.id)

    def _release(self, claim: JobClaim) -> None:
        """Release the claim. If the store is not available, the claim ends when the lease expires."""
        try:
            self._store.change(claim.job_id, lambda current, now: released(checked(current, claim)))
        except RowcastError as error:
            log.info("the claim on a job was not released", job=claim.job_id, reason=error.message)

    def _clean_up_canceled(self, job_id: str) -> None:
        job = self._store.get(job_id)
        if job is None or not job.is_open:
            self._files.delete(job_id)

    @contextmanager
    def _lease(self, claim: JobClaim) -> Iterator[Callable[[], bool]]:
        """Renew the lease in another thread; yield a function that returns whether the claim was lost."""
        ending, lost = threading.Event(), threading.Event()

        def renew(job: Job, now: int) -> Job:
            return renewed(checked(job, claim), now, seconds=LEASE_SECONDS)

        def keep() -> None:
            while not ending.wait(RENEW_SECONDS):
                try:
                    self._store.change(claim.job_id, renew)
                except (LostClaim, NotFound):
                    lost.set()
                    return
                except RowcastError as error:  # the job continues; its next chunk also needs the store
                    log.warning("cannot renew a job's lease", job=claim.job_id, reason=error.message)

        thread = threading.Thread(target=keep, name="job-lease", daemon=True)
        thread.start()
        try:
            yield lost.is_set
        finally:
            ending.set()
            thread.join()

    def remove_expired(self) -> None:
        """Delete jobs whose retention period has ended, and their files."""
        for job_id in self._store.expired(self._files.place):
            self._files.delete(job_id)
            self._store.remove(job_id)

    def remove_orphans(self, now: int) -> None:
        """Delete the files of interrupted uploads. A job's id contains the time of the upload (UUIDv7)."""
        for job_id in self._files.jobs():
            digits = job_id.replace("-", "")[:12]
            try:
                is_old = int(digits, 16) * 1000 < now - ORPHAN_SECONDS * SECOND
            except ValueError:
                continue  # not a job's id
            if is_old and self._store.get(job_id) is None:
                self._files.delete(job_id)


def run_jobs(runner: JobRunner, *, wait: Callable[[float], bool], idle_seconds: float, now: Callable[[], int]) -> None:
    """Run jobs until `wait(seconds)` returns True, or until there has been no job for `idle_seconds`."""
    idle_since = now()
    runner.remove_orphans(now())
    while not wait(0):
        pause = 1.0
        try:
            runner.remove_expired()
            if runner.run_next(lambda: wait(0)):
                idle_since = now()
                pause = 0.0
        except Unavailable as error:
            log.warning("jobs are paused", reason=error.message)
            pause = PAUSE_SECONDS
        if now() - idle_since >= idle_seconds * SECOND or wait(pause):
            return
