"""Scores the chunks of a table on an engine, in the order of the file.

On one machine, threads are sufficient, because reading, scoring and writing release the global interpreter lock.
Several processes would each need a copy of polars and ONNX Runtime
(docs/decisions/0015-score-tables-in-parallel-threads.md).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.errors import NoAnswer, ValueProblem
from rowcast.registry.bundle import Manifest
from rowcast.registry.ports import Graph, OpenGraph
from rowcast.schema.outputs import output_reader
from rowcast.schema.scores import non_finite_rows
from rowcast.tables.columns import Source
from rowcast.tables.encode import EncodedTable, encode_all
from rowcast.tables.line_numbers import find_lines
from rowcast.tables.stream import Rows
from rowcast.tables.write import refuse_existing

MAX_PROBLEMS: Final = 20
REJECT_COLUMNS: Final = ("rejected_row", "rejected_column", "rejected_reason")


class Progress(NamedTuple):
    """The number of rows processed so far, and the fraction of the file that has been processed."""

    rows: int
    share: float


class ScoredRows(NamedTuple):
    """The output for the valid rows of a frame, and the problems in the other rows."""

    output: NDArray[Any]
    """Probabilities [N, k], values [N] or class indices [N], for the valid rows only."""
    rejected: NDArray[np.bool_]
    """A mask of the rows that cannot be scored."""
    problems: list[ValueProblem]
    """The problems in the rejected rows; each `row` is a position in the frame."""
    encoded: EncodedTable


class GraphSource:
    """Loads a model's graph in each thread that scores chunks. It is picklable."""

    def __init__(self, model: bytes, output: str, open_graph: OpenGraph) -> None:
        self._arguments = model, output, open_graph
        self._loaded = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    @property
    def graph(self) -> Graph:
        """This thread's graph; raise BundleError if the graph cannot be loaded."""
        if not hasattr(self._loaded, "graph"):
            model, output, open_graph = self._arguments
            self._loaded.graph = open_graph(model, output)
        graph: Graph = self._loaded.graph
        return graph


def score_frame(frame: pl.DataFrame, manifest: Manifest, graph: Graph) -> ScoredRows:
    """Score the valid rows of a frame."""
    encoded = encode_all(frame, manifest.schema, manifest.plan)
    problems, rejected = encoded.problems(), encoded.rejected()
    scored = np.flatnonzero(~rejected)
    output = _run_graph(manifest, graph, tensors=encoded.tensors, valid=~rejected)
    unanswered = non_finite_rows(output)
    if unanswered:
        problems = sorted([*problems, *NoAnswer(scored[unanswered].tolist()).problems], key=problem_row)
        rejected[scored[unanswered]] = True
        output = np.delete(output, unanswered, axis=0)
    return ScoredRows(output, rejected, problems, encoded)


def _run_graph(
    manifest: Manifest, graph: Graph, *, tensors: Mapping[str, NDArray[Any]], valid: NDArray[np.bool_]
) -> NDArray[Any]:
    """Return the graph's output for the valid rows."""
    decision, output = manifest.decision, manifest.output
    if not valid.any():
        return np.zeros((0,) if decision.task == "regression" else (0, len(decision.classes)), np.float32)
    inputs = tensors if valid.all() else {name: tensor[valid] for name, tensor in tensors.items()}
    return output_reader(output.kind, output.activation, decision)(graph.run(inputs))


def problem_row(problem: ValueProblem) -> int:
    """Return the problem's row, which is always set for a table."""
    assert isinstance(problem.row, int)
    return problem.row


def in_lines(problems: list[ValueProblem], rows: Rows) -> list[ValueProblem]:
    """Return the problems with `row` converted from a position in the frame to a line index in the chunk."""
    if not rows.excluded:
        return problems
    positions = rows.positions().tolist()
    return [msgspec.structs.replace(problem, row=positions[problem_row(problem)]) for problem in problems]


def with_reasons(rejected: pl.DataFrame, problems: Sequence[ValueProblem], offset: int) -> pl.DataFrame:
    """Return the rejected rows with three added columns: row number, invalid columns and reasons.

    `offset` is added to the row number of each problem.
    """
    refuse_existing(rejected, REJECT_COLUMNS)
    rejects: dict[int, tuple[list[str], list[str]]] = {}
    for problem in problems:
        columns, reasons = rejects.setdefault(problem_row(problem) + offset, ([], []))
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
    return marks.hstack(rejected)


def located(problems: Sequence[ValueProblem], offset: int, source: Source) -> list[ValueProblem]:
    """Return a chunk's problems with their row numbers and, for a text file, line numbers in the whole file."""
    rows = [problem_row(problem) + offset for problem in problems]
    lines = find_lines(source, set(rows)) if isinstance(source, Path) else {}
    return [
        msgspec.structs.replace(problem, row=row, line=lines.get(row, msgspec.UNSET))
        for problem, row in zip(problems, rows, strict=True)
    ]
