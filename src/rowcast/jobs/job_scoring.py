"""Scores one chunk of a job's table. Identical chunks have identical results in every run and thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from rowcast.errors import ValueProblem
from rowcast.jobs.chunk_scoring import in_lines, score_frame
from rowcast.jobs.job_history import RecordedRows, RowRecorder
from rowcast.jobs.table_scoring import count_rows, existing_columns, unusual_rows
from rowcast.registry.bundle import Manifest
from rowcast.registry.ports import Graph
from rowcast.schema.range_checks import RangeCheck
from rowcast.tables.pieces import encode_piece
from rowcast.tables.stream import Chunk
from rowcast.tables.write import with_predictions


class JobChunk(NamedTuple):
    """A scored chunk."""

    output: bytes
    """The chunk's part of the result."""
    lines: int
    excluded: int
    rejected: pl.DataFrame
    problems: list[ValueProblem]
    """The problems in the rejected rows; each `row` is a line of the chunk, counted from 0."""
    share: float
    warnings: Counter[tuple[str, str]]
    recorded: RecordedRows | None


class JobScorer:
    """Scores the chunks of one job. `score` can be called in any thread."""

    def __init__(
        self, manifest: Manifest, columns: Sequence[str] | None, suffix: str, recorder: RowRecorder | None
    ) -> None:
        self._manifest = manifest
        self._columns = columns
        self._suffix = suffix
        self._recorder = recorder
        self._ranges = RangeCheck(manifest.schema, manifest.plan)

    def score(self, index: int, chunk: Chunk, graph: Graph) -> JobChunk:
        """Score the chunk with this index."""
        rows = chunk.load()
        frame, decision = rows.frame, self._manifest.decision
        scored = score_frame(frame, self._manifest, graph)
        mask = scored.rejected
        good, bad = (frame.filter(~mask), frame.filter(mask)) if scored.problems else (frame, frame.clear())
        copied = good if self._columns is None else good.select(existing_columns(good, self._columns))
        unusual = unusual_rows(scored.encoded, self._ranges, ~mask)
        return JobChunk(
            output=encode_piece(with_predictions(copied, decision, scored.output), self._suffix, first=index == 0),
            lines=rows.height,
            excluded=len(rows.excluded),
            rejected=bad,
            problems=in_lines(scored.problems, rows),
            share=chunk.share,
            warnings=count_rows(unusual),
            recorded=None if self._recorder is None else self._recorder.prepare(scored, unusual),
        )
