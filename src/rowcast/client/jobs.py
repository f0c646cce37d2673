"""Jobs: submit a table, wait until it is scored, and download the result.

`Client.jobs` is a `Jobs`, and `AsyncClient.jobs` is its counterpart for asyncio.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import msgspec

from rowcast.client.batches import Rows, rows_of
from rowcast.client.calls import ApiCall, Download, is_header_value
from rowcast.client.encoding import encode
from rowcast.client.errors import BadCall, BadReply, JobNotDone
from rowcast.client.exchange import HttpReply, HttpRequest
from rowcast.jobs.job import JobEngine, JobPage, JobRecording, JobStatus, ResultFormat

T = TypeVar("T")
Table = str | Path | Rows
ACCEPTED = frozenset({202})
OPEN_STATES = ("queued", "running")
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
UPLOAD_SECONDS = 3600.0


class SubmitArguments(TypedDict, total=False):
    """The keyword arguments of `submit`."""

    format: ResultFormat
    """The result's format; by default, the same as the table's format."""
    columns: Sequence[str]
    """The columns to copy to the result; by default, all columns."""
    record: JobRecording
    """`rows` records every row in the history; `job` (the default) records only the job."""
    engine: JobEngine
    """`ray` scores the table on the server's Ray cluster; `local` (the default) scores it on one machine."""
    idempotency_key: str
    """Replaces the generated Idempotency-Key. Repeating a call with the same key and table returns the first job."""
    timeout: float
    """Timeout in seconds for the upload, including retries."""


class JobWait:
    """Decides how long to pause between two polls of a job's state."""

    def __init__(self, timeout: float | None, now: float) -> None:
        self._end = math.inf if timeout is None else now + timeout
        self._pause = SHORTEST_PAUSE

    def pause(self, job: JobStatus, now: float) -> float | None:
        """Return the next pause, or None if the job has ended; raise JobNotDone if the timeout has expired."""
        if job.state not in OPEN_STATES:
            return None
        if now >= self._end:
            raise JobNotDone(f"job {job.id} is still {job.state}")
        self._pause = min(LONGEST_PAUSE, 1.5 * self._pause)
        return min(self._pause, self._end - now)


def submit_call(table: Table, model: str | None, options: SubmitArguments) -> ApiCall[JobStatus]:
    """Return the call that submits a job. A file is streamed; rows are sent as JSON Lines."""
    key = options.get("idempotency_key") or uuid.uuid4().hex
    if not is_header_value(key):
        raise BadCall("idempotency_key must be 1 to 255 visible ASCII characters")
    columns = options.get("columns")
    query = {
        "model": model,
        "format": options.get("format"),
        "columns": None if columns is None else ",".join(columns),
        "record": options.get("record"),
        "engine": options.get("engine"),
    }
    path = Path(table) if isinstance(table, str | Path) else None
    request = HttpRequest(
        "POST",
        "/jobs",
        query=tuple((name, value) for name, value in query.items() if value is not None),
        headers={
            "content-type": "application/x-ndjson" if path is None else "application/octet-stream",
            "idempotency-key": key,
        },
        body=None if isinstance(table, str | Path) else _to_lines(table),
        file=path,
        success_statuses=ACCEPTED,
    )
    return ApiCall(request, _read_job)


def job_call(job_id: str) -> ApiCall[JobStatus]:
    """Return the call that fetches a job."""
    return ApiCall(HttpRequest("GET", f"/jobs/{_checked_id(job_id)}"), _read_job)


def cancel_call(job_id: str) -> ApiCall[JobStatus]:
    """Return the call that cancels a job. The call is idempotent, so it can be retried."""
    return ApiCall(HttpRequest("POST", f"/jobs/{_checked_id(job_id)}/cancel"), _read_job)


def page_call(limit: int, cursor: str | None) -> ApiCall[JobPage]:
    """Return the call that fetches a page of jobs."""
    query = [("limit", str(limit)), *([("cursor", cursor)] if cursor is not None else [])]
    return ApiCall(HttpRequest("GET", "/jobs", query=tuple(query)), lambda reply: _decode(reply, JobPage))


def download_call(job_id: str, what: Literal["result", "rejects"], file: Download) -> ApiCall[int]:
    """Return the call that downloads one of a job's files."""
    request = HttpRequest("GET", f"/jobs/{_checked_id(job_id)}/{what}", sink=file)
    return ApiCall(request, lambda reply: file.size)


class Perform(Protocol):
    """Sends a call and returns its decoded reply."""

    def __call__(self, call: ApiCall[T], timeout: float | None = None) -> T: ...


class PerformAsync(Protocol):
    """Sends a call and returns its decoded reply."""

    async def __call__(self, call: ApiCall[T], timeout: float | None = None) -> T: ...  # noqa: ASYNC109


