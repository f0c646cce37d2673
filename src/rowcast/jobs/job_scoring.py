"""Scores one chunk of a job's table. Identical chunks have identical results in every run and on every engine."""

from __future__ import annotations

from typing import NamedTuple

from rowcast.jobs.job_history import RecordedRows, rows_to_record
from rowcast.jobs.table_scoring import ScoredChunk, TableScorer, score_and_encode
from rowcast.tables.pieces import encode_piece
from rowcast.tables.stream import Chunk


class JobScorer(NamedTuple):
    """What a task needs to score a chunk of a job. It is picklable, and contains no secrets."""

    table: TableScorer
    records_rows: bool
    """Whether the history records every row."""


class JobChunk(NamedTuple):
    """A scored chunk. Its `out` contains the bytes of the chunk's part of the result."""

    scored: ScoredChunk
    recorded: RecordedRows | None
    """The rows for the history; None if the history does not record every row."""


def score_job_chunk(scorer: JobScorer, index: int, chunk: Chunk) -> JobChunk:
    """Score the chunk with this index. The result depends only on the arguments."""
    table = scorer.table
    scores = score_and_encode(table, chunk, lambda frame: encode_piece(frame, table.suffix, first=index == 0))
    recorded = rows_to_record(scores.scored, scores.unusual, table.manifest) if scorer.records_rows else None
    return JobChunk(scores.chunk, recorded)
