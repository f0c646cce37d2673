"""Receive a job's table, and stream it to the file store up to a maximum size.

A table arrives as a file in a form (`multipart/form-data`), as JSON rows, or as the raw body. Blocking work runs
in threads.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import IO, Any, NamedTuple

import msgspec
from fastapi import Request
from starlette.requests import ClientDisconnect

from rowcast.errors import BodyError, RequestError
from rowcast.http.multipart import MultipartEvent, MultipartParser, PartData, PartStart
from rowcast.jobs.job import JobFile
from rowcast.jobs.ports import FileStore
from rowcast.jobs.service import Upload, new_job_id
from rowcast.jobs.uploads import SNIFFED_BYTES, JobOptions, UploadFormat, parse_options, sniff_format

WRITE_BYTES = 1024 * 1024
CHECKED_BYTES = 64 * 1024 * 1024
MAX_FIELD_BYTES = 64 * 1024
FILE_FIELD = "file"
FORM = "multipart/form-data"
JSON = "application/json"


class UploadLimits(NamedTuple):
    """The maximum sizes of a table and of JSON rows, in bytes."""

    table: int
    rows: int


class ReceivedTable(NamedTuple):
    """A stored table and the options that came with it."""

    upload: Upload
    options: JobOptions


class UploadWriter:
    """Writes a table to the file store chunk by chunk. Call `finish` or `discard` at the end."""

    def __init__(self, files: FileStore, max_bytes: int) -> None:
        self.job_id = new_job_id()
        self._files = files
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._size = 0
        self._unchecked = 0
        """The number of bytes that have been written since the free space was last checked."""
        self._digest = hashlib.sha256()
        self._format: UploadFormat | None = None
        self._file: IO[bytes] | None = None
        self._stack = ExitStack()

    async def write(self, content: bytes) -> None:
        """Append a chunk; raise BodyError if the table is too large."""
        self._size += len(content)
        if self._size > self._max_bytes:
            raise too_large(self._max_bytes)
        self._buffer += content
        if len(self._buffer) >= WRITE_BYTES:
            await asyncio.to_thread(self._flush)

    async def finish(self) -> Upload:
        """Store the table and return it."""
        if not self._size:
            raise BodyError("the table is empty", slug="empty-body")
        await asyncio.to_thread(self._publish)
        assert self._format is not None
        return Upload(self.job_id, self._format, JobFile(self._digest.hexdigest(), self._size))

    async def discard(self) -> None:
        """Delete the table, unless it has been stored."""
        await asyncio.to_thread(self._abandon)

    def _flush(self) -> None:
        content = bytes(self._buffer)
        self._buffer.clear()
        if self._file is None:
            self._format = sniff_format(content[:SNIFFED_BYTES])
            path = self._stack.enter_context(self._files.create(f"{self.job_id}/{self._format.name}"))
            self._file = self._stack.enter_context(path.open("wb"))
        self._digest.update(content)
        self._file.write(content)
        self._unchecked += len(content)
        if self._unchecked >= CHECKED_BYTES:
            self._unchecked = 0
            self._files.check()

    def _publish(self) -> None:
        self._flush()
        assert self._file is not None
        self._file.close()
        self._stack.close()

    def _abandon(self) -> None:
        error = BodyError("the upload was abandoned")
        self._stack.__exit__(BodyError, error, None)
        self._files.delete(self.job_id)


async def receive_table(request: Request, files: FileStore, limits: UploadLimits) -> ReceivedTable:
    """Store the table in a request; raise RequestError if the request is invalid."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limits.table + MAX_FIELD_BYTES:
        raise too_large(limits.table)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise RequestError(
            "send the table without a content encoding; the file itself can be compressed with gzip",
            slug="unsupported-encoding",
        )
    writer = UploadWriter(files, limits.table)
    query = dict(request.query_params)
    try:
        if media == FORM:
            fields = await _receive_form(request, writer)
            options = parse_options({**query, **fields})
        else:
            options = parse_options(query)
            if media == JSON or media.endswith("+json"):
                await _receive_rows(request, writer, limits.rows)
            else:
                async for piece in _body(request):
                    await writer.write(piece)
        return ReceivedTable(await writer.finish(), options)
    except BaseException:
        await asyncio.shield(writer.discard())
        raise


async def _receive_form(request: Request, writer: UploadWriter) -> dict[str, str]:
    """Store the file uploaded in a form, and return the other fields."""
    parser = MultipartParser(request.headers["content-type"].encode("latin-1"))
    form = _Form(writer)
    async for piece in _body(request):
        for event in parser.feed(piece):
            await form.add(event)
    if not parser.is_complete:
        raise BodyError("the multipart body is incomplete")
    return form.fields()


class _Form:
    """The fields of a form, except the file."""

    def __init__(self, writer: UploadWriter) -> None:
        self._writer = writer
        self._values: dict[str, bytearray] = {}
        self._name = ""
        self._has_file = False
        self._size = 0

    async def add(self, event: MultipartEvent) -> None:
        if isinstance(event, PartStart):
            self._name = event.name
            if event.name == FILE_FIELD:
                if self._has_file:
                    raise BodyError("the form has more than one file")
                self._has_file = True
            elif event.name in self._values:
                raise BodyError("the form has two fields with the same name")
            else:
                self._values[event.name] = bytearray()
        elif isinstance(event, PartData):
            if self._name == FILE_FIELD:
                await self._writer.write(event.content)
            else:
                self._size += len(event.content)
                if self._size > MAX_FIELD_BYTES:
                    raise BodyError(f"the form fields are larger than {MAX_FIELD_BYTES} bytes in total")
                self._values[self._name] += event.content

    def fields(self) -> dict[str, str]:
        if not self._has_file:
            raise BodyError(f"the form has no field {FILE_FIELD!r}; send the table in this field", slug="empty-body")
        return {name: value.decode("utf-8", "replace") for name, value in self._values.items()}


async def _receive_rows(request: Request, writer: UploadWriter, max_bytes: int) -> None:
    """Store JSON rows as JSON Lines. The body is a list of rows, or an object with such a list in `rows`."""
    pieces: list[bytes] = []
    size = 0
    async for piece in _body(request):
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise BodyError(
                f"the JSON rows are larger than {max_bytes} bytes; send the table as a file", slug="body-too-large"
            )
    lines = await asyncio.to_thread(_to_lines, b"".join(pieces))
    await writer.write(lines)


def _to_lines(body: bytes) -> bytes:
    try:
        document: Any = msgspec.json.decode(body)
        rows = document["rows"] if isinstance(document, dict) and document.keys() == {"rows"} else document
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise BodyError("the body is not valid JSON") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RequestError(
            'expected a list of rows, or {"rows": [...]}, where each row is an object', slug="not-an-object"
        )
    if not rows:
        raise RequestError("the list of rows is empty", slug="no-rows")
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for piece in request.stream():
            yield piece
    except ClientDisconnect:
        raise BodyError("the connection was closed before the whole table had arrived") from None


def too_large(max_bytes: int) -> BodyError:
    """Return the error for a table that is too large."""
    return BodyError(f"the table is larger than {max_bytes} bytes; split it into several jobs", slug="body-too-large")
