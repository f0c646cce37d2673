"""Runs tasks on a Ray cluster.

If a process or a node fails, Ray runs its tasks again elsewhere. Shared values and arguments belong to the driver, so
they are lost only if the driver fails.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError

from rowcast.adapters.ray.tasks import Failure, SharedValue, installed_versions, run_task
from rowcast.engines import Shared, Task
from rowcast.errors import EngineUnavailable

Value = TypeVar("Value")
Result = TypeVar("Result")

RETRIES: Final = 5
"""How many times Ray retries a task whose process or node has failed."""


class RayEngine:
    """Runs each task on one core of a cluster to which this process is connected."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._run = ray.remote(num_cpus=1, max_retries=RETRIES)(run_task)
        self._versions = ray.put(dict(installed_versions()))

    def share(self, value: Value) -> Shared[Value]:
        _check_connection()
        return Shared(SharedValue(uuid.uuid4().hex, ray.put(value)))

    def submit(self, function: Callable[..., Result], shared: Shared[Any], *arguments: Any) -> Task[Result]:
        _check_connection()
        return _RayTask(self._run.remote(self._versions, function, shared.reference, arguments))


class _RayTask(Generic[Result]):
    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def result(self, seconds: float | None = None) -> Result:
        _check_connection()
        try:
            outcome = ray.get(self._reference, timeout=seconds)
        except GetTimeoutError:
            raise TimeoutError from None
        except (RayError, ConnectionError) as error:
            raise _failure(error) from None
        if isinstance(outcome, Failure):
            raise outcome.error
        result: Result = outcome
        return result

    def wait(self, seconds: float) -> bool:
        _check_connection()
        try:
            ended, _ = ray.wait([self._reference], timeout=seconds)
        except (RayError, ConnectionError) as error:
            raise _failure(error) from None
        return bool(ended)

    def cancel(self) -> None:
        with suppress(RayError, ConnectionError, EngineUnavailable):  # if the cluster is lost, so is the task
            _check_connection()
            ray.cancel(self._reference)


def _check_connection() -> None:
    """Raise EngineUnavailable if the connection was lost. In that state, any call to Ray would start a new cluster."""
    if not ray.is_initialized():
        raise EngineUnavailable("the connection to the Ray cluster was lost", slug="engine-failed")


def _failure(error: Exception) -> EngineUnavailable:
    return EngineUnavailable(f"the Ray cluster cannot run a task: {last_line(error)}", slug="engine-failed")


def last_line(error: Exception) -> str:
    """Return the last line of a Ray error, which names the cause. The lines before it are a traceback."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip()[:500] if lines else type(error).__name__
