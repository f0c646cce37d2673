"""Scores the rows in a table file in constant memory, and writes the predictions to another file.

The table is read in chunks. An engine scores the chunks, and the main thread writes the results in order.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
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
    ScoredRows,
    in_lines,
    located,
    score_frame,
    with_reasons,
)
from rowcast.output_files import is_same_file, refuse_overwriting
from rowcast.registry.bundle import Manifest
from rowcast.schema.encoding import OUT_OF_RANGE, UNSEEN_CATEGORY
from rowcast.schema.range_checks import RangeCheck
from rowcast.tables.encode import EncodedTable
from rowcast.tables.stream import Chunk, read_chunks
from rowcast.tables.table import closest
from rowcast.tables.write import check_extension, extension, open_writer, prepare_frame, with_predictions


class ColumnWarning(msgspec.Struct, frozen=True):
    """The number of scored rows with an unusual value in a column; the codes are the same as in the server's
    warnings."""

    column: str
    code: str
    rows: int


class Summary(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of scoring a table, which `rowcast predict` can print as JSON."""

    model: str
    version: int | None
    """None if the model was given as a folder or an archive."""
    digest: str
    rows: int
    rejected: int
    out: str
    rejects: str | None
    seconds: float
    rows_per_second: float
    excluded: int = 0
    """The number of lines that are not rows: a second header line, and lines without values."""
    warnings: tuple[ColumnWarning, ...] = ()
    """The values that did not occur in training, by column."""


@dataclass(frozen=True)
class ScoringOptions:
    """What to score and where to write the results."""

    source: Path
    out: Path
    rejects: Path | None = None
    """The file for rejected rows. If this is None, scoring fails at the first invalid row."""
    columns: tuple[str, ...] | None = None
    """The table columns to copy to the output; all columns by default."""
    progress: Callable[[Progress], None] = field(default=lambda progress: None)


@dataclass(frozen=True)
class TableScorer:
    """What a task needs to score a chunk of a table. It is picklable."""

    manifest: Manifest
    graphs: GraphSource
    suffix: str
    """The output file's extension."""
    columns: tuple[str, ...] | None
    """The table columns to copy to the output; None for all columns."""

    @cached_property
    def ranges(self) -> RangeCheck:
        """The check for values outside the ranges seen in training."""
        return RangeCheck(self.manifest.schema, self.manifest.plan)


class ScoredChunk(NamedTuple):
    """A scored chunk of the table, ready to be written."""

    out: Any
    lines: int
    """The number of lines in the chunk, including rejected rows and excluded lines."""
    excluded: int
    """The number of lines that are not rows."""
    rejected: pl.DataFrame
    problems: list[ValueProblem]
    """The problems in the rejected rows; each `row` is a line index in the chunk, starting at 0."""
    share: float
    warnings: Counter[tuple[str, str]]
    """The number of scored rows with each warning, by column and code."""


def score_file(
    name: str, version: int | None, manifest: Manifest, *, graphs: GraphSource, engine: Engine, options: ScoringOptions
) -> Summary:
    """Score the rows in a file, and write the predictions to another file.

    The output files appear only after all rows have been processed.

    Raise InvalidRows if a row is invalid and there is no file for rejected rows.
    Raise TableError if a file cannot be read or written.
    """
    started = time.monotonic()
    check_outputs(options)
    lines = excluded = rejected = 0
    warnings: Counter[tuple[str, str]] = Counter()
    scorer = engine.share(TableScorer(manifest, graphs, extension(options.out), options.columns))
    with ExitStack() as files:
        out = files.enter_context(open_writer(options.out))
        rejects = None if options.rejects is None else files.enter_context(open_writer(options.rejects))
        for index, chunk in enumerate(
            run_in_order(engine, score_chunk, scorer, enumerate(read_chunks(options.source)))
        ):
            out.append(chunk.out)
            if rejects is not None:
                rejected_rows = with_reasons(chunk.rejected, chunk.problems, lines)
                rejects.append(rejects.prepare(rejected_rows, first=index == 0))
            elif chunk.problems:
                raise InvalidRows(located(chunk.problems[:MAX_PROBLEMS], lines, options.source))
            lines += chunk.lines
            excluded += chunk.excluded
            rejected += chunk.rejected.height
            warnings += chunk.warnings
            options.progress(Progress(lines - excluded, chunk.share))
        rows = lines - excluded
        if not rows:
            raise TableError(f"{options.source.name} has no rows", slug="empty-table")
    seconds = time.monotonic() - started
    return Summary(
        model=name,
        version=version,
        digest=manifest.digest,
        rows=rows - rejected,
        rejected=rejected,
        out=str(options.out),
        rejects=None if options.rejects is None else str(options.rejects),
        seconds=round(seconds, 3),
        rows_per_second=round(rows / seconds, 1),
        excluded=excluded,
        warnings=in_column_order(warnings, manifest),
    )


