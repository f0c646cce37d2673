"""Batch scoring: piece by piece what the whole table gives, in order, all of it or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rowcast import tables
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.errors import InvalidRows, TableError
from rowcast.jobs import table_scoring as batch
from rowcast.registry.ports import Reference
from rowcast.serving.live_models import load
from rowcast.tables import stream
from support import models

ROWS = 200


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a few lines."""
    monkeypatch.setattr(stream, "BLOCK", 500)
    monkeypatch.setattr(stream, "ROWS", 13)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("id,x0,x1\n" + "".join(f"r{n},{n / 7},{n}\n" for n in range(ROWS)))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """x0 + x1, as a bundle."""
    registry = models.FolderRegistry(tmp_path / "models")
    schema = models.number_columns(2)
    reference = models.publish(registry, "sum", models.sum_graph(2), schema, models.REGRESSION, "values")
    return models.bundle.open(registry.folder(reference))


def run(model: Any, source: Path, out: Path, *, jobs: int = 2, **options: Any) -> batch.Summary:
    graphs = [open_graph(model.model, model.manifest.output.name) for _ in range(jobs)]
    return batch.score_file(Reference("sum", 1), model.manifest, graphs, batch.Job(source, out, **options))


def spoil(source: Path, *rows: int) -> None:
    lines = source.read_text().splitlines()
    for row in rows:
        lines[row + 1] = f"r{row},many,"
    source.write_text("\n".join(lines))


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl", "arrow"])
@pytest.mark.parametrize("jobs", [1, 3])
def test_every_row_is_answered_in_order(tmp_path: Path, model: Any, source: Path, ending: str, jobs: int) -> None:
    out = tmp_path / f"out.{ending}"

    summary = run(model, source, out, jobs=jobs)

    table = tables.read(source).frame
    tensors = tables.encode(table, model.manifest.schema, model.manifest.plan)
    output = open_graph(model.model, model.manifest.output.name).run(tensors)
    whole = tables.with_predictions(table, model.manifest.decision, output)
    found = tables.read(out).frame
    assert (summary.rows, summary.rejected, found.columns) == (ROWS, 0, whole.columns)
    assert found.cast({"prediction": pl.Float64}).equals(whole)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_rows_that_do_not_fit_go_to_their_own_file_with_their_cells(
    tmp_path: Path, model: Any, source: Path, ending: str
) -> None:
    spoil(source, 3, 150)
    rejects = tmp_path / f"bad.{ending}"

    summary = run(model, source, tmp_path / "out.csv", rejects=rejects)

    found = tables.read(rejects).frame
    assert (summary.rows, summary.rejected) == (ROWS - 2, 2)
    assert [str(row) for row in found["rejected_row"]] == ["3", "150"]
    assert found["id"].to_list() == ["r3", "r150"]
    assert found["rejected_column"].to_list() == ["x0; x1"] * 2
    assert "column 'x0': expected a number" in found["rejected_reason"][0]
    kept = tables.read(tmp_path / "out.csv").frame
    assert kept["id"].to_list() == [f"r{n}" for n in range(ROWS) if n not in (3, 150)]


def test_without_a_place_for_them_the_first_bad_row_ends_the_job(tmp_path: Path, model: Any, source: Path) -> None:
    spoil(source, 150)
    out = tmp_path / "out.csv"
    out.write_text("of yesterday")

    with pytest.raises(InvalidRows, match="row 150: x0"):
        run(model, source, out)

    assert out.read_text() == "of yesterday"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "out.csv", "rows.csv"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_job_that_is_interrupted_leaves_nothing(tmp_path: Path, model: Any, source: Path, ending: str) -> None:
    def interrupt(progress: batch.Progress) -> None:
        if progress.rows > ROWS / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, source, tmp_path / f"out.{ending}", rejects=tmp_path / "bad.csv", progress=interrupt)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "rows.csv"]


def test_a_table_of_bad_rows_gives_two_whole_files(tmp_path: Path, model: Any, source: Path) -> None:
    spoil(source, *range(ROWS))

    summary = run(model, source, tmp_path / "out.csv", rejects=tmp_path / "bad.parquet")

    assert (summary.rows, summary.rejected) == (0, ROWS)
    assert (tmp_path / "out.csv").read_text() == "id,x0,x1,prediction\n"


def test_chosen_columns_are_kept(tmp_path: Path, model: Any, source: Path) -> None:
    run(model, source, tmp_path / "out.csv", columns=("x1", "id"))

    assert tables.read(tmp_path / "out.csv").frame.columns == ["x1", "id", "prediction"]
    with pytest.raises(TableError, match="no column 'x9' to keep"):
        run(model, source, tmp_path / "out.csv", columns=("x9",))


def test_progress_ends_with_every_row(tmp_path: Path, model: Any, source: Path) -> None:
    seen: list[batch.Progress] = []

    run(model, source, tmp_path / "out.csv", progress=seen.append)

    assert seen == sorted(seen)
    assert (len(seen) > 3, seen[-1]) == (True, batch.Progress(ROWS, 1.0))


@pytest.mark.parametrize("name", ["rows.csv", "none.csv", "empty.csv"])
def test_what_cannot_be_scored_is_said_and_nothing_is_written(tmp_path: Path, model: Any, name: str) -> None:
    (tmp_path / "rows.csv").write_text("id,x0,x1\n")
    (tmp_path / "empty.csv").write_text("")

    with pytest.raises(TableError, match=r"no rows|does not exist|is empty"):
        run(model, tmp_path / name, tmp_path / "out.parquet")

    assert not list(tmp_path.glob("*out*"))


def test_predictions_and_rejects_need_two_files(tmp_path: Path, model: Any, source: Path) -> None:
    with pytest.raises(TableError, match="name two files"):
        run(model, source, tmp_path / "out.csv", rejects=tmp_path / "out.csv")


def test_a_folder_that_is_not_there_is_said(tmp_path: Path, model: Any, source: Path) -> None:
    for ending in ("csv", "parquet"):
        with pytest.raises(TableError, match="cannot be written"):
            run(model, source, tmp_path / "none" / f"out.{ending}")


def test_loans_are_answered_as_the_server_answers(tmp_path: Path, loan_registry: Path) -> None:
    registry = models.FolderRegistry(loan_registry)
    live = load(Reference("loans", 1), registry, open_graph)
    rows = models.loan_rows(100)
    tables.write(tables.from_memory(rows).frame, tmp_path / "rows.csv")
    opened = models.bundle.open(registry.folder(Reference("loans", 1)))

    run(opened, tmp_path / "rows.csv", tmp_path / "out.parquet")

    outcomes = live.score([live.encoder.parse(row) for row in rows])
    found = pl.read_parquet(tmp_path / "out.parquet")
    assert found["prediction"].to_list() == [outcome.prediction for outcome in outcomes]
    assert found["score"].to_list() == [outcome.score for outcome in outcomes]
