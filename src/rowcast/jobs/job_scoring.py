"""Scores one chunk of a job's table. Identical chunks have identical results in every run and on every engine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import polars as pl

from rowcast.errors import ValueProblem
from rowcast.jobs.chunk_scoring import GraphSource, in_lines, score_frame
from rowcast.jobs.job_history import RecordedRows, rows_to_record
from rowcast.jobs.table_scoring import count_rows, existing_columns, unusual_rows
from rowcast.registry.bundle import Manifest
from rowcast.schema.range_checks import RangeCheck
from rowcast.tables.pieces import encode_piece
from rowcast.tables.stream import Chunk
from rowcast.tables.write import with_predictions


@dataclass(frozen=True)
class JobScorer:
    """What a task needs to score a chunk of a job. It is picklable, and contains no secrets."""

    manifest: Manifest
    graphs: GraphSource
    suffix: str
    """The result's file extension."""
    columns: tuple[str, ...] | None
    """The table columns to copy to the result; None for all columns."""
    records_rows: bool
    """Whether the history records every row."""

    @cached_property
    def ranges(self) -> RangeCheck:
        """The check for values outside the ranges seen in training."""
        return RangeCheck(self.manifest.schema, self.manifest.plan)


class JobChunk(NamedTuple):
    """A scored chunk."""

    output: bytes
    """The chunk's part of the result."""
    lines: int
    excluded: int
    rejected: pl.DataFrame
    problems: list[ValueProblem]
    """The problems in the rejected rows; each `row` is a line index in the chunk, starting at 0."""
    share: float
    warnings: Counter[tuple[str, str]]
    recorded: RecordedRows | None


def score_job_chunk(scorer: JobScorer, index: int, chunk: Chunk) -> JobChunk:
    """Score the chunk with this index. The result depends only on the arguments."""
    manifest = scorer.manifest
    rows = chunk.load()
    frame = rows.frame
    scored = score_frame(frame, manifest, scorer.graphs.graph)
    mask = scored.rejected
    good, bad = (frame.filter(~mask), frame.filter(mask)) if scored.problems else (frame, frame.clear())
    copied = good if scorer.columns is None else good.select(existing_columns(good, scorer.columns))
    predicted = with_predictions(copied, manifest.decision, scored.output)
    unusual = unusual_rows(scored.encoded, scorer.ranges, ~mask)
    return JobChunk(
        output=encode_piece(predicted, scorer.suffix, first=index == 0),
        lines=rows.height,
        excluded=len(rows.excluded),
        rejected=bad,
        problems=in_lines(scored.problems, rows),
        share=chunk.share,
        warnings=count_rows(unusual),
        recorded=rows_to_record(scored, unusual, manifest) if scorer.records_rows else None,
    )
