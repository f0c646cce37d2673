"""Executes one job: scores the unfinished chunks of its table on an engine, and joins all chunks into the result. Each
chunk is written to a file whose name is the digest of the file's content. If a runner dies, the next runner continues
after the last finished chunk, so the result is byte-identical to that of an uninterrupted run. The engine's tasks only
score rows; this process reads the table and stores all results.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from rowcast.engines import Engine, run_in_order
from rowcast.errors import EngineUnavailable, TableError
from rowcast.history.ports import StoreWriter
from rowcast.jobs.chunk_scoring import GraphSource, with_reasons
from rowcast.jobs.job import (
    ChunkRecord,
    Job,
    JobClaim,
    JobFile,
    JobProgress,
    JobResult,
    JobStop,
    JobWarning,
    checked,
    progressed,
)
from rowcast.jobs.job_history import RowRecorder, record_job
from rowcast.jobs.job_scoring import JobChunk, JobScorer, score_job_chunk
from rowcast.jobs.ports import FileStore, JobStore
from rowcast.jobs.rules import chunk_name, input_name, rejects_name, result_name
from rowcast.jobs.table_scoring import TableScorer, in_column_order
from rowcast.registry.bundle import Manifest
from rowcast.schema.sensitive import Redactor
from rowcast.tables.pieces import encode_piece, join_pieces
from rowcast.tables.stream import read_chunks

MAX_GROWTH: Final = 20
"""The maximum ratio of a result's size to the size of the largest upload. A small compressed file can contain a very
large table."""
CHUNKS_PER_CHECK: Final = 16
UPLOAD: Final = "the uploaded table"


class JobTools(NamedTuple):
    """The stores, limits and clock with which a job is executed."""

    store: JobStore
    files: FileStore
    history: StoreWriter
    redactor: Redactor | None
    max_bytes: int
    """The maximum size of an upload."""
    lease_seconds: float
    stall_seconds: float
    """How long the engine may take to score the next chunk."""
    now: Callable[[], int]


class JobExecution:
    """Executes one claimed job."""

    def __init__(
        self, job: Job, claim: JobClaim, *, manifest: Manifest, graphs: GraphSource, engine: Engine, tools: JobTools
    ) -> None:
        self._job = job
        self._claim = claim
        self._manifest = manifest
        self._graphs = graphs
        self._engine = engine
        self._tools = tools
        self._suffix = f".{job.spec.format}"
        self._rows = RowRecorder(tools.history, job, manifest, tools.redactor) if job.spec.record == "rows" else None

    def run(self, is_stopping: Callable[[], bool]) -> JobResult:
        """Execute the job and return its result.

        Raise RowcastError if the job cannot be completed, LostClaim if the job was canceled or claimed by another
        runner, JobStop if `is_stopping` returns True, EngineUnavailable if the engine fails or stalls, and Unavailable
        if a store fails.
        """
        job, tools = self._job, self._tools
        with tools.files.local(input_name(job)) as source:
            try:
                chunks = self._score(source, is_stopping)
            except TableError as error:  # clients must not see the file's path, which the message can contain
                message = error.message.replace(str(source), UPLOAD).replace(source.name, UPLOAD)
                raise TableError(message, slug=error.slug) from None
        lines, excluded = sum(each.lines for each in chunks), sum(each.excluded for each in chunks)
        if lines == excluded:
            raise TableError("the table has no rows", slug="empty-table")
        output = self._join(result_name(job), [each.output for each in chunks])
        rejects = self._join(rejects_name(job), [each.rejects for each in chunks if each.rejects])
        rejected = sum(each.rejected for each in chunks)
        warnings: Counter[tuple[str, str]] = Counter()
        for each in chunks:
            warnings.update({(warning.column, warning.code): warning.rows for warning in each.warnings})
        result = JobResult(lines - excluded - rejected, rejected, excluded, output, rejects, self._listed(warnings))
        tools.store.change(job.id, lambda current, now: checked(current, self._claim))
        record_job(tools.history, job, result, tools.now())
        return result

    def _score(self, source: Path, is_stopping: Callable[[], bool]) -> list[ChunkRecord]:
        """Score the unfinished chunks, and return all chunks."""
        chunks = self._tools.store.chunks(self._job.id)
        finished, active = len(chunks), time.monotonic()
        spec = self._job.spec
        table = TableScorer(self._manifest, self._graphs, self._suffix, spec.columns)
        scorer = JobScorer(table, records_rows=self._rows is not None)

        def check() -> None:
            if is_stopping():
                raise JobStop
            if time.monotonic() - active > self._tools.stall_seconds:
                reason = f"no chunk was scored within {self._tools.stall_seconds:.0f} seconds"
                raise EngineUnavailable(reason, slug="engine-stalled")

        calls = islice(enumerate(read_chunks(source)), finished, None)
        results = run_in_order(self._engine, score_job_chunk, self._engine.share(scorer), calls, while_waiting=check)
        with closing(results):  # cancels the tasks
            for number, result in enumerate(results, finished):
                if is_stopping():
                    raise JobStop
                chunks.append(self._finish(number, result, chunks))
                active = time.monotonic()
        return chunks

    def _finish(self, number: int, result: JobChunk, before: Sequence[ChunkRecord]) -> ChunkRecord:
        """Store a chunk's files and entries, and then the record that marks the chunk as finished."""
        scored, rejects = result.scored, b""
        if not number or scored.rejected.height:
            offset = sum(each.lines for each in before)
            listed = with_reasons(scored.rejected, scored.problems, offset)
            rejects = encode_piece(listed, self._suffix, first=not number)
        chunk = ChunkRecord(
            number=number,
            output=self._put(scored.out),
            rejects=self._put(rejects) if rejects else "",
            lines=scored.lines,
            excluded=scored.excluded,
            rejected=scored.rejected.height,
            bytes=len(scored.out) + len(rejects),
            warnings=self._listed(scored.warnings),
        )
        chunks = [*before, chunk]
        if sum(each.bytes for each in chunks) > MAX_GROWTH * self._tools.max_bytes:
            raise TableError(
                f"the result is more than {MAX_GROWTH} times as large as the largest upload", slug="too-large"
            )
        if self._rows is not None and result.recorded is not None:
            self._rows.record(number, result.recorded)
        rows = sum(each.lines - each.excluded for each in chunks)
        progress = JobProgress(rows, sum(each.rejected for each in chunks), scored.share)
        self._tools.store.add_chunk(self._job.id, chunk, self._advance(progress))
        return chunk

    def _advance(self, progress: JobProgress) -> Callable[[Job, int], Job]:
        seconds = self._tools.lease_seconds
        return lambda job, now: progressed(checked(job, self._claim), now, progress, seconds=seconds)

    def _put(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self._tools.files.put(chunk_name(self._job, digest), content)
        return digest

    def _join(self, name: str, digests: Sequence[str]) -> JobFile:
        """Join chunks into a file."""
        files = self._tools.files

        def pieces() -> Iterator[bytes]:
            for index, digest in enumerate(digests):
                if index % CHUNKS_PER_CHECK == 0:
                    files.check()  # the result needs as much space as its chunks
                piece = b"".join(files.read(chunk_name(self._job, digest)))
                if hashlib.sha256(piece).hexdigest() != digest:
                    raise TableError("a chunk of the job is damaged; submit the job again", slug="damaged-chunk")
                yield piece

        with files.create(name) as path:
            join_pieces(pieces(), path)
            with path.open("rb") as file:
                return JobFile(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)

    def _listed(self, warnings: Counter[tuple[str, str]]) -> tuple[JobWarning, ...]:
        return tuple(
            JobWarning(each.column, each.code, each.rows) for each in in_column_order(warnings, self._manifest)
        )
