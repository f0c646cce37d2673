"""The contract of the engines: threads in this process, and a Ray cluster.

All tests that need a Ray cluster are in this file, because starting a cluster takes ten seconds.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.app.engines import open_engine
from rowcast.engines import WAITING, Engine, ThreadEngine, run_in_order
from rowcast.errors import EngineUnavailable, InvalidRows, Unavailable
from rowcast.jobs.chunk_scoring import GraphSource
from rowcast.jobs.table_scoring import ScoringOptions, Summary, score_file
from rowcast.settings import Settings
from rowcast.tables import examples, stream
from rowcast.tables.read import read_table, table_from_memory
from rowcast.training.events import TrainingEvent
from support import models, rays, servers, tasks
from support.commands import rowcast
from support.jobs import JobCase
from support.rays import RayCluster
from support.servers import Server, rowcast_process
from support.tables import write_table
from support.training import train_model
from support.waiting import eventually


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayCluster]:
    with rays.running() as cluster:
        yield cluster


@pytest.fixture(params=["threads", "ray"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "threads":
        with closing(ThreadEngine(2)) as threads:
            yield threads
        return
    request.getfixturevalue("ray_cluster")
    with open_engine(Settings(), "ray") as engine:
        yield engine


def test_a_task_gets_the_shared_value_and_its_arguments(engine: Engine) -> None:
    shared = engine.share(10)

    tasks_in_reverse = [engine.submit(tasks.add, shared, number) for number in range(5)][::-1]

    assert [task.result() for task in tasks_in_reverse] == [14, 13, 12, 11, 10]


def test_tasks_with_different_shared_values_do_not_interfere(engine: Engine) -> None:
    one, two = engine.share(1), engine.share(2)

    pairs = [(engine.submit(tasks.add, one, 0), engine.submit(tasks.add, two, 0)) for _ in range(4)]

    assert {(left.result(), right.result()) for left, right in pairs} == {(1, 2)}


def test_two_slots_run_two_tasks_at_the_same_time(engine: Engine, tmp_path: Path) -> None:
    shared = engine.share(tmp_path)

    running = [engine.submit(tasks.wait_for, shared, name) for name in "ab"]

    eventually(lambda: all((tmp_path / f"{name}.started").exists() for name in "ab"), 30)
    for name in "ab":
        (tmp_path / name).touch()
    assert (engine.slots, [task.result() for task in running]) == (2, ["a", "b"])


def test_waiting_for_a_result_can_time_out_and_be_repeated(engine: Engine, tmp_path: Path) -> None:
    task = engine.submit(tasks.wait_for, engine.share(tmp_path), "a")

    with pytest.raises(TimeoutError):
        task.result(0.05)
    (tmp_path / "a").touch()
    assert task.result() == "a"


def test_the_end_of_a_task_can_be_awaited_with_a_timeout(engine: Engine, tmp_path: Path) -> None:
    task, failing = (
        engine.submit(tasks.wait_for, engine.share(tmp_path), "a"),
        engine.submit(tasks.fail, engine.share(1), 7),
    )

    assert not task.wait(0.05)
    (tmp_path / "a").touch()
    assert (task.wait(30), failing.wait(30), task.result()) == (True, True, "a")


def test_a_canceled_waiting_task_does_not_start(engine: Engine, tmp_path: Path) -> None:
    shared = engine.share(tmp_path)
    first, second, third = [engine.submit(tasks.wait_for, shared, name) for name in "abc"]
    eventually((tmp_path / "b.started").exists, 30)

    third.cancel()
    for name in "abc":
        (tmp_path / name).touch()
    results = [first.result(), second.result(), engine.submit(tasks.add, engine.share(1), 1).result()]

    assert (results, (tmp_path / "c.started").exists()) == (["a", "b", 2], False)


def test_an_error_raised_by_a_task_keeps_its_class_and_fields(engine: Engine) -> None:
    with pytest.raises(InvalidRows) as caught:
        engine.submit(tasks.fail, engine.share(None), 7).result()

    assert [(problem.row, problem.column, caught.value.slug) for problem in caught.value.problems] == [
        (7, "x", InvalidRows.slug)
    ]


def test_results_are_in_order_and_calls_are_read_only_as_slots_become_free(engine: Engine) -> None:
    read = itertools.count()
    results = run_in_order(engine, tasks.add, engine.share(1), ((next(read),) for _ in range(20)))

    first = next(results)
    submitted = next(read)
    assert (first, submitted) == (1, engine.slots + WAITING)
    assert list(results) == [*range(2, submitted + 1), *range(submitted + 2, 22)]


def test_the_first_error_ends_the_results_and_cancels_the_waiting_tasks(engine: Engine, tmp_path: Path) -> None:
    shared = engine.share(tmp_path)

    with pytest.raises(InvalidRows):
        list(run_in_order(engine, tasks.fail_or_wait, shared, ((name,) for name in ("fail", "a", "b", "c", "d"))))

    for name in "ab":  # end the two tasks that may be running, so that the others could start
        (tmp_path / name).touch()
    assert engine.submit(tasks.add, engine.share(1), 1).result() == 2
    assert [name for name in "cd" if (tmp_path / f"{name}.started").exists()] == []


def test_an_error_while_waiting_for_a_result_cancels_the_waiting_tasks(engine: Engine, tmp_path: Path) -> None:
    def give_up() -> None:
        raise InterruptedError

    calls = ((name,) for name in "abcd")
    with pytest.raises(InterruptedError):
        list(run_in_order(engine, tasks.wait_for, engine.share(tmp_path), calls, while_waiting=give_up))

    for name in "ab":  # end the two tasks that may be running, so that the others could start
        (tmp_path / name).touch()
    assert engine.submit(tasks.add, engine.share(1), 1).result() == 2
    assert [name for name in "cd" if (tmp_path / f"{name}.started").exists()] == []


def test_a_task_is_run_again_after_its_process_is_killed(ray_cluster: RayCluster, tmp_path: Path) -> None:
    with open_engine(Settings(), "ray") as engine:
        assert engine.submit(tasks.crash_once, engine.share(tmp_path)).result() == "done"


def test_an_error_from_other_code_is_reported_with_its_reason(ray_cluster: RayCluster) -> None:
    with open_engine(Settings(), "ray") as engine, pytest.raises(Unavailable) as caught:
        engine.submit(tasks.break_down, engine.share(None)).result()

    assert (caught.value.slug, "broken" in caught.value.message) == ("engine-failed", True)


def test_a_lost_connection_raises_an_error_and_starts_no_new_cluster(
    ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_engine(Settings(), "ray") as engine:
        shared = engine.share(1)
        task = engine.submit(tasks.add, shared, 1)
        task.result()
        monkeypatch.setattr("ray.is_initialized", lambda: False)

        for use in (
            task.result,
            lambda: task.wait(0),
            lambda: engine.share(1),
            lambda: engine.submit(tasks.add, shared),
        ):
            with pytest.raises(EngineUnavailable):
                use()
        task.cancel()


@pytest.fixture
def model(tmp_path: Path) -> Any:
    """A bundle whose model adds x0 and x1."""
    registry = models.FolderRegistry(tmp_path / "models")
    schema = models.number_columns(2)
    reference = models.publish(registry, "sum", models.sum_graph(2), schema, models.REGRESSION, "values")
    return models.bundle.open(registry.folder(reference))


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table with 50 chunks and one invalid row."""
    monkeypatch.setattr(stream, "BLOCK", 500)
    monkeypatch.setattr(stream, "ROWS", 20)
    path = tmp_path / "rows.csv"
    cells = [f"r{number},{number / 7},{number}" for number in range(1000)]
    cells[500] = "r500,many,"
    path.write_text("\n".join(["id,x0,x1", *cells]) + "\n")
    return path


