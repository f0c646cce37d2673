"""A job: a table that is scored in the background, and the rules by which its state changes.

    queued ──claim──> running ──> done | failed
      │  ^               │
      │  └─ release, ────┤
      │     postpone     │
      └───── cancel ─────┴─────> canceled

A runner claims a job for the duration of a lease, which the runner renews. If the lease expires, another runner can
claim the job. Each claim has a number, so a runner that has lost its claim cannot change the job. This module does no
IO.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, NamedTuple

import msgspec

from rowcast.history.records import to_time

JobState = Literal["queued", "running", "done", "failed", "canceled"]
JobRecording = Literal["job", "rows"]
JobEngine = Literal["local", "ray"]
ResultFormat = Literal["csv", "csv.gz", "jsonl", "parquet"]

OPEN_STATES: Final = ("queued", "running")
RESULT_FORMATS: Final[tuple[ResultFormat, ...]] = ("csv", "csv.gz", "jsonl", "parquet")
MAX_ATTEMPTS: Final = 25
"""How many times a job can be claimed without finishing a chunk. A job that keeps crashing its runner, or whose engine
is never available, must eventually fail."""
FIRST_PAUSE, LONGEST_PAUSE = 5, 300
"""The shortest and the longest pause, in seconds, after a failure of a job's engine."""
SECOND: Final = 1_000_000


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The specification of a job, which never changes."""

    model: str
    version: int
    digest: str
    """The bundle's digest."""
    input: str
    """The name of the uploaded file, such as `input.csv`. The server chooses the name."""
    input_sha256: str
    input_bytes: int
    format: ResultFormat
    columns: tuple[str, ...] | None = None
    """The columns to copy to the result; all columns by default."""
    record: JobRecording = "job"
    """Whether the history records only the job, or also every row."""
    engine: JobEngine = "local"
    """Where the rows are scored: on one machine, or on a Ray cluster."""


class JobOwner(msgspec.Struct, frozen=True):
    """Who submitted a job."""

    tenant: str = ""
    key_id: str = ""
    request_id: str = ""


class JobProgress(msgspec.Struct, frozen=True):
    """The number of rows that have been processed, and the fraction of the file."""

    rows: int = 0
    rejected: int = 0
    share: float = 0.0


class JobWarning(msgspec.Struct, frozen=True):
    """The number of scored rows with an unusual value in a column."""

    column: str
    code: str
    rows: int


class JobFile(msgspec.Struct, frozen=True):
    """The digest and the size of a file."""

    sha256: str
    bytes: int


class JobResult(msgspec.Struct, frozen=True):
    """The result of a job. The rejected rows are in a separate file."""

    rows: int
    rejected: int
    excluded: int
    """The number of lines that are not rows."""
    output: JobFile
    rejects: JobFile
    warnings: tuple[JobWarning, ...] = ()


class JobError(msgspec.Struct, frozen=True):
    """Why a job failed or was postponed."""

    slug: str
    message: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job with its state. Stores save jobs in this form: add new fields only with defaults. Times are Unix timestamps
    in microseconds."""

    id: str
    spec: JobSpec
    owner: JobOwner
    place: str
    """The id of the file store that contains the job's files."""
    created: int
    secret: bytes
    """The ids and salts of recorded rows are derived from this secret, which is deleted when the job ends."""
    keep_seconds: float = 7 * 86_400.0
    """How long the job and its files are kept after it has ended."""
    repeat_key: str = ""
    """Identifies the caller's Idempotency-Key; empty if there was none."""
    fingerprint: bytes = b""
    """Identifies the request that was sent with the Idempotency-Key."""
    state: JobState = "queued"
    started: int = 0
    ended: int = 0
    runner: str = ""
    """The runner that holds the claim."""
    claim: int = 0
    """The number of the latest claim."""
    attempts: int = 0
    """The number of claims since the latest progress."""
    lease_until: int = 0
    retry_at: int = 0
    """When a postponed job can be claimed again."""
    problem: JobError | None = None
    """Why the job was postponed."""
    progress: JobProgress = JobProgress()
    result: JobResult | None = None
    error: JobError | None = None
    remove_at: int = 0
    """When the job and its files are deleted; 0 while the job is open."""

    @property
    def is_open(self) -> bool:
        """Whether the job has not ended."""
        return self.state in OPEN_STATES


class ChunkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A finished chunk of a job. The name of each of its files is the digest of the file's content."""

    number: int
    output: str
    """The digest of the file with the predictions."""
    rejects: str
    """The digest of the file with the rejected rows; empty if there is none."""
    lines: int
    """The number of lines, including rejected rows and excluded lines."""
    excluded: int
    rejected: int
    bytes: int
    """The total size of both files."""
    warnings: tuple[JobWarning, ...] = ()


class JobClaim(NamedTuple):
    """A runner's claim on a job."""

    job_id: str
    runner: str
    number: int


class LostClaim(Exception):
    """The job was canceled, or its lease expired and another runner claimed it."""


class JobStop(Exception):
    """The runner is shutting down; the job continues later."""


