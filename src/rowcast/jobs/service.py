"""Submits jobs, and shows each job only to callers that may see it. Servers use this module; it does not read
tables."""

from __future__ import annotations

import base64
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import NamedTuple

import msgspec

from rowcast.access.callers import Caller
from rowcast.errors import NotFound, RequestError, RowcastError
from rowcast.jobs.job import Job, JobFile, JobOwner, JobPage, JobSpec, canceled, status_of
from rowcast.jobs.ports import FileStore, JobStore, VisibleJobs
from rowcast.jobs.rules import rejects_name, result_name, unknown_job
from rowcast.jobs.uploads import JobOptions, UploadFormat
from rowcast.schema.identity import uuid7_randomness, uuid7s
from rowcast.serving.interface import ModelInterface

SECRET_BYTES = 32
MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "csv.gz": "application/gzip",
    "jsonl": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}


class JobLimits(NamedTuple):
    """The limits for jobs."""

    upload_bytes: int
    open_jobs: int
    """The maximum number of open jobs per tenant."""
    keep_seconds: float
    ray_problem: str
    """Why jobs cannot use a Ray cluster; empty if they can."""


class Upload(NamedTuple):
    """A stored upload for a job that does not exist yet."""

    job_id: str
    format: UploadFormat
    file: JobFile


class Submission(NamedTuple):
    """A request to create a job: the job's options, the model and the caller."""

    options: JobOptions
    model: ModelInterface
    caller: Caller
    request_id: str
    idempotency_key: bytes = b""


class JobDownload(NamedTuple):
    """One of a job's files, ready to be sent."""

    pieces: Iterator[bytes]
    file: JobFile
    media_type: str
    name: str


def new_job_id() -> str:
    """Return a new id, which contains the current time."""
    return uuid7s(time.time_ns() // 1_000_000, secrets.token_bytes(uuid7_randomness(1)))[0]


class JobService:
    """A server's jobs. `wake` is called when a job has been added."""

    def __init__(self, store: JobStore, files: FileStore, limits: JobLimits, wake: Callable[[], None]) -> None:
        self.files = files
        self.limits = limits
        self._store = store
        self._wake = wake

    def close(self) -> None:
        """Release the store's connections."""
        self._store.close()

    def submit(self, upload: Upload, submission: Submission) -> Job:
        """Add a job for an upload, or return the job of an earlier request with the same Idempotency-Key.

        If no job is added, delete the upload. Raise RequestError if the job's engine is not available on this server.
        """
        job = self._new_job(upload, submission)
        try:
            if job.spec.engine == "ray" and self.limits.ray_problem:
                raise RequestError(f"engine: ray is not available: {self.limits.ray_problem}", slug="bad-option")
            added = self._store.add(job, max_open=self.limits.open_jobs)
        except RowcastError:
            self.files.delete(upload.job_id)
            raise
        if added.id != upload.job_id:
            self.files.delete(upload.job_id)
        else:
            self._wake()
        return added

    def _new_job(self, upload: Upload, submission: Submission) -> Job:
        options, caller, model = submission.options, submission.caller, submission.model
        spec = JobSpec(
            model=model.name,
            version=model.version,
            digest=model.digest,
            input=upload.format.name,
            input_sha256=upload.file.sha256,
            input_bytes=upload.file.bytes,
            format=options.format or upload.format.result,
            columns=options.columns,
            record=options.record,
            engine=options.engine,
        )
        key = submission.idempotency_key
        identity = [caller.tenant.encode(), caller.key_id.encode(), key]
        # Releases without the option `engine` encoded the same fields, so keys that they stored remain valid.
        asked = options[:-1] if options.engine == "local" else options
        meaning = msgspec.json.encode([asked, upload.file.sha256])
        return Job(
            id=upload.job_id,
            spec=spec,
            owner=JobOwner(caller.tenant, caller.key_id, submission.request_id),
            place=self.files.place,
            created=time.time_ns() // 1000,
            secret=secrets.token_bytes(SECRET_BYTES),
            keep_seconds=self.limits.keep_seconds,
            repeat_key=sha256(b"\0".join(identity)).hexdigest() if key else "",
            fingerprint=sha256(meaning).digest() if key else b"",
        )

    def get(self, job_id: str, caller: Caller) -> Job:
        """Return a job; raise NotFound if it does not exist or the caller cannot see it."""
        job = self._store.get(job_id)
        if job is None or not visible_jobs(caller).contains(job):
            raise NotFound(unknown_job(job_id))
        return job

    def page(self, caller: Caller, limit: int, cursor: str | None) -> JobPage:
        """Return the newest jobs that the caller can see; raise RequestError if the cursor is malformed."""
        before = None if cursor is None else _decode_cursor(cursor)
        jobs = self._store.page(visible_jobs(caller), limit + 1, before)
        listed = [status_of(job) for job in jobs[:limit]]
        return JobPage(listed, _encode_cursor(listed[-1].id) if len(jobs) > limit else None)

    def cancel(self, job_id: str, caller: Caller) -> Job:
        """Cancel a job and delete its files. This has no effect on a job that has ended."""
        job = self.get(job_id, caller)
        if not job.is_open:
            return job
        job = self._store.change(job_id, canceled)
        if job.state == "canceled":
            self.files.delete(job_id)  # a runner that is still scoring a chunk deletes the files again
        return job

    def download(self, job_id: str, caller: Caller, *, rejects: bool) -> JobDownload:
        """Return the result or the rejected rows; raise NotFound or RequestError if the job has none."""
        job = self.get(job_id, caller)
        if job.result is None:
            if job.is_open:
                raise RequestError(f"job {job.id} is {job.state}; retry when it is done", slug="job-not-done")
            raise NotFound(f"job {job.id} has no result, because it {_HOW_IT_ENDED[job.state]}")
        name, file = (rejects_name(job), job.result.rejects) if rejects else (result_name(job), job.result.output)
        plain = f"{'rejects' if rejects else 'result'}-{job.id}.{job.spec.format}"
        return JobDownload(self.files.read(name), file, MEDIA_TYPES[job.spec.format], plain)


def _encode_cursor(job_id: str) -> str:
    return base64.urlsafe_b64encode(uuid.UUID(job_id).bytes).decode().rstrip("=")


def _decode_cursor(cursor: str) -> str:
    try:
        return str(uuid.UUID(bytes=base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))))
    except ValueError:  # includes binascii.Error
        raise RequestError(
            "cursor: not a valid cursor; pass the value of `next` from the previous page", slug="bad-option"
        ) from None


_HOW_IT_ENDED = {"failed": "failed", "canceled": "was canceled"}


def visible_jobs(caller: Caller) -> VisibleJobs:
    """Return the jobs that a caller can see.

    A caller with the scope `read` or `admin` sees all jobs of its tenant; any other caller sees only its own jobs.
    """
    sees_others = bool(caller.scopes & {"read", "admin"})
    return VisibleJobs(
        tenant=None if caller.sees_all_tenants else caller.tenant,
        key_id=None if sees_others else caller.key_id,
        models=tuple(sorted(caller.models)),
    )
