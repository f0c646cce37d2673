"""Running jobs: after any failure, every job ends, is released or is continued."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rowcast.adapters.memory.jobs import MemoryFileStore, MemoryJobStore
from rowcast.errors import EngineUnavailable, NotFound, TableError, Unavailable
from rowcast.jobs import runner as runner_module
from rowcast.jobs.job import MAX_ATTEMPTS, Job, JobClaim, JobError, JobFile, JobResult, JobStop, canceled, checked
from rowcast.jobs.runner import JobRunner, run_jobs
from support.jobs import job_id, new_job
from support.waiting import eventually

RESULT = JobResult(3, 1, 0, JobFile("aa", 6), JobFile("bb", 8))


class Case:
    """A runner whose jobs execute a function that the test supplies."""

    def __init__(self) -> None:
        self.store, self.files = MemoryJobStore(), MemoryFileStore()
        self.action: Callable[[Job, JobClaim, Callable[[], bool]], JobResult] = lambda *arguments: RESULT
        self.executed: list[str] = []
        self.runner = JobRunner(self.store, self.files, self.execute, name="r", dead_runner="dead")

    def execute(self, job: Job, claim: JobClaim, is_stopping: Callable[[], bool]) -> JobResult:
        self.executed.append(job.id)
        return self.action(job, claim, is_stopping)

    def add(self, number: int = 1, **fields: Any) -> str:
        job = new_job(number, place=self.files.place, **fields)
        self.store.add(job, max_open=10)
        for name in ("input.csv", "chunks/1", "result.csv"):
            self.files.put(f"{job.id}/{name}", b"x")
        return job.id

    def job(self, number: int = 1) -> Job:
        job = self.store.get(job_id(number))
        assert job is not None
        return job

    def run(self) -> bool:
        return self.runner.run_next(lambda: False)

    def has(self, name: str) -> bool:
        try:
            self.files.read(f"{job_id(1)}/{name}")
        except NotFound:
            return False
        return True


@pytest.fixture
def case() -> Case:
    return Case()


def raising(error: BaseException) -> Callable[..., JobResult]:
    def act(*arguments: Any) -> JobResult:
        raise error

    return act


def test_nothing_runs_if_there_are_no_jobs(case: Case) -> None:
    assert not case.run()


def test_a_job_that_succeeds_is_done_and_keeps_only_its_results(case: Case) -> None:
    case.add()

    assert case.run()

    assert (case.job().state, case.job().result, case.job().remove_at > 0) == ("done", RESULT, True)
    assert [case.has(name) for name in ("input.csv", "chunks/1", "result.csv")] == [False, False, True]


@pytest.mark.parametrize(
    ("error", "slug"), [(TableError("no rows", slug="empty-table"), "empty-table"), (KeyError("x"), "internal")]
)
def test_a_job_that_cannot_be_completed_fails_and_loses_its_files(case: Case, error: Exception, slug: str) -> None:
    case.add()
    case.action = raising(error)

    assert case.run()

    job = case.job()
    assert job.error is not None
    assert (job.state, job.error.slug) == ("failed", slug)
    assert "'x'" not in job.error.message
    assert case.files.jobs() == []


def test_a_job_is_released_if_a_store_fails(case: Case) -> None:
    case.add()
    case.action = raising(Unavailable("the history is unavailable"))

    with pytest.raises(Unavailable):
        case.run()
    assert (case.job().state, case.job().runner, case.job().attempts) == ("queued", "", 0)
    assert case.has("input.csv")


def test_a_job_waits_if_its_engine_is_unavailable_and_the_next_job_runs_at_once(case: Case) -> None:
    first, second = case.add(1), case.add(2)
    case.action = raising(EngineUnavailable("the cluster does not respond"))
    assert case.run()
    case.action = lambda *arguments: RESULT

    assert case.run()

    job = case.job(1)
    assert (job.state, job.runner, job.attempts, job.problem) == (
        *("queued", "", 1),
        JobError("engine-unavailable", "the cluster does not respond"),
    )
    assert (case.executed, case.job(2).state, case.has("input.csv")) == ([first, second], "done", True)


def test_a_job_whose_engine_is_never_available_fails_with_the_reason_and_loses_its_files(case: Case) -> None:
    case.add(attempts=MAX_ATTEMPTS - 1)
    case.action = raising(EngineUnavailable("the cluster does not respond"))

    assert case.run()

    error = case.job().error
    assert error is not None
    assert (case.job().state, error.slug, case.files.jobs()) == ("failed", "engine-unavailable", [])
    assert error.message.startswith("the cluster does not respond")


def test_a_job_is_released_if_the_runner_stops(case: Case) -> None:
    case.add()
    case.action = raising(JobStop())

    assert case.run()
    assert case.job().state == "queued"


def test_a_canceled_job_loses_the_files_that_its_runner_has_written(case: Case) -> None:
    case.add()

    def cancel(job: Job, claim: JobClaim, is_stopping: Callable[[], bool]) -> JobResult:
        case.store.change(job.id, canceled)
        case.files.delete(job.id)
        case.files.put(f"{job.id}/chunks/2", b"late")
        case.store.change(job.id, lambda current, now: checked(current, claim))
        raise AssertionError

    case.action = cancel
    assert case.run()
    assert (case.job().state, case.files.jobs()) == ("canceled", [])


def test_a_job_that_another_runner_has_claimed_is_not_changed(case: Case) -> None:
    case.add()

    def lose(job: Job, claim: JobClaim, is_stopping: Callable[[], bool]) -> JobResult:
        case.store.change(job.id, lambda current, now: runner_module.renewed(current, 0, seconds=0))
        case.store.claim("other", case.files.place, seconds=60)
        return RESULT

    case.action = lose
    assert case.run()
    assert (case.job().state, case.job().runner, case.has("input.csv")) == ("running", "other", True)


def test_the_lease_is_renewed_while_a_job_runs(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "RENEW_SECONDS", 0.01)
    case.add()

    def wait_for_renewal(job: Job, claim: JobClaim, is_stopping: Callable[[], bool]) -> JobResult:
        eventually(lambda: case.job().lease_until > job.lease_until)
        return RESULT

    case.action = wait_for_renewal
    assert case.run()
    assert case.job().state == "done"


def test_a_lost_claim_stops_the_job(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "RENEW_SECONDS", 0.01)
    case.add()

    def cancel_and_wait(job: Job, claim: JobClaim, is_stopping: Callable[[], bool]) -> JobResult:
        case.store.change(job.id, canceled)
        eventually(is_stopping)
        raise JobStop

    case.action = cancel_and_wait
    assert case.run()
    assert (case.job().state, case.files.jobs()) == ("canceled", [])


def test_the_job_of_a_dead_runner_continues_immediately(case: Case) -> None:
    case.add()
    case.store.claim("dead", case.files.place, seconds=60)

    assert case.run()
    assert case.job().state == "done"


def test_jobs_run_one_after_another_until_there_are_none(case: Case) -> None:
    jobs = [case.add(number) for number in (2, 1, 3)]
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return False

    run_jobs(case.runner, wait=wait, idle_seconds=0, now=lambda: 0)

    assert case.executed == [min(jobs)]  # the runner checks for idleness after each job
    run_jobs(case.runner, wait=lambda seconds: seconds == 1.0, idle_seconds=1e9, now=lambda: 0)
    assert case.executed == sorted(jobs)


def test_the_runner_pauses_while_a_store_is_unavailable(case: Case) -> None:
    case.add()
    case.action = raising(Unavailable("away"))
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        if seconds == runner_module.PAUSE_SECONDS:
            case.action = lambda *arguments: RESULT
        return case.job().state == "done"

    run_jobs(case.runner, wait=wait, idle_seconds=1e9, now=lambda: 0)

    assert runner_module.PAUSE_SECONDS in waits
    assert case.job().state == "done"


def test_expired_jobs_are_removed_with_their_files(case: Case) -> None:
    case.add(keep_seconds=0.0)
    case.run()

    case.runner.remove_expired()

    assert (case.store.get(job_id(1)), case.files.jobs()) == (None, [])


def test_only_old_files_without_a_job_are_removed(case: Case) -> None:
    case.add()
    for name in (f"{job_id(2)}/input.csv", "id/x"):
        case.files.put(name, b"x")
    uploaded = 1_700_000_000_002_000

    case.runner.remove_orphans(uploaded + 86_000 * 1_000_000)
    assert case.files.jobs() == [job_id(1), job_id(2), "id"]
    case.runner.remove_orphans(uploaded + 87_000 * 1_000_000)
    assert case.files.jobs() == [job_id(1), "id"]


@contextmanager
def failing_store(case: Case, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(case.store, "change", raising(Unavailable("away")))
        yield


def test_a_claim_that_cannot_be_released_ends_with_its_lease(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.add()
    case.action = raising(Unavailable("away"))

    with failing_store(case, monkeypatch), pytest.raises(Unavailable):
        case.run()
    assert case.job().state == "running"
