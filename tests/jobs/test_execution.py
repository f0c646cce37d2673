"""Executing a job: its result is the same whether or not it was interrupted, and no row is recorded twice."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.engines import Shared, Task, ThreadEngine
from rowcast.errors import EngineUnavailable, RowcastError, TableError
from rowcast.history import chain
from rowcast.history.chain import decode_head
from rowcast.jobs import execution
from rowcast.jobs.chunk_scoring import GraphSource
from rowcast.jobs.job import Job, JobStop, LostClaim, canceled
from rowcast.jobs.job_history import ENTRIES_PER_WRITE
from rowcast.jobs.job_scoring import score_job_chunk as score
from rowcast.jobs.table_scoring import ScoringOptions, score_file
from rowcast.schema.sensitive import Redactor
from rowcast.tables import stream
from support import models
from support.jobs import JobCase

ROWS = 200


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit each chunk to a few lines."""
    monkeypatch.setattr(stream, "BLOCK", 500)
    monkeypatch.setattr(stream, "ROWS", 13)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    lines = [f"r{n},{n / 7},{n}\n" for n in range(ROWS)]
    lines[50] = "r50,many,\n"
    lines[120] = "r120,1,no\n"
    path.write_text("id,x0,x1\n" + "".join(lines))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Any:
    registry = models.FolderRegistry(tmp_path / "models")
    columns = models.number_columns(2, low=0.0, high=100.0)
    reference = models.publish(registry, "sum", models.sum_graph(2), columns, models.REGRESSION, "values")
    return models.bundle.open(registry.folder(reference))


def predicted(model: Any, source: Path, ending: str) -> tuple[bytes, bytes]:
    """Return what `rowcast predict` writes for the table: the output and the rejected rows."""
    out, rejects = source.with_name(f"out.{ending}"), source.with_name(f"bad.{ending}")
    graphs, options = GraphSource(model.model, "out", open_graph), ScoringOptions(source, out, rejects)
    with closing(ThreadEngine(1)) as engine:
        score_file("sum", 1, model.manifest, graphs=graphs, engine=engine, options=options)
    return out.read_bytes(), rejects.read_bytes()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "csv.gz"])
def test_the_result_has_the_same_bytes_as_that_of_predict(model: Any, source: Path, ending: str) -> None:
    case = JobCase(model, source, format=ending)

    result = case.run()

    output, rejects = case.content(f"result.{ending}"), case.content(f"rejects.{ending}")
    unpack = gzip.decompress if ending == "csv.gz" else bytes
    assert [unpack(output), unpack(rejects)] == [unpack(each) for each in predicted(model, source, ending)]
    assert (result.rows, result.rejected, result.excluded) == (ROWS - 2, 2, 0)
    assert (result.output.sha256, result.output.bytes) == (hashlib.sha256(output).hexdigest(), len(output))
    assert result.rejects.sha256 == hashlib.sha256(rejects).hexdigest()


def test_a_parquet_result_has_the_same_rows_as_that_of_predict(model: Any, source: Path, tmp_path: Path) -> None:
    case = JobCase(model, source, format="parquet")

    case.run()

    predicted(model, source, "parquet")
    (tmp_path / "ours.parquet").write_bytes(case.content("result.parquet"))
    assert pl.read_parquet(tmp_path / "ours.parquet").equals(pl.read_parquet(tmp_path / "out.parquet"))


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_an_interrupted_job_has_the_same_result(model: Any, source: Path, ending: str) -> None:
    whole, interrupted = (JobCase(model, source, format=ending, record="rows") for _ in range(2))

    assert interrupted.run_interrupted(0, 1, 3, 1, 0) == whole.run()
    for name in (f"result.{ending}", f"rejects.{ending}"):
        assert interrupted.content(name) == whole.content(name)


