"""A pytest plugin for `make mutants`: name coverage contexts after tests, and write all outcomes to a file.

The environment variable TEST_OUTCOMES contains the file's path. The file maps each test to its outcome and its duration
in seconds.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import coverage
import pytest

OUTCOMES: dict[str, tuple[str, float]] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Attribute the lines that run from now on to this test."""
    if (current := coverage.Coverage.current()) is not None:
        current.switch_context(item.nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add the result of a setup, call or teardown to the outcome of its test."""
    outcome, seconds = OUTCOMES.get(report.nodeid, ("passed", 0.0))
    if not report.passed:
        outcome = report.outcome
    OUTCOMES[report.nodeid] = (outcome, seconds + report.duration)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Save the coverage of a pytest worker process, or the outcomes that the pytest controller has collected."""
    if hasattr(session.config, "workerinput"):
        if (current := coverage.Coverage.current()) is not None:
            current.save()
        return
    if path := os.environ.get("TEST_OUTCOMES"):
        Path(path).write_text(json.dumps(OUTCOMES))
