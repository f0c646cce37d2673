"""Runs a job runner in a child process for as long as there are jobs.

A server runs jobs only if no worker does. The child exits when its standard input closes, so it also exits if this
process dies.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

import structlog

from rowcast.errors import RowcastError

CHECK_SECONDS = 2.0
STOP_SECONDS = 10.0
"""If a runner is still scoring a chunk this long after it was asked to stop, it is killed. The job continues later."""

log = structlog.get_logger("rowcast.runtime")


class JobRunnerChild:
    """A part of a server or worker. `is_needed` returns whether to start a runner; it may block."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], is_needed: Callable[[], bool]) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._is_needed = is_needed
        self._keeper: asyncio.Task[None] | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakeup = asyncio.Event()
        self._last_problem = ""

    def wake(self) -> None:
        """Check immediately whether a runner is needed. Thread-safe."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wakeup.set)

    async def start(self) -> None:
        """Start the task that keeps the runner running."""
        self._loop = asyncio.get_running_loop()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Let the runner finish its chunk, and wait until it exits."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        child = self._child
        if child is not None and child.returncode is None and child.stdin is not None:
            child.stdin.close()
            try:
                await asyncio.wait_for(child.wait(), STOP_SECONDS)
            except TimeoutError:
                child.kill()
                await child.wait()

    async def _keep(self) -> None:
        while True:
            if await self._check():
                await self._run_child()
            self._wakeup.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wakeup.wait(), CHECK_SECONDS)

    async def _check(self) -> bool:
        try:
            is_needed = await asyncio.to_thread(self._is_needed)
        except RowcastError as error:
            if error.message != self._last_problem:
                self._last_problem = error.message
                log.warning("cannot check whether there are jobs", reason=error.message)
            return False
        self._last_problem = ""
        return is_needed

    async def _run_child(self) -> None:
        try:
            self._child = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.PIPE, env=self._environment, start_new_session=True
            )
        except OSError as error:
            log.warning("cannot start the job runner", reason=error.strerror)
            return
        status = await self._child.wait()
        if status:
            log.warning("the job runner exited", status=status)
        self._child = None
