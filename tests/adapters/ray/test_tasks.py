"""Tasks on the nodes of a Ray cluster: version checks, and errors that are returned as values."""

from __future__ import annotations

import pytest

from rowcast.adapters.ray import tasks
from rowcast.adapters.ray.tasks import Failure, SharedValue, check_versions, installed_versions, run_task
from rowcast.errors import InvalidRows, Unavailable
from support.tasks import add, fail


@pytest.fixture(autouse=True)
def value(monkeypatch: pytest.MonkeyPatch) -> SharedValue:
    """A shared value that is already in this process's memory."""
    monkeypatch.setattr(tasks, "_kept", {"key": 40})
    return SharedValue("key", None)


def test_a_task_returns_the_result_of_its_function(value: SharedValue) -> None:
    assert run_task(installed_versions(), add, value, (2,)) == 42


def test_an_error_raised_by_the_function_is_returned_as_a_value(value: SharedValue) -> None:
    outcome = run_task(installed_versions(), fail, value, (7,))

    assert isinstance(outcome, Failure)
    assert isinstance(outcome.error, InvalidRows)


@pytest.mark.parametrize("package", ["rowcast", "python", "polars", "onnxruntime"])
def test_a_node_with_a_different_version_runs_no_task(value: SharedValue, package: str) -> None:
    outcome = run_task({**installed_versions(), package: "0.0.1"}, add, value, (2,))

    assert isinstance(outcome, Failure)
    assert (outcome.error.slug, f"{package} 0.0.1" in outcome.error.message) == ("engine-versions", True)


def test_a_node_that_lacks_a_package_of_the_driver_runs_no_task() -> None:
    with pytest.raises(Unavailable) as refused:
        check_versions({"no-such-package": "1"})

    assert refused.value.slug == "engine-versions"
