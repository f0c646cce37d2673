"""How the clients wait for jobs, and what requests they send."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rowcast.client.errors import BadCall, JobNotDone
from rowcast.client.jobs import LONGEST_PAUSE, JobWait, submit_call
from rowcast.jobs.job import JobFile, JobProgress, JobStatus


def job(state: Any) -> JobStatus:
    return JobStatus(
        id="j",
        state=state,
        model="m",
        version=1,
        digest="d",
        format="csv",
        record="job",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        input=JobFile("0", 1),
        progress=JobProgress(),
    )


def test_the_pauses_grow_up_to_a_limit() -> None:
    wait = JobWait(None, 0.0)

    pauses = [wait.pause(job("running"), 0.0) or 0.0 for _ in range(20)]

    assert pauses == sorted(pauses)
    assert 0 < pauses[0] < 0.5
    assert pauses[-1] == LONGEST_PAUSE


@pytest.mark.parametrize("state", ["done", "failed", "canceled"])
def test_waiting_for_a_finished_job_ends_without_an_error_even_after_the_timeout(state: str) -> None:
    assert JobWait(1.0, 0.0).pause(job(state), 99.0) is None


def test_a_job_that_is_still_open_when_the_timeout_expires_causes_an_error() -> None:
    wait = JobWait(1.0, 0.0)

    assert wait.pause(job("queued"), 0.99) == pytest.approx(0.01)
    with pytest.raises(JobNotDone):
        wait.pause(job("queued"), 1.0)


def test_a_file_is_sent_unchanged_and_rows_are_sent_as_json_lines() -> None:
    file = submit_call("rows.parquet", "loans", {"columns": ["a", "b"], "record": "rows", "format": "csv"}).request
    rows = submit_call([{"a": 1}, {"a": None}], None, {"engine": "ray"}).request

    assert (file.file, file.body, file.headers["content-type"]) == (
        *(Path("rows.parquet"), None),
        "application/octet-stream",
    )
    assert dict(file.query) == {"model": "loans", "format": "csv", "columns": "a,b", "record": "rows"}
    assert (rows.file, rows.body, rows.query) == (None, b'{"a":1}\n{"a":null}\n', (("engine", "ray"),))
    assert file.headers["idempotency-key"] != rows.headers["idempotency-key"]
    assert file.is_repeatable


def test_an_invalid_idempotency_key_is_refused() -> None:
    with pytest.raises(BadCall):
        submit_call([{"a": 1}], None, {"idempotency_key": "with space"})
