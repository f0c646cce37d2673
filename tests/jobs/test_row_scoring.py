"""Selected rows are scored once, in order; all other rows are either only counted or written to a file together with
the reason."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.engines import ThreadEngine
from rowcast.errors import InvalidRows, TableError, ValueProblem
from rowcast.jobs.chunk_scoring import GraphSource
from rowcast.jobs.row_scoring import RowOutputs, RowScoringOptions, RowSelection, score_selected
from rowcast.tables import stream
from rowcast.tables.columns import read_columns
from rowcast.tables.read import read_table
from support import models

ROWS = 100


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit each chunk to a few lines."""
    monkeypatch.setattr(stream, "BLOCK", 200)


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """A bundle whose model adds x0 and x1."""
    registry = models.FolderRegistry(tmp_path / "models")
    schema = models.number_columns(2)
    reference = models.publish(registry, "sum", models.sum_graph(2), schema, models.REGRESSION, "values")
    return models.bundle.open(registry.folder(reference))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A table with a second header line; its second-to-last row is invalid."""
    path = tmp_path / "rows.csv"
    lines = [f"r,{n},{n}" for n in range(ROWS)]
    lines[ROWS - 2] = "r,many,1"
    path.write_text("id,x0,x1\nname,km,kg\n" + "\n".join(lines) + "\n")
    return path


def run(model: Any, source: Path, selected: Any, sampled: Any, rejects: Path | None = None) -> RowOutputs:
    selection = RowSelection(
        selected,
        sampled,
        read_columns(source, "rows", []).starts,
        lambda row: ValueProblem("y", "missing", f"row {row} is not selected"),
    )
    return score(model, selection, RowScoringOptions(source, rejects))


def score(model: Any, selection: RowSelection, options: RowScoringOptions) -> RowOutputs:
    graphs = GraphSource(model.model, model.manifest.output.name, open_graph)
    with closing(ThreadEngine(2)) as engine:
        return score_selected(model.manifest, selection, graphs=graphs, engine=engine, options=options)


def mask(*rows: int) -> Any:
    return np.isin(np.arange(ROWS), rows)


def test_only_the_selected_rows_are_scored_in_order(model: Any, source: Path) -> None:
    scored = run(model, source, mask(3, 60, 97), mask(60, 61))

    assert scored.rows.tolist() == [3, 60, 97]
    assert scored.output.tolist() == [6.0, 120.0, 194.0]
    assert scored.sample.to_dicts() == [{"x0": "60", "x1": "60"}]
    assert (scored.sample_places.tolist(), scored.rejected) == ([1], 0)


def test_a_selected_row_that_cannot_be_scored_is_an_error_with_its_line(model: Any, source: Path) -> None:
    with pytest.raises(InvalidRows) as caught:
        run(model, source, mask(3, 98), mask())

    assert [(problem.row, problem.column) for problem in caught.value.problems] == [(99, "x0")]


def test_all_other_rows_are_written_with_reasons_and_lines(tmp_path: Path, model: Any, source: Path) -> None:
    rejects = tmp_path / "rejects.csv"

    scored = run(model, source, ~mask(0, 50), mask(98, 99), rejects)

    written = read_table(rejects).frame
    assert written["rejected_row"].to_list() == ["1", "51", "99"]
    assert written["rejected_column"].to_list() == ["y", "y", "x0"]
    assert written["rejected_reason"][1] == "column 'y': row 50 is not selected"
    assert written["x0"].to_list() == ["0", "50", "many"]
    assert (len(scored.rows), scored.rejected) == (97, 1)
    assert scored.sample["x0"].to_list() == ["99"]
    assert scored.sample_places.tolist() == [96]


def test_it_is_an_error_if_no_row_can_be_scored(tmp_path: Path, model: Any, source: Path) -> None:
    with pytest.raises(TableError) as caught:
        run(model, source, mask(98), mask(), tmp_path / "rejects.csv")

    assert caught.value.slug == "no-scored-row"


def test_a_table_that_changes_between_two_passes_is_an_error(model: Any, source: Path) -> None:
    selection = RowSelection(mask(), mask(), (0, 1), lambda row: ValueProblem("y", "missing", "missing"))

    with pytest.raises(TableError) as caught:
        score(model, selection, RowScoringOptions(source))

    assert caught.value.slug == "table-changed"