def in_column_order(warnings: Counter[tuple[str, str]], manifest: Manifest) -> tuple[ColumnWarning, ...]:
    """Return the warnings in the order of the model's columns."""
    names = manifest.schema.names()
    ordered = sorted(warnings.items(), key=lambda item: names.index(item[0][0]))
    return tuple(ColumnWarning(column, code, rows) for (column, code), rows in ordered)


def check_outputs(options: ScoringOptions) -> None:
    """Raise TableError if an output file has an unknown extension or would overwrite another file of this run."""
    for path in (options.out, options.rejects):
        if path is not None:
            check_extension(path)
            refuse_overwriting(path, [options.source])
    if options.rejects is not None and is_same_file(options.rejects, options.out):
        raise TableError(
            f"predictions and rejected rows cannot both be written to {options.out}; choose two different files",
            slug="same-file",
        )


def score_chunk(scorer: TableScorer, index: int, chunk: Chunk) -> ScoredChunk:
    """Score a chunk of a table. The result depends only on the arguments, so it is the same on every engine."""
    return score_and_encode(scorer, chunk, lambda frame: prepare_frame(scorer.suffix, frame, first=index == 0)).chunk


class ChunkScores(NamedTuple):
    """A scored chunk, with the scores that it contains."""

    chunk: ScoredChunk
    scored: ScoredRows
    unusual: UnusualRows


def score_and_encode(scorer: TableScorer, chunk: Chunk, encode: Callable[[pl.DataFrame], Any]) -> ChunkScores:
    """Score a chunk; `encode` converts the predictions into the part of the output."""
    manifest = scorer.manifest
    rows = chunk.load()
    frame = rows.frame
    scored = score_frame(frame, manifest, scorer.graphs.graph)
    mask = scored.rejected
    good, bad = (frame.filter(~mask), frame.filter(mask)) if scored.problems else (frame, frame.clear())
    copied = good if scorer.columns is None else good.select(existing_columns(good, scorer.columns))
    predicted = with_predictions(copied, manifest.decision, scored.output)
    unusual = unusual_rows(scored.encoded, scorer.ranges, ~mask)
    result = ScoredChunk(
        out=encode(predicted),
        lines=rows.height,
        excluded=len(rows.excluded),
        rejected=bad,
        problems=in_lines(scored.problems, rows),
        share=chunk.share,
        warnings=count_rows(unusual),
    )
    return ChunkScores(result, scored, unusual)


UnusualRows = Mapping[tuple[str, str], NDArray[np.bool_]]
"""For each column and warning code, a mask of the scored rows that have the warning."""


def unusual_rows(encoded: EncodedTable, ranges: RangeCheck, scored: NDArray[np.bool_]) -> UnusualRows:
    """Return the scored rows for which a server would return a warning."""
    if not len(scored):
        return {}  # the range check cannot handle empty tensors
    masks = {(each.column, OUT_OF_RANGE): each.rows & scored for each in ranges.find(encoded.tensors)}
    for name, cells in encoded.columns.items():
        if cells.unseen is not None:
            masks[name, UNSEEN_CATEGORY] = cells.unseen & scored
    return masks


def count_rows(unusual: UnusualRows) -> Counter[tuple[str, str]]:
    """Return the number of rows with each warning; omit warnings that no row has."""
    return Counter({key: count for key, mask in unusual.items() if (count := int(mask.sum()))})


def existing_columns(frame: pl.DataFrame, columns: Sequence[str]) -> Sequence[str]:
    """Return the columns; raise TableError if the table lacks one of them."""
    for name in columns:
        if name not in frame.columns:
            hint = closest(name, frame.columns)
            raise TableError(f"the table has no column {name!r} to copy to the output; {hint}", slug="unknown-column")
    return columns
