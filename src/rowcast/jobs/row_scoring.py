"""Scores selected rows of a table on an engine, and keeps the outputs in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.engines import Engine, run_in_order
from rowcast.errors import InvalidRows, TableError, ValueProblem
from rowcast.jobs.chunk_scoring import (
    MAX_PROBLEMS,
    GraphSource,
    Progress,
    in_lines,
    located,
    problem_row,
    score_frame,
    with_reasons,
)
from rowcast.registry.bundle import Manifest
from rowcast.tables.columns import Source, chunks_of
from rowcast.tables.stream import Chunk
from rowcast.tables.write import open_writer


@dataclass(frozen=True)
class RowSelection:
    """The rows to score. Each mask has one entry per row; excluded lines of a file are not rows."""

    selected: NDArray[np.bool_]
    sampled: NDArray[np.bool_]
    """The sampled rows. Cells are returned only for sampled rows that are selected and can be scored."""
    starts: tuple[int, ...]
    """The index of each chunk's first row, followed by the number of rows in the table."""
    reason: Callable[[int], ValueProblem]
    """Returns why a row is not selected."""


@dataclass(frozen=True)
class RowScoringOptions:
    """What to score and where to write the rejected rows."""

    source: Source
    rejects: Path | None = None
    """The file for rejected rows. If this is None, scoring fails at the first row that cannot be scored."""
    progress: Callable[[Progress], None] = field(default=lambda progress: None)


@dataclass(frozen=True)
class RowOutputs:
    """The outputs for the selected rows that can be scored."""

    output: NDArray[Any]
    rows: NDArray[np.intp]
    """The row number of each output, not counting excluded lines."""
    rejected: int
    """The number of selected rows that cannot be scored."""
    sample: pl.DataFrame
    """The cells of the sampled rows, with the model's columns only."""
    sample_places: NDArray[np.intp]
    """The position of each sampled row in `rows`."""


class _ScoredPart(NamedTuple):
    """The outputs for one chunk, and its rejected rows."""

    output: NDArray[Any]
    rows: NDArray[np.intp]
    sample: pl.DataFrame
    unscored: int
    rejected: pl.DataFrame
    problems: list[ValueProblem]
    """The problems in the rejected rows; each `row` is a line index in the chunk, starting at 0."""
    invalid: list[ValueProblem]
    """The problems in the selected rows only."""
    lines: int
    share: float


class _RowScorer(NamedTuple):
    """What a task needs to score the selected rows of a chunk."""

    manifest: Manifest
    graphs: GraphSource
    selection: RowSelection


def score_selected(
    manifest: Manifest, selection: RowSelection, *, graphs: GraphSource, engine: Engine, options: RowScoringOptions
) -> RowOutputs:
    """Score the selected rows of a table.

    Raise InvalidRows if a selected row cannot be scored and there is no file for rejected rows.
    Raise TableError if a file cannot be read or written, or if no row can be scored.
    """
    scorer = engine.share(_RowScorer(manifest, graphs, selection))
    parts: list[_ScoredPart] = []
    lines = rows = 0
    with ExitStack() as files:
        rejects = None if options.rejects is None else files.enter_context(open_writer(options.rejects))
        for index, part in enumerate(run_in_order(engine, _score, scorer, enumerate(chunks_of(options.source)))):
            if rejects is not None:
                rejected = with_reasons(part.rejected, part.problems, lines)
                rejects.append(rejects.prepare(rejected, first=index == 0))
            elif part.invalid:
                raise InvalidRows(located(part.invalid[:MAX_PROBLEMS], lines, options.source))
            lines, rows = lines + part.lines, selection.starts[index + 1]
            options.progress(Progress(rows, part.share))
            parts.append(part._replace(rejected=part.rejected.clear(), problems=[], invalid=[]))
    return _joined(parts, selection)


def _joined(parts: Sequence[_ScoredPart], selection: RowSelection) -> RowOutputs:
    outputs = [part.output for part in parts if len(part.output)]
    rejected = sum(part.unscored for part in parts)
    if not outputs:
        raise TableError(f"the model cannot score any of the {rejected} rows with a target value", slug="no-scored-row")
    measured = np.concatenate([part.rows for part in parts])
    sample = pl.concat([part.sample for part in parts])
    return RowOutputs(np.concatenate(outputs), measured, rejected, sample, np.flatnonzero(selection.sampled[measured]))


def _score(scorer: _RowScorer, index: int, chunk: Chunk) -> _ScoredPart:
    manifest, selection = scorer.manifest, scorer.selection
    rows = chunk.load()
    frame = rows.frame
    start, end = selection.starts[index : index + 2] if index + 1 < len(selection.starts) else (0, 0)
    if end - start != frame.height:
        raise TableError("the table was changed while it was being read; run the command again", slug="table-changed")
    selected = selection.selected[start:end]
    places = np.flatnonzero(selected)
    scored = score_frame(frame.filter(selected), manifest, scorer.graphs.graph)
    invalid = [_at(problem, int(places[problem_row(problem)])) for problem in scored.problems]
    measured = selected.copy()
    measured[places[scored.rejected]] = False
    skipped = np.flatnonzero(~selected).tolist()
    unselected = [_at(selection.reason(start + row), row) for row in skipped]
    columns = [name for name in manifest.schema.names() if name in frame.columns]
    return _ScoredPart(
        output=scored.output,
        rows=start + np.flatnonzero(measured),
        sample=frame.filter(measured & selection.sampled[start:end]).select(columns),
        unscored=int(scored.rejected.sum()),
        rejected=frame.filter(~measured),
        problems=in_lines(sorted([*invalid, *unselected], key=problem_row), rows),
        invalid=in_lines(invalid, rows),
        lines=rows.height,
        share=chunk.share,
    )


def _at(problem: ValueProblem, row: int) -> ValueProblem:
    return msgspec.structs.replace(problem, row=row)
