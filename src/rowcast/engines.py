"""An engine runs tasks: in the threads of this process, or on the nodes of a cluster.

A task is a call of a function with a shared value and other arguments. Its result must depend only on these arguments,
because an engine may run a task again if a node fails. Functions, values and results must be picklable, unless the
engine is a `ThreadEngine`. `open_engine` in `app/engines.py` chooses the engine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

Value = TypeVar("Value")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)

WAITING: Final = 2
"""The number of tasks that are queued while every slot is in use, so that a slot gets new work as soon as it is
free."""


POLL_SECONDS: Final = 0.5
"""How often `run_in_order` calls `while_waiting`."""


class Shared(NamedTuple, Generic[Value]):
    """A value that many tasks use. The type of `reference` depends on the engine."""

    reference: Any


class Task(Protocol[Result_co]):
    """A task that has been submitted."""

    def result(self, seconds: float | None = None) -> Result_co:
        """Wait for the result and return it; raise TimeoutError after `seconds`.

        Raise the exception that the function raised, or EngineUnavailable if the engine cannot run the task.
        """
        ...

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds`; return whether the task has ended. Raise EngineUnavailable if the engine has failed."""
        ...

    def cancel(self) -> None:
        """Stop the task, if possible, because its result is not needed."""
        ...


class Engine(Protocol):
    """Starts tasks in the order of submission whenever a slot is free. The code that creates an engine must close
    it."""

    @property
    def slots(self) -> int:
        """The number of tasks that can run at the same time."""
        ...

    def share(self, value: Value) -> Shared[Value]:
        """Make a value available to tasks. An engine sends it to each process at most once."""
        ...

    def submit(self, function: Callable[..., Result], shared: Shared[Any], *arguments: Any) -> Task[Result]:
        """Start `function(value, *arguments)`, where `value` is the shared value."""
        ...


def run_in_order(
    engine: Engine,
    function: Callable[..., Result],
    shared: Shared[Any],
    calls: Iterable[tuple[Any, ...]],
    *,
    while_waiting: Callable[[], None] = lambda: None,
) -> Generator[Result, None, None]:
    """Yield the result of each call in order. At most `engine.slots + WAITING` calls and results are kept in memory.

    `while_waiting` is called repeatedly while the next result is not available. If it raises an error, all tasks are
    canceled.
    """
    running: deque[Task[Result]] = deque()

    def wait_for_first() -> Task[Result]:
        while not running[0].wait(POLL_SECONDS):
            while_waiting()
        return running.popleft()

    try:
        for arguments in calls:
            running.append(engine.submit(function, shared, *arguments))
            if len(running) >= engine.slots + WAITING:
                yield wait_for_first().result()
        while running:
            yield wait_for_first().result()
    finally:
        for task in running:
            task.cancel()


class ThreadEngine:
    """Runs tasks in threads of this process."""

    def __init__(self, threads: int) -> None:
        self.slots = threads
        self._pool = ThreadPoolExecutor(threads, "rowcast-task")

    def share(self, value: Value) -> Shared[Value]:
        return Shared(value)

    def submit(self, function: Callable[..., Result], shared: Shared[Any], *arguments: Any) -> Task[Result]:
        return _ThreadTask(self._pool.submit(function, shared.reference, *arguments))

    def close(self) -> None:
        """Wait for the running tasks, and cancel the others."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class _ThreadTask(Generic[Result]):
    def __init__(self, future: Future[Result]) -> None:
        self._future = future

    def result(self, seconds: float | None = None) -> Result:
        return self._future.result(seconds)

    def wait(self, seconds: float) -> bool:
        return bool(wait([self._future], seconds).done)

    def cancel(self) -> None:
        self._future.cancel()
