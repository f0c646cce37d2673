"""Builds the job service for servers and workers, and runs jobs."""

from __future__ import annotations

import math
import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rowcast.app.engines import LOCAL, open_job_engine, ray_problem
from rowcast.app.history import require_driver, store, utc_microseconds
from rowcast.errors import BundleError, SettingsError
from rowcast.setting_values import hide_credentials

if TYPE_CHECKING:
    from rowcast.jobs.job import Job, JobClaim, JobResult
    from rowcast.jobs.ports import FileStore, JobStore
    from rowcast.jobs.runner import Execute
    from rowcast.jobs.service import JobService
    from rowcast.runtime.job_child import JobRunnerChild
    from rowcast.settings import Settings

IDLE_SECONDS = 30.0
"""The time after which an idle runner exits. A runner needs more memory than a server."""
WORKER_SECONDS = 10.0
"""A worker that has not been seen for this long is assumed to be dead."""
DAY_SECONDS = 86_400.0
MEBIBYTE = 1024 * 1024
SPARE = 2
"""Jobs require this many times `min_free_mb` of free disk space, so that enough is left for predictions."""
LOW_PRIORITY = 5
STALL_SECONDS = 600.0
"""If a Ray cluster scores no chunk for this long, the job is postponed. A cluster may need minutes to start a node."""


class JobParts(NamedTuple):
    """The parts of a server or worker that handle jobs."""

    service: JobService
    child: JobRunnerChild


def job_store(settings: Settings) -> JobStore:
    """Return the store of jobs, without opening it."""
    if settings.has_postgresql_store:
        require_driver()
        from rowcast.adapters.postgresql.jobs import PostgresJobStore

        return PostgresJobStore(settings.store_url)
    from rowcast.adapters.sqlite.jobs import SqliteJobStore

    return SqliteJobStore(settings.jobs_file)


def file_store(settings: Settings) -> FileStore:
    """Return the store of job files, without opening it."""
    location = settings.files or str(settings.home / "files")
    scheme, separator, rest = location.partition("://")
    if scheme == "s3" and rest.partition("/")[0]:
        return _bucket(location)
    if separator and scheme != "file":
        raise SettingsError(
            f"setting 'files' is {hide_credentials(location)!r}; expected a folder, file:///PATH or s3://BUCKET/PATH"
        )
    from rowcast.adapters.files.job_files import FolderFileStore

    return FolderFileStore(Path(rest if separator else location), SPARE * settings.min_free_mb * MEBIBYTE)


def check_jobs(settings: Settings) -> str:
    """Check the job stores, and return where job files are stored; raise RowcastError if a store cannot be used."""
    jobs, files = job_store(settings), file_store(settings)
    try:
        jobs.check()
        files.check()
    finally:
        jobs.close()
    return f"files are in {settings.files or settings.home / 'files'}"


def _bucket(url: str) -> FileStore:
    try:
        from rowcast.adapters.objects.job_files import ObjectFileStore
    except ImportError:
        raise SettingsError("setting 'files' is an S3 URL, but obstore is not installed; install rowcast[s3]") from None
    return ObjectFileStore(url)


def job_parts(settings: Settings, *, is_worker: bool = False) -> JobParts:
    """Return the job service, and the part that keeps the job runner running, for a server or a worker."""
    from rowcast.jobs.service import JobLimits, JobService
    from rowcast.runtime.job_child import JobRunnerChild

    jobs, files = job_store(settings), file_store(settings)
    environment = settings.for_child()
    is_needed = _runner_check(settings, jobs, files, is_worker=is_worker)
    child = JobRunnerChild([sys.executable, "-m", "rowcast.cli", "job-runner"], environment, is_needed)
    limits = JobLimits(
        upload_bytes=settings.job_upload_mb * MEBIBYTE,
        open_jobs=settings.max_jobs,
        keep_seconds=settings.job_days * DAY_SECONDS,
        ray_problem=ray_problem(settings),
    )
    return JobParts(JobService(jobs, files, limits, child.wake), child)


def _runner_check(settings: Settings, jobs: JobStore, files: FileStore, *, is_worker: bool) -> Callable[[], bool]:
    from rowcast.adapters.files.job_lock import is_runner_running

    worker = uuid.uuid4().hex

    def is_needed() -> bool:
        if is_worker:
            jobs.register_worker(worker, files.place)
        elif not _may_have_jobs(settings):
            return False
        if not jobs.is_work_due(files.place) or is_runner_running(settings.run_folder):
            return False
        return is_worker or not jobs.has_worker(files.place, WORKER_SECONDS)

    return is_needed


def _may_have_jobs(settings: Settings) -> bool:
    """Return whether there may be any jobs, without opening a database."""
    return settings.has_postgresql_store or settings.jobs_file.exists()


def _has_shared_store(settings: Settings) -> bool:
    return settings.has_postgresql_store


def run_jobs(settings: Settings, wait: Callable[[float], bool]) -> None:
    """Run jobs until `wait` returns True or no jobs are left. Only one process per home folder runs jobs."""
    from rowcast.adapters.files.job_lock import runner_lock
    from rowcast.jobs import runner

    name = uuid.uuid4().hex
    with runner_lock(settings.run_folder, name) as dead_runner:
        if dead_runner is None:
            return
        os.nice(LOW_PRIORITY)  # predictions come first
        jobs, files = job_store(settings), file_store(settings)
        job_runner = runner.JobRunner(jobs, files, _executor(settings, jobs, files), name=name, dead_runner=dead_runner)
        try:
            runner.run_jobs(job_runner, wait=wait, idle_seconds=IDLE_SECONDS, now=utc_microseconds)
        finally:
            jobs.close()


def _executor(settings: Settings, jobs: JobStore, files: FileStore) -> Execute:
    """Return the function that executes a job. Table libraries are imported when the first job arrives."""

    def execute(job: Job, claim: JobClaim, is_stopping: Callable[[], bool]) -> JobResult:
        from rowcast.adapters.onnxruntime.graph import open_graph
        from rowcast.app.models import registry
        from rowcast.app.serving import redactor
        from rowcast.jobs.chunk_scoring import GraphSource
        from rowcast.jobs.execution import JobExecution, JobTools
        from rowcast.jobs.runner import LEASE_SECONDS
        from rowcast.registry import bundle
        from rowcast.registry.ports import Reference

        reference = Reference(job.spec.model, job.spec.version)
        opened = bundle.open(registry(settings).folder(reference))
        if opened.manifest.digest != job.spec.digest:
            raise BundleError(f"{reference} was replaced after the job was submitted")
        with store(settings) as history, open_job_engine(settings, job.spec.engine) as engine:
            tools = JobTools(
                store=jobs,
                files=files,
                history=history,
                redactor=redactor(settings),
                max_bytes=settings.job_upload_mb * MEBIBYTE,
                lease_seconds=LEASE_SECONDS,
                stall_seconds=math.inf if job.spec.engine == LOCAL else STALL_SECONDS,
                now=utc_microseconds,
            )
            graphs = GraphSource(opened.model, opened.manifest.output.name, open_graph)
            execution = JobExecution(job, claim, manifest=opened.manifest, graphs=graphs, engine=engine, tools=tools)
            return execution.run(is_stopping)

    return execute