def score(model: Any, engine: Engine, source: Path, out: Path, progress: Any = lambda done: None) -> Summary:
    graphs = GraphSource(model.model, model.manifest.output.name, open_graph)
    options = ScoringOptions(source, out, out.with_name(f"{out.name}.rejects.csv"), progress=progress)
    return score_file("sum", 1, model.manifest, graphs=graphs, engine=engine, options=options)


def test_a_command_scores_on_the_nodes_of_a_remote_cluster(ray_cluster: RayCluster, home: Path, tmp_path: Path) -> None:
    examples.write_example("loans", tmp_path / "loans.csv", rows=500)
    rowcast("predict", "loans", "loans.csv", "--out", "local.csv", "--home", home, cwd=tmp_path)

    address = f"ray://127.0.0.1:{ray_cluster.client_port}"
    command = ("predict", "loans", "loans.csv", "--out", "remote.csv", "--engine", address, "--home", home)
    finished = rowcast_process(*command, cwd=tmp_path, seconds=150)

    assert (finished.returncode, finished.stderr.count("\n")) == (0, 1), finished.stderr
    assert (tmp_path / "remote.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


@pytest.mark.parametrize(
    ("start", "ending"), [("csv", "csv"), ("parquet", "parquet"), ("jsonl", "csv.gz"), ("json", "jsonl")]
)
def test_every_engine_writes_the_same_bytes(
    engine: Engine, model: Any, source: Path, tmp_path: Path, start: str, ending: str
) -> None:
    table = read_table(source).frame
    if start == "json":
        source = tmp_path / "rows.json"
        source.write_text(json.dumps(table.to_dicts()))
    elif start != "csv":
        source = tmp_path / f"rows.{start}"
        write_table(table, source)
    ours, reference = tmp_path / f"ours.{ending}", tmp_path / f"reference.{ending}"

    with closing(ThreadEngine(1)) as single:
        expected = score(model, single, source, reference)
    summary = score(model, engine, source, ours)

    assert (summary.rows, summary.rejected, summary.warnings) == (999, 1, expected.warnings)
    for suffix in ("", ".rejects.csv"):
        assert Path(f"{ours}{suffix}").read_bytes() == Path(f"{reference}{suffix}").read_bytes()


@pytest.mark.long
def test_killing_a_node_does_not_change_the_model(ray_cluster: RayCluster, tmp_path: Path) -> None:
    table = table_from_memory(examples.loans(400), "loans")
    options: dict[str, Any] = {"trials": 4, "candidates": ("logistic", "tree", "boosting"), "preset": "balanced"}
    expected = train_model(tmp_path / "process", table, "loan_status", **options)
    killed = threading.Event()

    def kill_once(event: TrainingEvent) -> None:
        if event.stage == "tune" and not killed.is_set():
            killed.set()
            ray_cluster.kill_node()

    try:
        with open_engine(Settings(), "ray") as engine:
            result = train_model(tmp_path / "ray", table, "loan_status", engine=engine, progress=kill_once, **options)
    finally:
        ray_cluster.add_node()

    assert killed.is_set()
    assert (result.digest, result.score) == (expected.digest, expected.score)


def test_killing_a_node_does_not_change_the_predictions(
    ray_cluster: RayCluster, model: Any, source: Path, tmp_path: Path
) -> None:
    with closing(ThreadEngine(1)) as single:
        score(model, single, source, tmp_path / "reference.csv")
    killed = threading.Event()

    def kill_once(done: Any) -> None:
        if done.rows > 200 and not killed.is_set():
            killed.set()
            ray_cluster.kill_node()

    try:
        with open_engine(Settings(), "ray") as engine:
            score(model, engine, source, tmp_path / "ours.csv", kill_once)
    finally:
        ray_cluster.add_node()

    assert killed.is_set()
    assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "reference.csv").read_bytes()


