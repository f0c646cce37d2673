"""Scoring a table in chunks: predictions are complete, correct and in order, or no file is written."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.engines import ThreadEngine
from rowcast.errors import InvalidRows, SettingsError, TableError
from rowcast.jobs.chunk_scoring import GraphSource, Progress
from rowcast.jobs.table_scoring import ColumnWarning, ScoringOptions, Summary, score_file
from rowcast.registry.ports import Reference
from rowcast.schema.schema import Column, Schema
from rowcast.serving.live_models import load
from rowcast.tables import stream
from rowcast.tables.encode import encode_table
from rowcast.tables.read import read_table, table_from_memory
from rowcast.tables.write import with_predictions
from support import models
from support.tables import write_table

ROWS = 200


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit each chunk to a few lines."""
    monkeypatch.setattr(stream, "BLOCK", 500)
    monkeypatch.setattr(stream, "ROWS", 13)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("id,x0,x1\n" + "".join(f"r{n},{n / 7},{n}\n" for n in range(ROWS)))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """A bundle whose model adds x0 and x1."""
    registry = models.FolderRegistry(tmp_path / "models")
    schema = models.number_columns(2)
    reference = models.publish(registry, "sum", models.sum_graph(2), schema, models.REGRESSION, "values")
    return models.bundle.open(registry.folder(reference))


def run(model: Any, source: Path, out: Path, *, threads: int = 2, **options: Any) -> Summary:
    graphs = GraphSource(model.model, model.manifest.output.name, open_graph)
    settings = ScoringOptions(source, out, **options)
    with closing(ThreadEngine(threads)) as engine:
        return score_file("sum", 1, model.manifest, graphs=graphs, engine=engine, options=settings)


def spoil(source: Path, *rows: int) -> None:
    lines = source.read_text().splitlines()
    for row in rows:
        lines[row + 1] = f"r{row},many,"
    source.write_text("\n".join(lines))


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl", "arrow"])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_row_is_scored_in_order(tmp_path: Path, model: Any, source: Path, ending: str, threads: int) -> None:
    out = tmp_path / f"out.{ending}"

    summary = run(model, source, out, threads=threads)

    table = read_table(source).frame
    tensors = encode_table(table, model.manifest.schema, model.manifest.plan)
    output = open_graph(model.model, model.manifest.output.name).run(tensors)
    whole = with_predictions(table, model.manifest.decision, output)
    written = read_table(out).frame
    assert (summary.rows, summary.rejected, written.columns) == (ROWS, 0, whole.columns)
    assert written.cast({"prediction": pl.Float64}).equals(whole)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_invalid_rows_are_written_to_the_rejects_file_with_reasons(
    tmp_path: Path, model: Any, source: Path, ending: str
) -> None:
    spoil(source, 3, 150)
    rejects = tmp_path / f"bad.{ending}"

    summary = run(model, source, tmp_path / "out.csv", rejects=rejects)

    rejected = read_table(rejects).frame
    assert (summary.rows, summary.rejected) == (ROWS - 2, 2)
    assert [str(row) for row in rejected["rejected_row"]] == ["3", "150"]
    assert rejected["id"].to_list() == ["r3", "r150"]
    assert rejected["rejected_column"].to_list() == ["x0; x1"] * 2
    assert "column 'x0': expected a number" in rejected["rejected_reason"][0]
    scored = read_table(tmp_path / "out.csv").frame
    assert scored["id"].to_list() == [f"r{n}" for n in range(ROWS) if n not in (3, 150)]


@pytest.mark.parametrize("first", ["bad,1", "bad,", "NA,many"])
def test_an_invalid_first_row_is_rejected_and_counted(tmp_path: Path, model: Any, first: str) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(f"x0,x1\n{first}\n" + "1,2\n" * 5 + "worse,1\n")

    summary = run(model, source, tmp_path / "out.csv", rejects=tmp_path / "bad.csv")

    assert (summary.rows, summary.rejected, summary.excluded) == (5, 2, 0)
    assert read_table(tmp_path / "bad.csv").frame["rejected_row"].to_list() == ["0", "6"]