def claim_of(job: Job) -> JobClaim:
    """Return the current claim."""
    return JobClaim(job.id, job.runner, job.claim)


def claimed(job: Job, now: int, *, runner: str, seconds: float) -> Job:
    """Return the job as claimed by a runner, or as failed if it has been claimed too often without progress."""
    if job.attempts >= MAX_ATTEMPTS:
        message = f"the job's runner stopped unexpectedly {job.attempts} times without finishing a chunk"
        return failed(job, now, JobError("runner-died", message))
    return msgspec.structs.replace(
        job,
        state="running",
        started=job.started or now,
        runner=runner,
        claim=job.claim + 1,
        attempts=job.attempts + 1,
        lease_until=now + int(seconds * SECOND),
        retry_at=0,
        problem=None,
    )


def is_claimable(job: Job, now: int, *, dead_runner: str = "") -> bool:
    """Return whether a runner can claim the job; `dead_runner` is a runner that is known to have exited."""
    if job.state == "queued":
        return job.retry_at <= now
    return job.state == "running" and (job.lease_until <= now or (bool(dead_runner) and job.runner == dead_runner))


def checked(job: Job, claim: JobClaim) -> Job:
    """Return the job; raise LostClaim unless the claim is the current claim."""
    if job.state != "running" or claim != claim_of(job):
        raise LostClaim(job.id)
    return job


def renewed(job: Job, now: int, *, seconds: float) -> Job:
    """Return the job with a new lease."""
    return msgspec.structs.replace(job, lease_until=now + int(seconds * SECOND))


def progressed(job: Job, now: int, progress: JobProgress, *, seconds: float) -> Job:
    """Return the job with updated progress and a new lease."""
    return msgspec.structs.replace(renewed(job, now, seconds=seconds), progress=progress, attempts=0)


def released(job: Job) -> Job:
    """Return the job without its claim, so that any runner can continue it."""
    return msgspec.structs.replace(job, state="queued", runner="", lease_until=0, attempts=max(0, job.attempts - 1))


def postponed(job: Job, now: int, problem: JobError) -> Job:
    """Return the job without a claim. It can be claimed again after a pause, but fails after too many attempts.

    The pause doubles with each attempt, so that the runner can execute other jobs while this job's engine is not
    available.
    """
    if job.attempts >= MAX_ATTEMPTS:
        message = f"{problem.message} (attempt {job.attempts} of {MAX_ATTEMPTS})"
        return failed(job, now, JobError(problem.slug, message))
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (job.attempts - 1))
    retry_at = now + pause * SECOND
    return msgspec.structs.replace(job, state="queued", runner="", lease_until=0, retry_at=retry_at, problem=problem)


def done(job: Job, now: int, result: JobResult) -> Job:
    """Return the job as done."""
    progress = JobProgress(result.rows + result.rejected, result.rejected, 1.0)
    return _ended(msgspec.structs.replace(job, state="done", result=result, progress=progress), now)


def failed(job: Job, now: int, error: JobError) -> Job:
    """Return the job as failed."""
    return _ended(msgspec.structs.replace(job, state="failed", error=error), now)


def canceled(job: Job, now: int) -> Job:
    """Return the job as canceled; a job that has ended is returned unchanged."""
    return _ended(msgspec.structs.replace(job, state="canceled"), now) if job.is_open else job


def _ended(job: Job, now: int) -> Job:
    remove_at = now + int(job.keep_seconds * SECOND)
    return msgspec.structs.replace(job, ended=now, remove_at=remove_at, lease_until=0, secret=b"")


class JobStatus(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A job, as shown to clients."""

    id: str
    state: JobState
    model: str
    version: int
    digest: str
    format: ResultFormat
    record: JobRecording
    engine: JobEngine = "local"
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    expires: datetime | None = None
    """When the job and its files are deleted; None while the job is open."""
    input: JobFile
    progress: JobProgress
    result: JobResult | None = None
    error: JobError | None = None
    problem: JobError | None = None
    """Why the job was postponed; None unless the job is waiting for its next attempt."""
    retry: datetime | None = None
    """When the job can be attempted again."""


class JobPage(msgspec.Struct, frozen=True):
    """A page of jobs, newest first."""

    jobs: list[JobStatus]
    next: str | None = None
    """The cursor for the next page; None on the last page."""


def status_of(job: Job) -> JobStatus:
    """Return the part of a job that clients can see."""
    spec = job.spec
    return JobStatus(
        id=job.id,
        state=job.state,
        model=spec.model,
        version=spec.version,
        digest=spec.digest,
        format=spec.format,
        record=spec.record,
        engine=spec.engine,
        created=to_time(job.created),
        started=to_time(job.started) if job.started else None,
        ended=to_time(job.ended) if job.ended else None,
        expires=to_time(job.remove_at) if job.remove_at else None,
        input=JobFile(spec.input_sha256, spec.input_bytes),
        progress=job.progress,
        result=job.result,
        error=job.error,
        problem=job.problem if job.is_open else None,
        retry=to_time(job.retry_at) if job.is_open and job.retry_at else None,
    )
