"""The parent of the server processes: it holds the listening socket, and starts, restarts and stops the processes.

It answers no requests and imports no heavy modules, so that no request can crash it and its memory use stays constant.
The server processes share its listening socket: if one of them dies, the others accept the waiting connections. Each
server process holds the read end of a pipe, and only the supervisor holds the write end. If the supervisor dies, the
pipe closes and the server processes shut down.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import msgspec
import structlog

from rowcast.runtime.signals import STOP_SIGNALS, handle_stop
from rowcast.serving.fleet import ProcessStatus, ServerState

CHECK_SECONDS = 0.5
STUCK_SECONDS = 30.0
"""How long to wait for a server process's heartbeat before killing and replacing the process."""
QUICK_DEATH_SECONDS = 1.0
"""If a process repeatedly dies within this time of becoming ready, the delay before each restart doubles."""
MAX_PAUSE_SECONDS = 10.0
GRACE_SECONDS = 10.0
"""How much longer than `drain_seconds` to wait for a server process to exit before killing it."""

log = structlog.get_logger("rowcast.runtime")


class IndexerPlan(msgspec.Struct, frozen=True):
    """How to start the indexer, and how to check whether another server already runs an indexer for this history."""

    command: Sequence[str]
    environment: Mapping[str, str]
    is_running: Callable[[], bool]


class ProcessPost(msgspec.Struct):
    """The supervisor's record of one server process."""

    number: int
    pid: int = 0
    ready_at: float | None = None
    quick_deaths: int = 0
    start_at: float = 0.0

    def pause_after_death(self, now: float) -> float:
        """Count a death and return the delay before the restart. After a long run, the count starts again at zero."""
        is_quick = self.ready_at is None or now - self.ready_at < QUICK_DEATH_SECONDS
        self.quick_deaths = self.quick_deaths + 1 if is_quick else 0
        return min(MAX_PAUSE_SECONDS, 0.1 * 2**self.quick_deaths) if self.quick_deaths > 1 else 0.0


Work = Callable[[int, int, bool], int]
"""Runs a server process and returns its exit status.

The arguments are the process number, a pipe that closes when the supervisor dies, and whether this is the first server
process.
"""


