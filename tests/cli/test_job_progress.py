"""While a command waits for a job, it prints why the job is postponed."""

from __future__ import annotations

import msgspec
import pytest

from rowcast.cli.jobs import job_progress
from rowcast.jobs.job import JobError, status_of
from support.jobs import new_job


def test_each_reason_for_which_a_job_is_postponed_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    job = status_of(new_job())
    problems = [JobError("engine-unavailable", reason) for reason in ("no cluster", "no cores")]

    with job_progress() as report:
        for problem in (None, problems[0], problems[0], None, problems[1], problems[0]):
            report(msgspec.structs.replace(job, problem=problem))

    shown = capsys.readouterr()
    assert shown.err.splitlines() == ["the job is postponed: no cluster", "the job is postponed: no cores"]
    assert shown.out == ""
