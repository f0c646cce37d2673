"""The contract of `JobStore`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from rowcast.adapters.memory.jobs import MemoryJobStore
from rowcast.adapters.postgresql.jobs import PostgresJobStore
from rowcast.adapters.sqlite.jobs import SqliteJobStore
from rowcast.errors import NotFound, Overloaded, RepeatConflict
from rowcast.jobs.job import (
    LONGEST_PAUSE,
    MAX_ATTEMPTS,
    SECOND,
    Job,
    JobError,
    JobProgress,
    LostClaim,
    canceled,
    checked,
    claim_of,
    failed,
    postponed,
    progressed,
    released,
)
from rowcast.jobs.ports import JobStore, VisibleJobs
from support.jobs import chunk, job_id, new_job

ALL = VisibleJobs()
MINUTE = 60.0


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    opened: JobStore
    if request.param == "memory":
        opened = MemoryJobStore()
    elif request.param == "postgresql":
        opened = PostgresJobStore(request.getfixturevalue("database"))
    else:
        opened = SqliteJobStore(tmp_path / "a" / "jobs.db")
    yield opened
    opened.close()


def add(store: JobStore, *jobs: Job) -> None:
    for job in jobs:
        store.add(job, max_open=100)


def claim(store: JobStore, runner: str = "r", seconds: float = MINUTE) -> Job:
    job = store.claim(runner, "here", seconds=seconds)
    assert job is not None
    return job


def test_an_empty_store_has_no_jobs(store: JobStore) -> None:
    assert store.get(job_id(1)) is None
    assert store.page(ALL, 10) == []
    assert store.chunks(job_id(1)) == []
    assert store.claim("r", "here", seconds=1) is None
    assert not store.is_work_due("here")
    assert store.expired("here") == []
    assert not store.has_worker("here", 10)
    store.remove(job_id(1))
    with pytest.raises(NotFound):
        store.change(job_id(1), lambda job, now: job)


def test_a_job_is_returned_as_it_was_added(store: JobStore) -> None:
    job = new_job(1, repeat_key="k", fingerprint=b"f")

    assert store.add(job, max_open=1) == job
    assert store.get(job.id) == job
    assert store.is_work_due("here")
    assert not store.is_work_due("elsewhere")


def test_adding_a_job_with_a_used_key_returns_the_first_job(store: JobStore) -> None:
    first = new_job(1, repeat_key="k", fingerprint=b"f")
    add(store, first)

    assert store.add(new_job(2, repeat_key="k", fingerprint=b"f"), max_open=1) == first
    assert store.page(ALL, 10) == [first]


def test_adding_a_different_job_with_a_used_key_fails(store: JobStore) -> None:
    add(store, new_job(1, repeat_key="k", fingerprint=b"f"))

    with pytest.raises(RepeatConflict) as refused:
        store.add(new_job(2, repeat_key="k", fingerprint=b"g"), max_open=10)
    assert refused.value.slug == "repeat-differs"


def test_concurrent_requests_with_the_same_key_add_one_job(store: JobStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        jobs = [new_job(number, repeat_key="k", fingerprint=b"f") for number in range(8)]
        added = set(pool.map(lambda job: store.add(job, max_open=10).id, jobs))

    assert [job.id for job in store.page(ALL, 10)] == list(added)


def test_each_tenant_has_its_own_limit_of_open_jobs(store: JobStore) -> None:
    store.add(new_job(1, tenant="a"), max_open=1)

    with pytest.raises(Overloaded):
        store.add(new_job(2, tenant="a"), max_open=1)
    store.add(new_job(3, tenant="b"), max_open=1)
    store.change(job_id(1), canceled)
    store.add(new_job(4, tenant="a"), max_open=1)


def test_jobs_are_listed_in_pages_from_newest_to_oldest(store: JobStore) -> None:
    add(store, *(new_job(number) for number in (2, 1, 3)))

    assert [job.id for job in store.page(ALL, 2)] == [job_id(3), job_id(2)]
    assert [job.id for job in store.page(ALL, 2, before=job_id(2))] == [job_id(1)]


def test_only_visible_jobs_are_listed(store: JobStore) -> None:
    add(store, new_job(1, tenant="a", key_id="k"), new_job(2, tenant="a", key_id="l", model="other"), new_job(3))

    def listed(visible: VisibleJobs) -> list[str]:
        jobs = store.page(visible, 10)
        assert jobs == [job for job in store.page(ALL, 10) if visible.contains(job)]
        return [job.id for job in jobs]

    assert listed(VisibleJobs(tenant="a")) == [job_id(2), job_id(1)]
    assert listed(VisibleJobs(tenant="a", key_id="k")) == [job_id(1)]
    assert listed(VisibleJobs(tenant="")) == [job_id(3)]
    assert listed(VisibleJobs(models=("other", "none"))) == [job_id(2)]


def test_the_oldest_job_is_claimed_first_and_only_once(store: JobStore) -> None:
    add(store, new_job(2), new_job(1), new_job(3, place="elsewhere"))

    jobs = [store.claim(f"r{number}", "here", seconds=MINUTE) for number in range(3)]

    assert [job and job.id for job in jobs] == [job_id(1), job_id(2), None]
    first = store.get(job_id(1))
    assert first is not None
    assert (first.state, first.runner, first.claim, first.started > 0) == ("running", "r0", 1, True)


def test_concurrent_claims_get_different_jobs(store: JobStore) -> None:
    add(store, *(new_job(number) for number in range(8)))

    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda number: claim(store, f"r{number}"), range(8)))

    assert len({job.id for job in jobs}) == 8


def test_a_job_can_be_claimed_again_when_its_lease_has_expired(store: JobStore) -> None:
    add(store, new_job(1))
    first = claim(store, "a", seconds=0)

    second = claim(store, "b")

    assert (second.runner, second.claim, second.started) == ("b", 2, first.started)
    with pytest.raises(LostClaim):
        store.change(first.id, lambda job, now: checked(job, claim_of(first)))
    assert store.get(first.id) == second


def test_a_job_of_a_dead_runner_can_be_claimed_before_its_lease_expires(store: JobStore) -> None:
    add(store, new_job(1), new_job(2))
    claim(store, "dead")
    claim(store, "alive")

    again = store.claim("new", "here", seconds=MINUTE, dead_runner="dead")

    assert again is not None
    assert (again.id, again.runner) == (job_id(1), "new")
    assert store.claim("new", "here", seconds=MINUTE, dead_runner="dead") is None


def test_a_released_job_can_be_claimed_at_once(store: JobStore) -> None:
    add(store, new_job(1))
    claim(store)

    store.change(job_id(1), lambda job, now: released(job))

    assert claim(store, "next").claim == 2


def test_a_job_that_is_claimed_too_often_without_progress_fails(store: JobStore) -> None:
    add(store, new_job(1))
    for _ in range(MAX_ATTEMPTS):
        claim(store, seconds=0)

    assert store.claim("r", "here", seconds=MINUTE) is None
    job = store.get(job_id(1))
    assert job is not None
    assert (job.state, job.error and job.error.slug) == ("failed", "runner-died")


def postpone(store: JobStore, job: Job) -> Job:
    problem = JobError("engine-unavailable", "the cluster does not respond")
    return store.change(job.id, lambda current, now: postponed(checked(current, claim_of(job)), now, problem))


def retry_now(store: JobStore, job_id: str) -> None:
    store.change(job_id, lambda job, now: msgspec.structs.replace(job, retry_at=now))


def test_a_postponed_job_does_not_delay_other_jobs_and_is_claimed_again_later(store: JobStore) -> None:
    add(store, new_job(1), new_job(2))

    waiting = postpone(store, claim(store))

    assert (waiting.state, waiting.problem and waiting.problem.slug) == ("queued", "engine-unavailable")
    assert claim(store).id == job_id(2)
    assert store.claim("r", "here", seconds=MINUTE) is None
    retry_now(store, job_id(1))
    again = claim(store)
    assert (again.id, again.attempts, again.problem, again.retry_at) == (job_id(1), 2, None, 0)


def test_the_pauses_of_a_postponed_job_grow_and_the_last_attempt_fails_with_its_reason(store: JobStore) -> None:
    add(store, new_job(1))
    pauses = []
    for _ in range(MAX_ATTEMPTS - 1):
        claimed = claim(store, seconds=0)
        pauses.append(postpone(store, claimed).retry_at - claimed.lease_until)
        retry_now(store, job_id(1))

    job = postpone(store, claim(store))

    assert [round(pause / SECOND) for pause in (*pauses[:3], pauses[-1])] == [5, 10, 20, LONGEST_PAUSE]
    assert (job.state, job.error and job.error.slug, job.secret) == ("failed", "engine-unavailable", b"")
    assert "the cluster does not respond" in (job.error.message if job.error else "")


def test_a_postponed_job_can_be_canceled(store: JobStore) -> None:
    add(store, new_job(1))
    postpone(store, claim(store))

    assert store.change(job_id(1), canceled).state == "canceled"


def test_progress_resets_the_number_of_attempts(store: JobStore) -> None:
    add(store, new_job(1))
    for number in range(2 * MAX_ATTEMPTS):
        claim(store, seconds=0)
        store.add_chunk(job_id(1), chunk(number), lambda job, now: progressed(job, now, JobProgress(), seconds=0))

    assert claim(store).attempts == 1


def test_a_chunk_is_stored_only_if_the_change_succeeds(store: JobStore) -> None:
    add(store, new_job(1))
    job = claim(store)
    progress = JobProgress(10, 0, 0.5)

    store.add_chunk(job.id, chunk(0), lambda job, now: progressed(job, now, progress, seconds=MINUTE))
    store.change(job.id, canceled)
    with pytest.raises(LostClaim):
        store.add_chunk(job.id, chunk(1), lambda current, now: checked(current, claim_of(job)))

    assert store.chunks(job.id) == [chunk(0)]
    after = store.get(job.id)
    assert after is not None
    assert after.progress == progress


def test_a_job_that_has_ended_is_never_claimed_and_has_no_secret(store: JobStore) -> None:
    add(store, new_job(1), new_job(2))
    store.change(job_id(1), canceled)
    store.change(job_id(2), lambda job, now: failed(job, now, JobError("table", "no")))

    assert store.claim("r", "here", seconds=0, dead_runner="r") is None
    for number in (1, 2):
        job = store.get(job_id(number))
        assert job is not None
        assert (job.is_open, job.secret) == (False, b"")


def test_only_jobs_that_have_ended_expire_after_their_retention_period(store: JobStore) -> None:
    add(store, new_job(1, keep_seconds=0.0), new_job(2), new_job(3, keep_seconds=0.0))
    for number in (1, 2):
        store.change(job_id(number), canceled)

    assert store.expired("here") == [job_id(1)]
    assert store.expired("elsewhere") == []
    assert store.is_work_due("here")


def test_removing_a_job_also_removes_its_chunks_and_its_key(store: JobStore) -> None:
    add(store, new_job(1, repeat_key="k", fingerprint=b"f"))
    store.add_chunk(job_id(1), chunk(0), lambda job, now: job)

    store.remove(job_id(1))

    assert (store.get(job_id(1)), store.chunks(job_id(1))) == (None, [])
    store.add(new_job(2, repeat_key="k", fingerprint=b"g"), max_open=1)


def test_a_worker_is_found_only_if_it_has_registered_recently(store: JobStore) -> None:
    store.register_worker("w", "here")
    store.register_worker("w", "here")

    assert store.has_worker("here", MINUTE)
    assert not store.has_worker("here", 0)
    assert not store.has_worker("elsewhere", MINUTE)


def test_a_closed_store_can_be_used_again(store: JobStore) -> None:
    add(store, new_job(1))
    store.close()
    store.close()

    assert store.get(job_id(1)) == new_job(1)
