"""The job routes: submit a table, follow its progress, and download the result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse

from rowcast.access.callers import Caller
from rowcast.errors import NotFound, Overloaded, RequestError
from rowcast.http.authentication import model_for, require
from rowcast.http.cold_app import ColdApp, JsonResponse
from rowcast.http.cold_routes import caller
from rowcast.http.idempotency import VALID_KEY
from rowcast.http.job_uploads import UploadLimits, receive_table
from rowcast.jobs.job import Job, JobPage, JobStatus, status_of
from rowcast.jobs.service import JobService, Submission

if TYPE_CHECKING:
    from rowcast.serving.deployment import Deployment
    from rowcast.serving.interface import ModelInterface


class JobEvent(msgspec.Struct, frozen=True):
    """A server-sent event. `data` is the job as JSON."""

    event: Literal["job"]
    data: Annotated[str, msgspec.Meta(extra_json_schema={"contentMediaType": "application/json"})]


POLL_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 15.0
MAX_STREAMS = 100
"""The maximum number of clients that can follow jobs through one server process at the same time."""
TABLE_TYPES = ("text/csv", "application/x-ndjson", "application/vnd.apache.parquet", "application/octet-stream")
OPTIONS: dict[str, dict[str, Any]] = {
    "model": {"type": "string", "description": "`NAME` or `NAME@VERSION`; if omitted, the default model is used."},
    "format": {
        "type": "string",
        "enum": ["csv", "csv.gz", "jsonl", "parquet"],
        "description": "The format of the result; by default, the format of the table.",
    },
    "columns": {
        "type": "string",
        "description": "The columns to copy to the result, separated by commas; by default, all columns.",
    },
    "record": {
        "type": "string",
        "enum": ["job", "rows"],
        "description": "`job` records one history entry for the whole job; `rows` also records an entry for each row.",
    },
    "engine": {
        "type": "string",
        "enum": ["local", "ray"],
        "description": "`local` scores the table on one machine; `ray` scores it on the server's Ray cluster "
        "and is refused if the server has none.",
    },
}
SUBMIT_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary"}, **OPTIONS},
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["rows"],
                "properties": {"rows": {"type": "array", "minItems": 1, "items": {"type": "object"}}},
            }
        },
        **{media: {"schema": {"type": "string", "format": "binary"}} for media in TABLE_TYPES},
    },
}
SUBMIT_PARAMETERS: list[dict[str, Any]] = [
    *(
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": {key: value for key, value in schema.items() if key != "description"},
            "description": schema["description"],
        }
        for name, schema in OPTIONS.items()
    ),
    {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        "description": "If a request is repeated with the same key and table, the first job is returned.",
    },
]
DOWNLOAD: dict[str, Any] = {
    "response": str,
    "media_types": ("text/csv", "application/gzip", "application/x-ndjson", "application/vnd.apache.parquet"),
    "problems": ("not-found", "job-not-done", "unavailable"),
    "tags": ["jobs"],
}
JobLimit = Annotated[int, Query(ge=1, le=1000, description="Maximum number of jobs per page.")]
JobCursor = Annotated[str | None, Query(max_length=64, description="The value of `next` on the previous page.")]


def add_job_routes(
    cold: ColdApp,
    jobs: JobService,
    deployment: Deployment[ModelInterface],
    *,
    max_json_bytes: int,
    is_draining: Callable[[], bool],
) -> None:
    """Add the routes. Event streams end when the server shuts down."""
    _add_submit_route(cold, jobs, deployment, UploadLimits(jobs.limits.upload_bytes, max_json_bytes))
    _add_status_routes(cold, jobs)
    _add_event_route(cold, jobs, is_draining)
    _add_download_routes(cold, jobs)


def _add_submit_route(
    cold: ColdApp, jobs: JobService, deployment: Deployment[ModelInterface], limits: UploadLimits
) -> None:
    @cold.route(
        "POST",
        "/jobs",
        "predict",
        response=JobStatus,
        status=202,
        is_streamed=True,
        problems=(
            "malformed-body",
            "empty-body",
            "bad-option",
            "model-not-found",
            "body-too-large",
            "unsupported-encoding",
            "unsupported-media-type",
            "no-rows",
            "not-an-object",
            "repeat-differs",
            "unavailable",
            "overloaded",
            "disk-low",
        ),
        tags=["jobs"],
        summary="Score a table in the background",
        openapi_extra={"requestBody": SUBMIT_BODY, "parameters": SUBMIT_PARAMETERS},
    )
    async def submit(request: Request) -> Response:
        key = request.headers.get("idempotency-key", "").encode("latin-1")
        if "idempotency-key" in request.headers and not VALID_KEY(key):
            raise RequestError("Idempotency-Key must be 1 to 255 visible ASCII characters", slug="bad-option")
        received = await receive_table(request, jobs.files, limits)
        try:
            model = model_for(caller(request), deployment, received.options.model)
        except BaseException:
            await asyncio.to_thread(jobs.files.delete, received.upload.job_id)
            raise
        submission = Submission(received.options, model, caller(request), request.scope["state"]["request_id"], key)
        job = await asyncio.to_thread(jobs.submit, received.upload, submission)
        location = f"{request.scope.get('root_path', '')}/jobs/{job.id}"
        return JsonResponse(status_of(job), status_code=202, headers={"location": location})


def _add_status_routes(cold: ColdApp, jobs: JobService) -> None:
    @cold.route(
        "GET",
        "/jobs",
        response=JobPage,
        problems=("unavailable",),
        tags=["jobs"],
        summary="The jobs that the caller can see, newest first",
    )
    def list_jobs(request: Request, limit: JobLimit = 50, cursor: JobCursor = None) -> JobPage:
        for name in request.query_params:
            if name not in ("limit", "cursor"):
                raise RequestError(f"unknown option {name[:40]!r}; known options: limit, cursor", slug="bad-option")
        return jobs.page(caller(request), limit, cursor)

    @cold.route(
        "GET",
        "/jobs/{job_id}",
        response=JobStatus,
        problems=("not-found", "unavailable"),
        tags=["jobs"],
        summary="A job's state and progress",
    )
    def show_job(job_id: str, request: Request) -> JobStatus:
        return status_of(jobs.get(job_id.lower(), caller(request)))

    @cold.route(
        "POST",
        "/jobs/{job_id}/cancel",
        response=JobStatus,
        problems=("not-found", "unavailable"),
        tags=["jobs"],
        summary="Cancel a job and delete its files; this has no effect on a job that has ended",
    )
    def cancel(job_id: str, request: Request) -> JobStatus:
        require(caller(request), "predict")
        return status_of(jobs.cancel(job_id.lower(), caller(request)))


def _add_event_route(cold: ColdApp, jobs: JobService, is_draining: Callable[[], bool]) -> None:
    streams: set[str] = set()

    @cold.route(
        "GET",
        "/jobs/{job_id}/events",
        response=JobEvent,
        media_types=("text/event-stream",),
        problems=("not-found", "overloaded", "unavailable"),
        tags=["jobs"],
        summary="Server-sent events with the state of a job; the stream ends when the job ends",
    )
    async def follow(job_id: str, request: Request) -> Response:
        if len(streams) >= MAX_STREAMS:
            raise Overloaded("too many clients are following jobs; retry after 1 s, or poll /jobs/{job_id}")
        who, request_id = caller(request), request.scope["state"]["request_id"]
        first = await asyncio.to_thread(jobs.get, job_id.lower(), who)

        async def events() -> AsyncIterator[bytes]:
            streams.add(request_id)
            try:
                async for event in _events(jobs, first, who, is_draining):
                    yield event
            finally:
                streams.discard(request_id)

        return StreamingResponse(events(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def _events(jobs: JobService, job: Job, who: Caller, is_draining: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Yield an event whenever the job changes, and a comment if it has not changed for a while."""
    shown, sent_at = b"", 0.0
    while True:
        document = msgspec.json.encode(status_of(job))
        now = time.monotonic()
        if document != shown:
            shown, sent_at = document, now
            yield b"event: job\ndata: %b\n\n" % document
        elif now - sent_at > KEEP_ALIVE_SECONDS:
            sent_at = now
            yield b": keep-alive\n\n"
        if not job.is_open or is_draining():
            return
        await asyncio.sleep(POLL_SECONDS)
        try:
            job = await asyncio.to_thread(jobs.get, job.id, who)
        except NotFound:  # the job has expired
            return


def _add_download_routes(cold: ColdApp, jobs: JobService) -> None:
    def download(job_id: str, request: Request, *, rejects: bool) -> Response:
        file = jobs.download(job_id.lower(), caller(request), rejects=rejects)
        headers = {
            "content-disposition": f'attachment; filename="{file.name}"',
            "content-length": str(file.file.bytes),
            "etag": f'"{file.file.sha256}"',
        }
        return StreamingResponse(file.pieces, headers=headers, media_type=file.media_type)

    @cold.route("GET", "/jobs/{job_id}/result", summary="The table with the predictions", **DOWNLOAD)
    def send_result(job_id: str, request: Request) -> Response:
        return download(job_id, request, rejects=False)

    @cold.route(
        "GET", "/jobs/{job_id}/rejects", summary="The rows that could not be scored, with the reasons", **DOWNLOAD
    )
    def send_rejects(job_id: str, request: Request) -> Response:
        return download(job_id, request, rejects=True)