class Jobs:
    """Submits, follows and cancels a server's jobs."""

    def __init__(self, perform: Perform) -> None:
        self._perform = perform

    def submit(self, table: Table, model: str | None = None, **options: Unpack[SubmitArguments]) -> JobStatus:
        """Submit a table, given as a path, a data frame or rows; return the new job.

        If `model` is None, the server uses its default model.
        """
        return self._perform(submit_call(table, model, options), options.get("timeout", UPLOAD_SECONDS))

    def get(self, job_id: str) -> JobStatus:
        """Return a job."""
        return self._perform(job_call(job_id))

    def list(self, *, page: int = 100) -> Iterator[JobStatus]:
        """Yield the jobs that the caller can see, newest first; fetch up to `page` jobs per request."""
        cursor = None
        while True:
            batch = self._perform(page_call(page, cursor))
            yield from batch.jobs
            if (cursor := batch.next) is None:
                return

    def wait(
        self, job_id: str, *, timeout: float | None = None, progress: Callable[[JobStatus], None] = lambda job: None
    ) -> JobStatus:
        """Wait until a job has ended, and return it; raise JobNotDone after `timeout` seconds.

        `progress` is called with the job after each poll.
        """
        wait = JobWait(timeout, time.monotonic())
        while True:
            job = self.get(job_id)
            progress(job)
            if (pause := wait.pause(job, time.monotonic())) is None:
                return job
            time.sleep(pause)

    def cancel(self, job_id: str) -> JobStatus:
        """Cancel a job and return it. This has no effect on a job that has ended."""
        return self._perform(cancel_call(job_id))

    def result(self, job_id: str, path: str | Path) -> int:
        """Download the result to a file and return the file's size. The file appears only when it is complete."""
        return self._download(job_id, "result", path)

    def rejects(self, job_id: str, path: str | Path) -> int:
        """Download the rejected rows to a file and return the file's size, in the same way as `result`."""
        return self._download(job_id, "rejects", path)

    def _download(self, job_id: str, what: Literal["result", "rejects"], path: str | Path) -> int:
        file = Download(path)
        try:
            size = self._perform(download_call(job_id, what, file), UPLOAD_SECONDS)
            file.publish()
        finally:
            file.discard()
        return size


class AsyncJobs:
    """The counterpart of `Jobs` for asyncio."""

    def __init__(self, perform: PerformAsync) -> None:
        self._perform = perform

    async def submit(self, table: Table, model: str | None = None, **options: Unpack[SubmitArguments]) -> JobStatus:
        """See `Jobs.submit`."""
        call = await asyncio.to_thread(submit_call, table, model, options)
        return await self._perform(call, options.get("timeout", UPLOAD_SECONDS))

    async def get(self, job_id: str) -> JobStatus:
        """See `Jobs.get`."""
        return await self._perform(job_call(job_id))

    async def list(self, *, page: int = 100) -> AsyncIterator[JobStatus]:
        """See `Jobs.list`."""
        cursor = None
        while True:
            batch = await self._perform(page_call(page, cursor))
            for job in batch.jobs:
                yield job
            if (cursor := batch.next) is None:
                return

    async def wait(
        self,
        job_id: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
        progress: Callable[[JobStatus], None] = lambda job: None,
    ) -> JobStatus:
        """See `Jobs.wait`."""
        wait = JobWait(timeout, time.monotonic())
        while True:
            job = await self.get(job_id)
            progress(job)
            if (pause := wait.pause(job, time.monotonic())) is None:
                return job
            await asyncio.sleep(pause)

    async def cancel(self, job_id: str) -> JobStatus:
        """See `Jobs.cancel`."""
        return await self._perform(cancel_call(job_id))

    async def result(self, job_id: str, path: str | Path) -> int:
        """See `Jobs.result`."""
        return await self._download(job_id, "result", path)

    async def rejects(self, job_id: str, path: str | Path) -> int:
        """See `Jobs.rejects`."""
        return await self._download(job_id, "rejects", path)

    async def _download(self, job_id: str, what: Literal["result", "rejects"], path: str | Path) -> int:
        file = Download(path)
        try:
            size = await self._perform(download_call(job_id, what, file), UPLOAD_SECONDS)
            await asyncio.to_thread(file.publish)
        finally:
            file.discard()
        return size


def _to_lines(rows: Rows) -> bytes:
    return b"".join(encode(row, f"row {number}") + b"\n" for number, row in enumerate(rows_of(rows)))


def _checked_id(job_id: str) -> str:
    if not job_id:
        raise BadCall("the job id must not be empty")
    return quote(job_id, safe="")


def _read_job(reply: HttpReply) -> JobStatus:
    return _decode(reply, JobStatus)


def _decode(reply: HttpReply, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BadReply("unexpected response body; check that the URL belongs to a compatible Rowcast server") from None


def read_pieces(path: Path, size: int = 256 * 1024) -> Iterator[bytes]:
    """Yield the content of a file to upload; raise BadCall if it cannot be read."""
    try:
        with path.open("rb") as file:
            while piece := file.read(size):
                yield piece
    except OSError as error:
        raise BadCall(f"cannot read {path}: {error.strerror}") from None


def file_size(path: Path) -> int:
    """Return the size of a file; raise BadCall if it does not exist."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise BadCall(f"cannot read {path}: {error.strerror}") from None
