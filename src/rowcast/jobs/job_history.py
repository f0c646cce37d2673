"""Records jobs in the history: one entry for each job and, if requested, one entry for each scored row.

Each chunk is a separate writer. The ids and salts of its entries are derived from the job's secret and the row's
position. Scoring a chunk again therefore produces the same entries, and the store adds each entry only once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

import msgspec
import numpy as np

from rowcast.history.chain import NO_ROW, SALT_BYTES, Chain, Draft, Entry, SealedEntry, encode_head, genesis, link
from rowcast.history.ports import StoreWriter
from rowcast.history.records import JOB_LABEL, JOB_SOURCE
from rowcast.jobs.chunk_scoring import ScoredRows
from rowcast.jobs.job import Job, JobResult
from rowcast.jobs.table_scoring import UnusualRows
from rowcast.registry.bundle import Manifest
from rowcast.schema.encoding import OUT_OF_RANGE, OUTSIDE, UNSEEN, UNSEEN_CATEGORY, RowWarning, limit_warnings
from rowcast.schema.identity import uuid7_randomness, uuid7s
from rowcast.schema.prediction import Score, encode_replies
from rowcast.schema.schema import Column
from rowcast.schema.scores import score_rows
from rowcast.schema.sensitive import Redactor
from rowcast.tables.encode import ParsedColumn

ENTRIES_PER_WRITE: Final = 2_000
MESSAGES: Final = {OUT_OF_RANGE: OUTSIDE, UNSEEN_CATEGORY: UNSEEN}
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class RecordedRows(msgspec.Struct, frozen=True):
    """A chunk's scored rows, with all the data for their history entries."""

    scores: Sequence[Score]
    warnings: Sequence[tuple[RowWarning, ...]]
    rows: Sequence[bytes]
    """The rows as JSON, with canonical values. Sensitive values are not redacted yet."""


class JobEvidence(msgspec.Struct, frozen=True):
    """The facts about a job that its history entry contains."""

    rows: int
    rejected: int
    input_sha256: str
    output_sha256: str
    rejects_sha256: str


class JobReply(msgspec.Struct, frozen=True):
    """The reply in a job's entry. It has the fields of a prediction, so that history filters can find the entry."""

    id: str
    model: str
    version: int
    prediction: str
    job: JobEvidence


def rows_to_record(scored: ScoredRows, unusual: UnusualRows, manifest: Manifest) -> RecordedRows:
    """Return the data for a chunk's history entries. This needs no secret, so any machine can do it."""
    schema = manifest.schema
    places = np.flatnonzero(~scored.rejected).tolist()
    columns = [_values(scored.encoded.columns[column.name], column, places) for column in schema.columns]
    names = schema.names()
    rows = [msgspec.json.encode(dict(zip(names, cells, strict=True))) for cells in zip(*columns, strict=True)]
    scores = score_rows(manifest.decision, scored.output) if places else []
    return RecordedRows(scores, _row_warnings(unusual, names, places), rows)


class RowRecorder:
    """Records the rows of a job. Used only in the runner, which has the job's secret and the redaction key."""

    def __init__(self, store: StoreWriter, job: Job, manifest: Manifest, redactor: Redactor | None) -> None:
        self._store = store
        self._job = job
        self._schema = manifest.schema
        self._redactor = redactor
        self._withheld = () if redactor is None else redactor.withheld_columns(manifest.schema)

    def record(self, number: int, recorded: RecordedRows) -> None:
        """Store the entries of the chunk with this number."""
        writer = f"job-{self._job.id}-{number}"
        entries = self._entries(writer, number, recorded)
        position = self._store.position(writer)
        for _ in range(0 if position is None else position.seq + 1):
            next(entries)  # stored by an earlier attempt
        while part := list(islice(entries, ENTRIES_PER_WRITE)):
            self._store.record(writer, part)

    def _entries(self, writer: str, number: int, recorded: RecordedRows) -> Iterator[SealedEntry]:
        job, count = self._job, len(recorded.rows)
        seed = hashlib.sha256(job.secret + number.to_bytes(8)).digest()
        salts = hashlib.shake_256(b"salts" + seed).digest(SALT_BYTES * count)
        random = hashlib.shake_256(b"ids" + seed).digest(uuid7_randomness(count))
        replies = encode_replies(
            job.spec.model,
            job.spec.version,
            ids=uuid7s(job.started // 1_000, random),
            scores=recorded.scores,
            warnings=recorded.warnings,
            cached=[False] * count,
        )
        chain = Chain(writer)
        for index, (reply, row) in enumerate(zip(replies, self._redacted(recorded.rows), strict=True)):
            salt = salts[index * SALT_BYTES : (index + 1) * SALT_BYTES]
            head = encode_head(_entry(job, job.started, reply, self._withheld))
            yield chain.seal(Draft(head, salt, row))

    def _redacted(self, rows: Sequence[bytes]) -> Iterator[bytes]:
        for row in rows:
            yield self._redactor.redact(self._schema, row) if self._redactor is not None and self._withheld else row


def record_job(store: StoreWriter, job: Job, result: JobResult, now: int) -> None:
    """Store the history entry of a finished job. The entry has no row, so an erasure cannot change it."""
    spec = job.spec
    evidence = JobEvidence(result.rows, result.rejected, spec.input_sha256, result.output.sha256, result.rejects.sha256)
    reply = msgspec.json.encode(JobReply(job.id, spec.model, spec.version, JOB_LABEL, evidence))
    writer = f"job-{job.id}"
    head = encode_head(_entry(job, now, reply, ()))
    store.record(writer, [SealedEntry(0, head, None, None, NO_ROW, link(genesis(writer), 0, head, NO_ROW))])


def _entry(job: Job, at: int, reply: bytes, withheld: tuple[str, ...]) -> Entry:
    owner = job.owner
    return Entry(
        at, job.spec.digest, JOB_SOURCE, owner.request_id, reply, owner.key_id, owner.tenant, withheld=withheld
    )


def _values(cells: ParsedColumn, column: Column, places: list[int]) -> list[Any]:
    """Return a column's canonical values, in the form in which a client would send them."""
    values, missing = cells.values[places].tolist(), cells.missing[places].tolist()
    convert = _CONVERTERS.get(column.kind, str)
    return [None if absent else convert(value) for value, absent in zip(values, missing, strict=True)]


def _moment(microseconds: int) -> str:
    return (EPOCH + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds")


_CONVERTERS: Final[dict[str, Any]] = {"number": float, "integer": int, "boolean": bool, "datetime": _moment}


def _row_warnings(unusual: UnusualRows, names: Sequence[str], places: list[int]) -> list[tuple[RowWarning, ...]]:
    listed: list[list[RowWarning]] = [[] for _ in places]
    for (column, code), mask in sorted(unusual.items(), key=lambda item: names.index(item[0][0])):
        warning = RowWarning(column, code, MESSAGES[code])
        for index in np.flatnonzero(mask[places]).tolist():
            listed[index].append(warning)
    return [limit_warnings(warnings) for warnings in listed]