class Supervisor:
    """Runs `work` in every server process and keeps the processes running."""

    def __init__(
        self,
        state: ServerState,
        work: Work,
        close_listener: Callable[[], None],
        indexer: IndexerPlan,
        drain_seconds: float,
    ) -> None:
        self._state = state
        self._work = work
        self._close_listener = close_listener
        self._indexer_plan = indexer
        self._drain_seconds = drain_seconds
        self._posts = [ProcessPost(number) for number in range(state.process_count)]
        self._signals = 0
        self._life, self._life_end = os.pipe()
        # The indexer exits when this pipe closes. The server processes inherit the write end, so it outlives them.
        self._index, self._index_end = os.pipe()
        self._indexer: subprocess.Popen[bytes] | None = None
        self._indexer_due = 0.0
        self._wake, self._wake_end = os.pipe()

    def run(self) -> int:
        """Run until a signal arrives; return the exit status."""
        for end in (self._wake, self._wake_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake_end)
        handle_stop(self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        gc.freeze()  # otherwise, the garbage collector writes to objects, and the kernel copies their memory pages
        status = self._start_first()
        if status is not None:
            return status
        for post in self._posts[1:]:
            self._start(post)
        while not self._signals:
            self._keep_indexer()
            self._check_processes()
            self._sleep(CHECK_SECONDS)
        return self._end()

    def _start_first(self) -> int | None:
        """Start one server process and wait until it is ready, so that a configuration error is reported only once."""
        post = self._posts[0]
        self._start(post, is_first=True)
        while not self._signals:
            status = self._exit_status(post)
            if status is not None:
                if status < 0 or status == 1:
                    log.error("the first server process exited before it was ready", status=status)
                return status if status > 0 else 1
            if self._state.processes()[0].state == "ready":
                return None
            self._sleep(CHECK_SECONDS / 10)
        return self._end()

    def _start(self, post: ProcessPost, *, is_first: bool = False) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        post.ready_at = None
        # The signals are blocked until the process has its own handlers, so that it does not lose a signal.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._run_process(post.number, is_first=is_first)
        post.pid = pid
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _run_process(self, number: int, *, is_first: bool) -> NoReturn:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for handled in (*STOP_SIGNALS, signal.SIGCHLD):
                signal.signal(handled, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            os.setsid()  # Ctrl-C in a terminal reaches only the supervisor
            for end in (self._life_end, self._wake, self._wake_end, self._index):
                os.close(end)
            status = self._work(number, self._life, is_first)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            log.exception("a server process failed", process=number)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _check_processes(self) -> None:
        """Restart dead server processes and kill stuck server processes."""
        now = time.monotonic()
        for post, process in zip(self._posts, self._state.processes(), strict=True):
            if not post.pid:
                if now >= post.start_at:
                    self._start(post)
                continue
            status = self._exit_status(post)
            if status is not None:
                self._restart(post, status, now)
            elif process.state == "ready" and post.ready_at is None:
                post.ready_at = now
            elif _is_stuck(process, post):
                log.error("killing a stuck server process", process=post.number, silent=process.silent_seconds)
                os.kill(post.pid, signal.SIGKILL)

    def _restart(self, post: ProcessPost, status: int, now: float) -> None:
        """Restart a dead server process, after a delay if it keeps dying."""
        pause = post.pause_after_death(now)
        post.start_at = now + pause
        log.error("a server process exited; restarting it", process=post.number, status=status, pause=pause)
        if not pause:
            self._start(post)

    def _exit_status(self, post: ProcessPost) -> int | None:
        """Return the exit status, the negated number of the fatal signal, or None if the process is running."""
        if not post.pid:
            return None
        pid, status = os.waitpid(post.pid, os.WNOHANG)
        if pid == 0:
            return None
        post.pid = 0
        return os.waitstatus_to_exitcode(status)

    def _keep_indexer(self) -> None:
        now = time.monotonic()
        if self._indexer is not None and self._indexer.poll() is not None:
            log.warning("the indexer exited; restarting it", status=self._indexer.returncode)
            self._indexer = None
        if self._indexer is None and now >= self._indexer_due:
            self._indexer_due = now + 1.0
            if not self._indexer_plan.is_running():
                plan = self._indexer_plan
                try:
                    self._indexer = subprocess.Popen(
                        list(plan.command), stdin=self._index, env=dict(plan.environment), start_new_session=True
                    )
                except OSError as error:
                    log.warning("cannot start the indexer", reason=error.strerror)

    def _end(self) -> int:
        """Let all server processes drain, and then let the indexer move the remaining entries into the store."""
        self._close_listener()
        self._signal_processes()
        forwarded, deadline = self._signals, time.monotonic() + self._drain_seconds + GRACE_SECONDS
        killed = False
        while any(post.pid for post in self._posts):
            for post in self._posts:
                self._exit_status(post)
            if self._signals > forwarded:
                forwarded = self._signals
                self._signal_processes()
            if time.monotonic() > deadline and not killed:
                killed = True
                log.error("some server processes did not exit in time; killing them")
                self._signal_processes(signal.SIGKILL)
            self._sleep(CHECK_SECONDS / 10)
        os.close(self._index_end)
        if self._indexer is not None:
            self._indexer.wait()
        return 1 if killed else 0

    def _signal_processes(self, number: signal.Signals = signal.SIGTERM) -> None:
        for post in self._posts:
            if post.pid:
                os.kill(post.pid, number)  # the process has not been reaped, so its id is still valid

    def _on_signal(self, number: int, _frame: object) -> None:
        if number != signal.SIGHUP or not self._signals:  # as in `DrainingServer`, a hangup is never a second signal
            self._signals += 1

    def _sleep(self, seconds: float) -> None:
        """Sleep for this long, or until a signal arrives or a child exits."""
        if select.select([self._wake], [], [], seconds)[0]:
            os.read(self._wake, 4096)


def _is_stuck(process: ProcessStatus, post: ProcessPost) -> bool:
    return process.state == "stale" and process.silent_seconds > STUCK_SECONDS and process.pid == post.pid
