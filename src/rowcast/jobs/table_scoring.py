"""Scores the rows in a table file in constant memory, and writes the predictions to another file.

The table is read in chunks. Several threads score the chunks, and the main thread writes the results in order. Threads
are sufficient, because reading, scoring and writing release the global interpreter lock. Several processes would each
need a copy of polars and ONNX Runtime (docs/decisions/0015-score-tables-in-parallel-threads.md).
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.errors import InvalidRows, NoAnswer, TableError, ValueProblem
from rowcast.output_files import is_same_file, refuse_overwriting
from rowcast.registry.bundle import Manifest
from rowcast.registry.ports import Graph, Reference
from rowcast.schema.encoding import OUT_OF_RANGE, UNSEEN_CATEGORY
from rowcast.schema.outputs import output_reader
from rowcast.schema.range_checks import RangeCheck
from rowcast.schema.scores import non_finite_rows
from rowcast.tables.encode import EncodedTable, encode_all
from rowcast.tables.line_numbers import find_lines
from rowcast.tables.stream import Chunk, read_chunks
from rowcast.tables.table import closest
from rowcast.tables.write import TableWriter, check_extension, open_writer, refuse_existing, with_predictions

MAX_PROBLEMS = 20
REJECT_COLUMNS = ("rejected_row", "rejected_column", "rejected_reason")


class ColumnWarning(msgspec.Struct, frozen=True):
    """The number of scored rows with an unusual value in a column; the codes are those of the server's warnings."""

    column: str
    code: str
    rows: int