def test_excluded_lines_are_counted_and_do_not_shift_row_numbers(tmp_path: Path, model: Any) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("x0,x1\nkm/h,kg\n" + "1,2\n,\n" * 100 + "bad,1\n")

    summary = run(model, source, tmp_path / "out.csv", rejects=tmp_path / "bad.csv")

    assert (summary.rows, summary.rejected, summary.excluded) == (100, 1, 101)
    assert read_table(tmp_path / "bad.csv").frame["rejected_row"].to_list() == ["201"]
    assert read_table(tmp_path / "out.csv").frame.height == 100


def test_scoring_without_a_rejects_file_stops_at_the_first_invalid_row(
    tmp_path: Path, model: Any, source: Path
) -> None:
    spoil(source, 150)
    out = tmp_path / "out.csv"
    out.write_text("an older file")

    with pytest.raises(InvalidRows) as caught:
        run(model, source, out)

    problems = [(problem.row, problem.line, problem.column) for problem in caught.value.problems]
    assert problems == [(150, 152, "x0"), (150, 152, "x1")]
    assert out.read_text() == "an older file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "out.csv", "rows.csv"]


def test_rows_with_values_that_did_not_occur_in_training_are_counted(tmp_path: Path) -> None:
    schema = Schema(
        (
            Column(name="x0", kind="number", low=0.0, high=100.0, example=1.0),
            Column(name="x1", kind="number", low=0.0, high=1000.0, example=1.0, missing=True),
        )
    )
    registry = models.FolderRegistry(tmp_path / "models")
    reference = models.publish(registry, "sum", models.sum_graph(2), schema, models.REGRESSION, "values")
    source = tmp_path / "rows.csv"
    source.write_text("x0,x1\n" + "1,2\n" * 50 + "-1,2\n" * 20 + "101,2\n" * 3 + "5,1001\n" + "bad,1001\n")

    opened = models.bundle.open(registry.folder(reference))
    summary = run(opened, source, tmp_path / "out.csv", rejects=tmp_path / "bad.csv")

    assert summary.warnings == (ColumnWarning("x0", "out-of-range", 23), ColumnWarning("x1", "out-of-range", 1))


def test_rows_with_unseen_categories_are_counted(tmp_path: Path, loan_registry: Path) -> None:
    rows = models.loan_rows(40)
    for row in rows[:7]:
        row["purpose"] = "spaceship"
    write_table(table_from_memory(rows).frame, tmp_path / "rows.csv")
    opened = models.bundle.open(models.FolderRegistry(loan_registry).folder(Reference("loans", 1)))

    summary = run(opened, tmp_path / "rows.csv", tmp_path / "out.csv")

    assert summary.warnings == (ColumnWarning("purpose", "unseen-category", 7),)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_interrupted_scoring_leaves_no_files(tmp_path: Path, model: Any, source: Path, ending: str) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.rows > ROWS / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, source, tmp_path / f"out.{ending}", rejects=tmp_path / "bad.csv", progress=interrupt)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "rows.csv"]


def test_a_table_with_only_invalid_rows_produces_two_complete_files(tmp_path: Path, model: Any, source: Path) -> None:
    spoil(source, *range(ROWS))

    summary = run(model, source, tmp_path / "out.csv", rejects=tmp_path / "bad.parquet")

    assert (summary.rows, summary.rejected) == (0, ROWS)
    assert (tmp_path / "out.csv").read_text() == "id,x0,x1,prediction\n"


def test_selected_columns_are_copied_to_the_output(tmp_path: Path, model: Any, source: Path) -> None:
    run(model, source, tmp_path / "out.csv", columns=("x1", "id"))

    assert read_table(tmp_path / "out.csv").frame.columns == ["x1", "id", "prediction"]
    with pytest.raises(TableError) as caught:
        run(model, source, tmp_path / "out.csv", columns=("x9",))
    assert caught.value.slug == "unknown-column"


def test_progress_increases_up_to_the_number_of_rows(tmp_path: Path, model: Any, source: Path) -> None:
    seen: list[Progress] = []

    run(model, source, tmp_path / "out.csv", progress=seen.append)

    assert seen == sorted(seen)
    assert (len(seen) > 3, seen[-1]) == (True, Progress(ROWS, 1.0))