@pytest.fixture
def reference_job(model: Any, source: Path) -> JobCase:
    """A job that has been scored in a single thread."""
    case = JobCase(model, source, record="rows")
    with closing(ThreadEngine(1)) as single:
        case.run(engine=single)
    return case


def assert_same_job(case: JobCase, reference: JobCase) -> None:
    """Check that two jobs have the same files and the same entries in the history."""
    for name in ("result.csv", "rejects.csv"):
        assert case.content(name) == reference.content(name)
    assert sum(map(len, case.entries().values())) == 1000  # 999 rows and the job
    assert case.entries() == reference.entries()


def test_an_interrupted_job_has_the_same_result_and_entries_on_every_engine(
    engine: Engine, model: Any, source: Path, reference_job: JobCase
) -> None:
    case = JobCase(model, source, record="rows")

    case.run_interrupted(0, 3, 20, engine=engine)

    assert_same_job(case, reference_job)


def test_killing_a_node_does_not_change_a_job(
    ray_cluster: RayCluster, model: Any, source: Path, reference_job: JobCase
) -> None:
    case, killed = JobCase(model, source, record="rows"), threading.Event()

    def kill_once() -> bool:
        if len(case.store.chunks(case.job.id)) >= 10 and not killed.is_set():
            killed.set()
            ray_cluster.kill_node()
        return False

    try:
        with open_engine(Settings(), "ray") as engine:
            case.run(kill_once, engine)
    finally:
        ray_cluster.add_node()

    assert killed.is_set()
    assert_same_job(case, reference_job)


@pytest.mark.long
def test_a_server_finishes_a_job_on_its_cluster_even_if_the_runner_is_killed(
    ray_cluster: RayCluster, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.cluster.address)
    examples.write_example("loans", tmp_path / "loans.csv", rows=60_000)
    rowcast("predict", "loans", "loans.csv", "--out", "local.csv", "--home", home, cwd=tmp_path)

    with servers.running(home) as server, server.client() as client:
        options = ("--engine", "ray", "--record", "rows", "--url", server.address)
        job = rowcast("jobs", "submit", "loans.csv", *options, cwd=tmp_path).stdout.strip()
        runner = eventually(lambda: runner_of(server), 60)
        eventually(lambda: client.get(f"/jobs/{job}").json()["progress"]["rows"], 60, every=0.02)
        os.kill(runner, signal.SIGKILL)
        assert client.get(f"/jobs/{job}").json()["state"] == "running"
        shown = eventually(lambda: ended(client.get(f"/jobs/{job}").json()), 120)
        result = client.get(f"/jobs/{job}/result").content

    assert (shown["state"], shown["engine"], shown["result"]["rows"]) == ("done", "ray", 60_000), shown
    assert result == (tmp_path / "local.csv").read_bytes()
    verified = json.loads(rowcast("verify", "--json", "--home", home, cwd=home).stdout)
    assert (verified["broken"], verified["entries"]) == ([], 60_001)


def runner_of(server: Server) -> int | None:
    """Return the process ID of a server's job runner, or None if none is running."""
    pids = servers.children(server.process.pid)
    return next((pid for pid in pids if servers.command_of(pid).endswith(" job-runner")), None)


def ended(job: Any) -> Any:
    return job if job["state"] not in ("queued", "running") else None
