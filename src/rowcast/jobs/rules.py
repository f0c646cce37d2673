"""The names of a job's files, and the messages that all adapters share."""

from __future__ import annotations

from typing import Final

from rowcast.jobs.job import Job

OTHER_JOB: Final = "this Idempotency-Key was used for a different job; use a new key for each job"


def input_name(job: Job) -> str:
    """Return the name of the uploaded file."""
    return f"{job.id}/{job.spec.input}"


def chunks_name(job: Job) -> str:
    """Return the name of the folder for the job's chunks."""
    return f"{job.id}/chunks"


def chunk_name(job: Job, digest: str) -> str:
    """Return the name of a chunk's file."""
    return f"{chunks_name(job)}/{digest}"


def result_name(job: Job) -> str:
    """Return the name of the file with the predictions."""
    return f"{job.id}/result.{job.spec.format}"


def rejects_name(job: Job) -> str:
    """Return the name of the file with the rejected rows."""
    return f"{job.id}/rejects.{job.spec.format}"


def too_many(max_open: int) -> str:
    """Return the message for a tenant with too many open jobs."""
    return f"too many open jobs; the limit is {max_open}; retry when a job has ended"


def unknown_job(job_id: str) -> str:
    """Return the message for a job that does not exist, or that the caller cannot see."""
    return f"unknown job {job_id[:64]!r}"


def unknown_file(name: str) -> str:
    """Return the message for a file that does not exist."""
    return f"the file {name[:120]!r} does not exist"
