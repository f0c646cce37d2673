"""A table scored from disk to disk, in constant memory: read in pieces, scored on several threads, written in order.

Threads, not processes: reading, scoring and writing all leave Python's lock, and one process has one polars and one
runtime in memory (docs/decisions/0015-score-tables-on-threads.md).
"""

from __future__ import annotations

import time
from collections import deque
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

from rowcast import tables
from rowcast.errors import InvalidRows, NoAnswer, TableError, ValueProblem
from rowcast.registry.bundle import Manifest
from rowcast.registry.ports import Graph, Reference
from rowcast.schema.outputs import output_reader
from rowcast.schema.scores import non_finite_rows

REPORTED = 20
REASONS = ("rejected_row", "rejected_column", "rejected_reason")


class Summary(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `rowcast predict --json` prints."""

    model: str
    version: int
    digest: str
    rows: int
    rejected: int
    out: str
    rejects: str | None
    seconds: float
    rows_per_second: float


class Progress(NamedTuple):
    """How far a job is."""

    rows: int
    share: float


@dataclass(frozen=True)
class Job:
    """What is asked for."""

    source: Path
    out: Path
    rejects: Path | None = None
    """Where rows that do not fit go; without it the first of them ends the job."""
    columns: tuple[str, ...] | None = None
    """The table's columns that are kept beside the predictions; all by default."""
    jobs: int = 1
    progress: Callable[[Progress], None] = field(default=lambda progress: None)


class Scored(NamedTuple):
    """A piece, scored and ready to be written."""

    out: Any
    rows: int
    """As they stand in the file, rejected ones included."""
    rejected: pl.DataFrame
    problems: list[ValueProblem]
    """`row` counts from the beginning of the piece."""
    share: float


def score_file(reference: Reference, manifest: Manifest, graphs: Sequence[Graph], job: Job) -> Summary:
    """Score one file into another; its name is taken when the last row is written, and not at all on any failure."""
    started = time.monotonic()
    _refuse_same(job)
    rows = rejected = 0
    with ExitStack() as files:
        out = files.enter_context(tables.writing(job.out))
        bad = None if job.rejects is None else files.enter_context(tables.writing(job.rejects))
        for index, piece in enumerate(_scored(manifest, graphs, job, out)):
            out.append(piece.out)
            if bad is not None:
                bad.append(bad.prepare(_with_reasons(piece, rows), first=index == 0))
            elif piece.problems:
                raise InvalidRows([_moved(problem, rows) for problem in piece.problems[:REPORTED]])
            rows += piece.rows
            rejected += piece.rejected.height
            job.progress(Progress(rows, piece.share))
        if not rows:
            raise TableError(f"{job.source.name} has a header and no rows")
    seconds = time.monotonic() - started
    return Summary(
        reference.name,
        reference.version,
        manifest.digest,
        rows - rejected,
        rejected,
        str(job.out),
        None if job.rejects is None else str(job.rejects),
        round(seconds, 3),
        round(rows / seconds, 1),
    )


def _refuse_same(job: Job) -> None:
    for path in (job.out, job.rejects):
        if path is not None:
            tables.check_name(path)
    if job.rejects is not None and job.rejects.resolve() == job.out.resolve():
        raise TableError(f"{job.out} cannot hold both the predictions and the rejected rows; name two files")


def _scored(manifest: Manifest, graphs: Sequence[Graph], job: Job, out: tables.Writer) -> Iterator[Scored]:
    """Every piece in the order of the file; no more of them are in memory than there are graphs and two."""
    idle = deque(graphs)

    def score(piece: tables.Piece, first: bool) -> Scored:
        graph = idle.popleft()  # as many as threads: one is always there
        try:
            return _score(piece, manifest, graph, job, out, first=first)
        finally:
            idle.append(graph)

    pool = ThreadPoolExecutor(len(graphs), "rowcast-batch")
    running: deque[Future[Scored]] = deque()
    try:
        for index, piece in enumerate(tables.pieces(job.source)):
            running.append(pool.submit(score, piece, index == 0))
            if len(running) > len(graphs) + 1:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _score(
    piece: tables.Piece, manifest: Manifest, graph: Graph, job: Job, out: tables.Writer, *, first: bool
) -> Scored:
    frame = piece.load()
    encoded = tables.encode_all(frame, manifest.schema, manifest.plan)
    problems, bad = encoded.problems(), encoded.rejected()
    scored = np.flatnonzero(~bad)
    output = _answers(manifest, graph, encoded.tensors, ~bad)
    silent = non_finite_rows(output)
    if silent:
        problems = sorted([*problems, *NoAnswer(scored[silent].tolist()).problems], key=_row)
        bad[scored[silent]] = True
        output = np.delete(output, silent, axis=0)
    good, rejected = (frame.filter(~bad), frame.filter(bad)) if problems else (frame, frame.clear())
    kept = good if job.columns is None else good.select(_known(good, job.columns))
    written = out.prepare(tables.with_predictions(kept, manifest.decision, output), first=first)
    return Scored(written, frame.height, rejected, problems, piece.share)


def _answers(
    manifest: Manifest, graph: Graph, tensors: Mapping[str, NDArray[Any]], good: NDArray[np.bool_]
) -> NDArray[Any]:
    """What the graph says of the good rows."""
    decision, output = manifest.decision, manifest.output
    if not good.any():
        return np.zeros((0,) if decision.task == "regression" else (0, len(decision.classes)), np.float32)
    chosen = tensors if good.all() else {name: tensor[good] for name, tensor in tensors.items()}
    return output_reader(output.kind, output.activation, decision)(graph.run(chosen))


def _row(problem: ValueProblem) -> int:
    assert isinstance(problem.row, int)
    return problem.row


def _known(frame: pl.DataFrame, columns: Sequence[str]) -> Sequence[str]:
    for name in columns:
        if name not in frame.columns:
            raise TableError(f"the table has no column {name!r} to keep; it has {', '.join(frame.columns[:12])}")
    return columns


def _with_reasons(piece: Scored, before: int) -> pl.DataFrame:
    """The rejected rows, a line each: where they stand, which columns do not fit and why, then their cells."""
    taken = [name for name in REASONS if name in piece.rejected.columns]
    if taken:
        raise TableError(f"the table already has columns named {', '.join(taken)}; rename or drop them")
    lines: dict[int, tuple[list[str], list[str]]] = {}
    for problem in piece.problems:
        assert isinstance(problem.row, int)
        columns, reasons = lines.setdefault(problem.row + before, ([], []))
        columns.append(problem.column)
        reasons.append(problem.reason)
    named = ["; ".join(columns) for columns, _ in lines.values()]
    why = ["; ".join(reasons) for _, reasons in lines.values()]
    marks = pl.DataFrame(
        dict(zip(REASONS, (list(lines), named, why), strict=True)),
        schema=dict(zip(REASONS, (pl.Int64, pl.String, pl.String), strict=True)),
    )
    return marks.hstack(piece.rejected)


def _moved(problem: ValueProblem, before: int) -> ValueProblem:
    assert isinstance(problem.row, int)
    return msgspec.structs.replace(problem, row=problem.row + before)