def test_finished_chunks_are_not_scored_again(model: Any, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = JobCase(model, source)
    scored: list[int] = []
    monkeypatch.setattr(
        execution, "score_job_chunk", lambda scorer, index, chunk: scored.append(index) or score(scorer, index, chunk)
    )
    with pytest.raises(JobStop):
        case.run(lambda: len(case.store.chunks(case.job.id)) == 2)
    scored.clear()
    case.expire_lease()

    case.run()

    chunks = case.store.chunks(case.job.id)
    assert [each.number for each in chunks] == list(range(len(chunks)))
    assert sorted(scored) == list(range(2, len(chunks)))


def test_every_valid_row_is_recorded_once_in_chains_that_pass_verification(model: Any, source: Path) -> None:
    case = JobCase(model, source, record="rows")
    case.run_interrupted(1, 2)

    entries = case.entries()
    heads = [decode_head(entry.head) for chained in entries.values() for entry in chained]
    rows = [entry for writer, chained in entries.items() if writer != f"job-{case.job.id}" for entry in chained]
    replies = [json.loads(decode_head(entry.head).reply) for entry in rows]

    assert all(list(chain.verify(writer, chained)) == [] for writer, chained in entries.items())
    assert len(rows) == len({reply["id"] for reply in replies}) == ROWS - 2
    assert len({entry.salt for entry in rows}) == ROWS - 2
    assert {(head.source, head.tenant, head.key_id, head.request_id) for head in heads} == {("job", "acme", "k", "r")}
    values = {row["x1"]: reply for row, reply in zip((json.loads(e.row or b"") for e in rows), replies, strict=True)}
    assert values[49.0]["prediction"] == pytest.approx(49 / 7 + 49)
    assert [warning["code"] for warning in values[150.0]["warnings"]] == ["out-of-range"]
    assert values[99.0]["warnings"] == []


def test_a_chunk_that_was_recorded_but_not_finished_is_recorded_identically_again(
    model: Any, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = JobCase(model, source, record="rows")
    monkeypatch.setattr("rowcast.jobs.job_history.ENTRIES_PER_WRITE", 3)
    assert ENTRIES_PER_WRITE > 3
    record, left = case.history.record, 7

    def fail_later(writer: str, entries: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise KeyError
        record(writer, entries)

    monkeypatch.setattr(case.history, "record", fail_later)
    with pytest.raises(KeyError):
        case.run()
    before = case.entries()
    case.expire_lease()

    case.run()

    after = case.entries()
    assert all(after[writer][: len(chained)] == chained for writer, chained in before.items())
    assert all(list(chain.verify(writer, chained)) == [] for writer, chained in after.items())


def test_the_entry_of_the_job_contains_the_digests_and_counts(model: Any, source: Path) -> None:
    case = JobCase(model, source, input_sha256="ab" * 32)

    result = case.run()

    (entry,) = case.entries()[f"job-{case.job.id}"]
    head = decode_head(entry.head)
    assert (entry.row, entry.row_hash, head.at, head.digest) == (None, chain.NO_ROW, 5, model.manifest.digest)
    assert json.loads(head.reply) == {
        "id": case.job.id,
        "model": "sum",
        "version": 1,
        "prediction": "job",
        "job": {
            "rows": result.rows,
            "rejected": result.rejected,
            "input_sha256": "ab" * 32,
            "output_sha256": result.output.sha256,
            "rejects_sha256": result.rejects.sha256,
        },
    }


def test_sensitive_values_are_withheld_from_recorded_rows(tmp_path: Path, source: Path) -> None:
    registry = models.FolderRegistry(tmp_path / "secretive")
    columns = models.number_columns(2, sensitive=True)
    reference = models.publish(registry, "sum", models.sum_graph(2), columns, models.REGRESSION, "values")
    case = JobCase(models.bundle.open(registry.folder(reference)), source, record="rows")
    case.redactor = Redactor("drop", b"")

    case.run()

    entries = [entry for chained in case.entries().values() for entry in chained if entry.row is not None]
    assert {entry.row for entry in entries} == {b"{}"}
    assert {decode_head(entry.head).withheld for entry in entries} == {("x0", "x1")}


def test_only_the_selected_columns_are_copied(model: Any, source: Path) -> None:
    case = JobCase(model, source, columns=("id",))

    case.run()

    assert case.content("result.csv").splitlines()[0] == b"id,prediction"


@pytest.mark.parametrize(
    ("content", "spec", "slug"),
    [
        ("id,x0\n1,2\n", {}, "missing-column"),
        ("id,x0,x1\n", {}, "empty-table"),
        ("", {}, "empty-table"),
        ("x0,x1\n1,2\n", {"columns": ("colour",)}, "unknown-column"),
        ("x0,x1,prediction\n1,2,3\n", {}, "duplicate-column"),
    ],
)
def test_a_table_that_cannot_be_scored_fails_without_revealing_the_path(
    model: Any, tmp_path: Path, content: str, spec: dict[str, Any], slug: str
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(content)
    case = JobCase(model, path, **spec)

    with pytest.raises(RowcastError) as refused:
        case.run()
    assert refused.value.slug == slug
    assert "/" not in refused.value.message
    assert case.history.writers() == []


def test_a_job_fails_if_its_result_is_much_larger_than_the_largest_upload(model: Any, source: Path) -> None:
    case = JobCase(model, source)
    case.max_bytes = 100

    with pytest.raises(TableError) as refused:
        case.run()
    assert refused.value.slug == "too-large"


def test_a_damaged_chunk_is_detected(model: Any, source: Path) -> None:
    case = JobCase(model, source)
    with pytest.raises(JobStop):
        case.run(lambda: len(case.store.chunks(case.job.id)) == 2)
    case.files.put(f"{case.job.id}/chunks/{case.store.chunks(case.job.id)[0].output}", b"damaged")
    case.expire_lease()

    with pytest.raises(TableError) as refused:
        case.run()
    assert refused.value.slug == "damaged-chunk"


def test_a_canceled_job_stops_at_the_next_chunk_and_has_no_entry(model: Any, source: Path) -> None:
    case = JobCase(model, source)

    def cancel_after_two_chunks() -> bool:
        if len(case.store.chunks(case.job.id)) == 2:
            case.store.change(case.job.id, canceled)
        return False

    with pytest.raises(LostClaim):
        case.run(cancel_after_two_chunks)
    assert len(case.store.chunks(case.job.id)) == 2
    assert case.history.writers() == []


def test_progress_is_stored_after_each_chunk(model: Any, source: Path) -> None:
    case = JobCase(model, source)
    seen: list[Job] = []

    def watch() -> bool:
        job = case.store.get(case.job.id)
        assert job is not None
        seen.append(job)
        return False

    case.run(watch)

    shares = [job.progress.share for job in seen]
    assert shares == sorted(shares)
    assert 0 < seen[-1].progress.rows < ROWS
    assert seen[-1].progress.rejected == 2


class PicklingEngine(ThreadEngine):
    """Pickles every task and result, as a cluster does, and stores the pickled tasks."""

    def __init__(self) -> None:
        super().__init__(2)
        self.sent: list[bytes] = []

    def submit(self, function: Callable[..., Any], shared: Shared[Any], *arguments: Any) -> Task[Any]:
        self.sent.append(pickle.dumps((function, shared, arguments)))
        return super().submit(call_pickled, Shared(self.sent[-1]))


def call_pickled(content: bytes) -> Any:
    function, shared, arguments = pickle.loads(content)
    return pickle.loads(pickle.dumps(function(shared.reference, *arguments)))


def test_no_secret_leaves_the_process_of_the_runner(model: Any, source: Path) -> None:
    case, reference = (JobCase(model, source, record="rows", secret=b"the-secret-of-the-job") for _ in range(2))
    case.redactor = reference.redactor = Redactor("hash", b"the-key-for-sensitive-values")
    reference.run()

    with closing(PicklingEngine()) as engine:
        case.run(engine=engine)

    assert (case.content("result.csv"), case.entries()) == (reference.content("result.csv"), reference.entries())
    assert b"r199" in engine.sent[-1]
    for content in engine.sent:
        assert b"the-secret-of-the-job" not in content
        assert b"the-key-for-sensitive-values" not in content


class SilentEngine:
    """Accepts tasks, but never runs them."""

    slots = 1

    def __init__(self) -> None:
        self.open = 0

    def share(self, value: Any) -> Shared[Any]:
        return Shared(value)

    def submit(self, function: Callable[..., Any], shared: Shared[Any], *arguments: Any) -> Task[Any]:
        self.open += 1
        return self

    def wait(self, seconds: float) -> bool:
        return False

    def result(self, seconds: float | None = None) -> Any:
        raise AssertionError

    def cancel(self) -> None:
        self.open -= 1


def test_a_job_is_postponed_if_its_engine_scores_nothing_for_too_long(model: Any, source: Path) -> None:
    case, engine = JobCase(model, source), SilentEngine()
    case.stall_seconds = 0.0

    with pytest.raises(EngineUnavailable) as refused:
        case.run(engine=engine)

    assert (refused.value.slug, engine.open) == ("engine-stalled", 0)


def test_a_job_can_be_stopped_while_its_engine_scores_nothing(model: Any, source: Path) -> None:
    case, engine = JobCase(model, source), SilentEngine()

    with pytest.raises(JobStop):
        case.run(lambda: True, engine)

    assert engine.open == 0