@pytest.mark.parametrize(
    ("name", "slug"), [("rows.csv", "empty-table"), ("none.csv", "file-not-found"), ("empty.csv", "empty-table")]
)
def test_no_files_are_written_for_an_unreadable_table(tmp_path: Path, model: Any, name: str, slug: str) -> None:
    (tmp_path / "rows.csv").write_text("id,x0,x1\n")
    (tmp_path / "empty.csv").write_text("")

    with pytest.raises(TableError) as caught:
        run(model, tmp_path / name, tmp_path / "out.parquet")

    assert caught.value.slug == slug
    assert not list(tmp_path.glob("*out*"))


def test_predictions_and_rejects_must_have_different_paths(tmp_path: Path, model: Any, source: Path) -> None:
    with pytest.raises(TableError) as caught:
        run(model, source, tmp_path / "out.csv", rejects=tmp_path / "out.csv")

    assert caught.value.slug == "same-file"


@pytest.mark.parametrize("way", ["same", "symbolic link", "hard link", "link to the folder"])
@pytest.mark.parametrize("option", ["out", "rejects"])
def test_the_table_is_never_overwritten(tmp_path: Path, model: Any, way: str, option: str) -> None:
    source = tmp_path / "data" / "rows.csv"
    source.parent.mkdir()
    source.write_text("x0,x1\n1,2\nbad,1\n")
    other = tmp_path / "other.csv"
    if way == "same":
        other = tmp_path / "data" / ".." / "data" / "rows.csv"
    elif way == "symbolic link":
        other.symlink_to(source)
    elif way == "hard link":
        other.hardlink_to(source)
    else:
        (tmp_path / "link").symlink_to(source.parent)
        other = tmp_path / "link" / "rows.csv"
    places = {"out": tmp_path / "out.csv", "rejects": tmp_path / "rejects.csv"} | {option: other}

    with pytest.raises(SettingsError) as refused:
        run(model, source, places["out"], rejects=places["rejects"])

    assert (refused.value.slug, str(other) in refused.value.message) == ("same-file", True)
    assert source.read_text() == "x0,x1\n1,2\nbad,1\n"


def test_an_output_file_in_a_missing_folder_is_rejected(tmp_path: Path, model: Any, source: Path) -> None:
    for ending in ("csv", "parquet"):
        with pytest.raises(TableError) as caught:
            run(model, source, tmp_path / "none" / f"out.{ending}")
        assert caught.value.slug == "not-writable"


def test_rows_in_a_table_get_the_same_scores_as_on_the_server(tmp_path: Path, loan_registry: Path) -> None:
    registry = models.FolderRegistry(loan_registry)
    live = load(Reference("loans", 1), registry, open_graph)
    rows = models.loan_rows(100)
    write_table(table_from_memory(rows).frame, tmp_path / "rows.csv")
    opened = models.bundle.open(registry.folder(Reference("loans", 1)))

    run(opened, tmp_path / "rows.csv", tmp_path / "out.parquet")

    scores = live.score([live.encoder.parse(row) for row in rows])
    written = pl.read_parquet(tmp_path / "out.parquet")
    assert written["prediction"].to_list() == [score.prediction for score in scores]
    assert written["score"].to_list() == [score.score for score in scores]


def test_rejected_rows_do_not_shift_the_rows_that_the_model_cannot_score(tmp_path: Path, model: Any) -> None:
    source = tmp_path / "rows.csv"
    lines = [f"r{n},{n},{n}" for n in range(10)]
    for bad in (1, 2, 6):
        lines[bad] = f"r{bad},many,1"
    for infinite in (4, 7):
        lines[infinite] = f"r{infinite},3e38,3e38"
    source.write_text("id,x0,x1\n" + "\n".join(lines) + "\n")

    summary = run(model, source, tmp_path / "out.csv", rejects=tmp_path / "bad.csv")

    scored, rejected = read_table(tmp_path / "out.csv").frame, read_table(tmp_path / "bad.csv").frame
    assert (summary.rows, summary.rejected) == (5, 5)
    assert scored["id"].to_list() == ["r0", "r3", "r5", "r8", "r9"]
    assert [float(value) for value in scored["prediction"]] == [0.0, 6.0, 10.0, 16.0, 18.0]
    assert rejected["rejected_row"].to_list() == ["1", "2", "4", "6", "7"]
    assert rejected["id"].to_list() == ["r1", "r2", "r4", "r6", "r7"]