class Summary(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of scoring a table, which `rowcast predict` can print as JSON."""

    model: str
    version: int
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


class Progress(NamedTuple):
    """The number of rows processed so far, and the fraction of the file that has been processed."""

    rows: int
    share: float


@dataclass(frozen=True)
class ScoringOptions:
    """What to score and where to write the results."""

    source: Path
    out: Path
    rejects: Path | None = None
    """The file for rejected rows. If this is None, scoring fails at the first invalid row."""
    columns: tuple[str, ...] | None = None
    """The table columns to copy to the output; all columns by default."""
    threads: int = 1
    progress: Callable[[Progress], None] = field(default=lambda progress: None)


class ScoredChunk(NamedTuple):
    """A scored chunk of the table, ready to be written."""

    out: Any
    lines: int
    """The number of lines in the chunk, including rejected rows and excluded lines."""
    excluded: int
    """The number of lines that are not rows."""
    rejected: pl.DataFrame
    problems: list[ValueProblem]
    """The problems in the rejected rows; each `row` is a line of the chunk, counted from 0."""
    share: float
    warnings: Counter[tuple[str, str]]
    """The number of scored rows with each warning, by column and code."""


def score_file(
    reference: Reference, manifest: Manifest, *, graphs: Sequence[Graph], options: ScoringOptions
) -> Summary:
    """Score the rows in a file, and write the predictions to another file.

    The output files appear only after all rows have been processed.

    Raise InvalidRows if a row is invalid and there is no file for rejected rows.
    Raise TableError if a file cannot be read or written.
    """
    started = time.monotonic()
    _check_outputs(options)
    lines = excluded = rejected = 0
    warnings: Counter[tuple[str, str]] = Counter()
    with ExitStack() as files:
        out = files.enter_context(open_writer(options.out))
        rejects = None if options.rejects is None else files.enter_context(open_writer(options.rejects))
        for index, chunk in enumerate(_scored_chunks(manifest, graphs=graphs, options=options, out=out)):
            out.append(chunk.out)
            if rejects is not None:
                rejects.append(rejects.prepare(_with_reasons(chunk, lines), first=index == 0))
            elif chunk.problems:
                raise InvalidRows(_located(chunk.problems[:MAX_PROBLEMS], lines, options.source))
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
        model=reference.name,
        version=reference.version,
        digest=manifest.digest,
        rows=rows - rejected,
        rejected=rejected,
        out=str(options.out),
        rejects=None if options.rejects is None else str(options.rejects),
        seconds=round(seconds, 3),
        rows_per_second=round(rows / seconds, 1),
        excluded=excluded,
        warnings=_in_column_order(warnings, manifest),
    )


def _in_column_order(warnings: Counter[tuple[str, str]], manifest: Manifest) -> tuple[ColumnWarning, ...]:
    names = manifest.schema.names()
    ordered = sorted(warnings.items(), key=lambda item: names.index(item[0][0]))
    return tuple(ColumnWarning(column, code, rows) for (column, code), rows in ordered)


def _check_outputs(options: ScoringOptions) -> None:
    for path in (options.out, options.rejects):
        if path is not None:
            check_extension(path)
            refuse_overwriting(path, [options.source])
    if options.rejects is not None and is_same_file(options.rejects, options.out):
        raise TableError(
            f"predictions and rejected rows cannot both be written to {options.out}; choose two different files",
            slug="same-file",
        )


def _scored_chunks(
    manifest: Manifest, *, graphs: Sequence[Graph], options: ScoringOptions, out: TableWriter
) -> Iterator[ScoredChunk]:
    """Yield all chunks in file order. At most `len(graphs) + 2` chunks are in memory."""
    idle = deque(graphs)
    ranges = RangeCheck(manifest.schema, manifest.plan)

    def score(chunk: Chunk, first: bool) -> ScoredChunk:
        graph = idle.popleft()  # never empty: there are as many graphs as threads
        try:
            return _score(chunk, manifest, graph, ranges, options=options, out=out, first=first)
        finally:
            idle.append(graph)

    pool = ThreadPoolExecutor(len(graphs), "rowcast-batch")
    running: deque[Future[ScoredChunk]] = deque()
    try:
        for index, chunk in enumerate(read_chunks(options.source)):
            running.append(pool.submit(score, chunk, index == 0))
            if len(running) > len(graphs) + 1:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _score(
    chunk: Chunk,
    manifest: Manifest,
    graph: Graph,
    ranges: RangeCheck,
    *,
    options: ScoringOptions,
    out: TableWriter,
    first: bool,
) -> ScoredChunk:
    rows = chunk.load()
    frame = rows.frame
    encoded = encode_all(frame, manifest.schema, manifest.plan)
    problems, rejected = encoded.problems(), encoded.rejected()
    scored = np.flatnonzero(~rejected)
    output = _run_graph(manifest, graph, tensors=encoded.tensors, valid=~rejected)
    unanswered = non_finite_rows(output)
    if unanswered:
        problems = sorted([*problems, *NoAnswer(scored[unanswered].tolist()).problems], key=_row)
        rejected[scored[unanswered]] = True
        output = np.delete(output, unanswered, axis=0)
    good, bad = (frame.filter(~rejected), frame.filter(rejected)) if problems else (frame, frame.clear())
    copied = good if options.columns is None else good.select(_existing(good, options.columns))
    prepared = out.prepare(with_predictions(copied, manifest.decision, output), first=first)
    if rows.excluded and problems:
        positions = rows.positions().tolist()
        problems = [msgspec.structs.replace(problem, row=positions[_row(problem)]) for problem in problems]
    return ScoredChunk(
        out=prepared,
        lines=rows.height,
        excluded=len(rows.excluded),
        rejected=bad,
        problems=problems,
        share=chunk.share,
        warnings=_count_warnings(encoded, ranges, ~rejected),
    )


def _count_warnings(encoded: EncodedTable, ranges: RangeCheck, scored: NDArray[np.bool_]) -> Counter[tuple[str, str]]:
    """Count the scored rows that a server would answer with a warning, by column and code."""
    counts = {(each.column, OUT_OF_RANGE): int((each.rows & scored).sum()) for each in ranges.find(encoded.tensors)}
    for name, cells in encoded.columns.items():
        if cells.unseen is not None:
            counts[name, UNSEEN_CATEGORY] = int((cells.unseen & scored).sum())
    return Counter({key: count for key, count in counts.items() if count})


def _run_graph(
    manifest: Manifest, graph: Graph, *, tensors: Mapping[str, NDArray[Any]], valid: NDArray[np.bool_]
) -> NDArray[Any]:
    """Return the output of the graph for the valid rows."""
    decision, output = manifest.decision, manifest.output
    if not valid.any():
        return np.zeros((0,) if decision.task == "regression" else (0, len(decision.classes)), np.float32)
    inputs = tensors if valid.all() else {name: tensor[valid] for name, tensor in tensors.items()}
    return output_reader(output.kind, output.activation, decision)(graph.run(inputs))


def _row(problem: ValueProblem) -> int:
    assert isinstance(problem.row, int)
    return problem.row


def _existing(frame: pl.DataFrame, columns: Sequence[str]) -> Sequence[str]:
    for name in columns:
        if name not in frame.columns:
            hint = closest(name, frame.columns)
            raise TableError(f"the table has no column {name!r} to copy to the output; {hint}", slug="unknown-column")
    return columns


def _with_reasons(chunk: ScoredChunk, offset: int) -> pl.DataFrame:
    """Return the rejected rows with three added columns: row number, invalid columns and reasons."""
    refuse_existing(chunk.rejected, REJECT_COLUMNS)
    rejects: dict[int, tuple[list[str], list[str]]] = {}
    for problem in chunk.problems:
        columns, reasons = rejects.setdefault(_row(problem) + offset, ([], []))
        columns.append(problem.column)
        reasons.append(problem.reason)
    cells = (
        list(rejects),
        ["; ".join(columns) for columns, _ in rejects.values()],
        ["; ".join(reasons) for _, reasons in rejects.values()],
    )
    marks = pl.DataFrame(
        dict(zip(REJECT_COLUMNS, cells, strict=True)),
        schema=dict(zip(REJECT_COLUMNS, (pl.Int64, pl.String, pl.String), strict=True)),
    )
    return marks.hstack(chunk.rejected)


def _located(problems: Sequence[ValueProblem], offset: int, source: Path) -> list[ValueProblem]:
    """Return the problems of a chunk with the row numbers and, in a text file, the line numbers in the whole file."""
    rows = [_row(problem) + offset for problem in problems]
    lines = find_lines(source, set(rows))
    return [
        msgspec.structs.replace(problem, row=row, line=lines.get(row, msgspec.UNSET))
        for problem, row in zip(problems, rows, strict=True)
    ]
