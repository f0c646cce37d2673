"""The parent of several workers: it binds the port, forks the workers, starts dead ones again and ends them in order.

It answers nothing and imports nothing heavy, so that nothing in it can break or grow. The workers share its listening
socket: connections that wait when one of them dies are taken by the others. Every worker holds the reading end of a
pipe of which this process alone has the writing end: when it is killed, they see the pipe close and end in order.
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

from rowcast.adapters.files.worker_state import ServerFolder

LOOK_SECONDS = 0.5
STUCK_SECONDS = 30.0
"""A worker whose event loop does not turn for so long is killed and replaced."""
QUICK_DEATH_SECONDS = 1.0
"""A worker that dies before it was ready for so long is started again after a pause, a longer one each time."""
LONGEST_PAUSE = 10.0
GRACE_SECONDS = 10.0
"""What a worker gets beyond `drain_seconds` before it is killed."""

log = structlog.get_logger("rowcast.runtime.supervisor")


class Indexer(msgspec.Struct, frozen=True):
    """How to start the indexer, and whether some other server's serves this history."""

    command: Sequence[str]
    environment: Mapping[str, str]
    is_running: Callable[[], bool]


class Post(msgspec.Struct):
    """One worker's place."""

    number: int
    pid: int = 0
    ready_at: float | None = None
    quick_deaths: int = 0
    start_at: float = 0.0


Work = Callable[[int, int, bool], int]
"""(number, pipe that closes with the supervisor, whether this is its first life) -> exit status."""


class Supervisor:
    """Runs `work` in as many processes as the board has places."""

    def __init__(
        self, board: ServerFolder, work: Work, let_go: Callable[[], None], indexer: Indexer, drain: float
    ) -> None:
        self._board = board
        self._work = work
        self._let_go = let_go
        self._indexer_plan = indexer
        self._drain_seconds = drain
        self._posts = [Post(number) for number in range(board.workers_wanted)]
        self._signals = 0
        self._life, self._life_end = os.pipe()
        # The indexer ends when this pipe closes. The workers have its end too: it outlives the last of them.
        self._index, self._index_end = os.pipe()
        self._indexer: subprocess.Popen[bytes] | None = None
        self._indexer_due = 0.0
        self._wake, self._wake_end = os.pipe()

    def run(self) -> int:
        """Serve until told to stop; the exit status."""
        for end in (self._wake, self._wake_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wake_end)
        for wanted in (signal.SIGTERM, signal.SIGINT):
            signal.signal(wanted, self._told_to_end)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        gc.freeze()  # what is here now is shared with the workers, and stays so while nobody walks it
        failed = self._first()
        if failed is not None:
            return failed
        for post in self._posts[1:]:
            self._start(post)
        while not self._signals:
            self._keep_indexer()
            self._look_after_workers()
            self._sleep(LOOK_SECONDS)
        return self._end()

    def _first(self) -> int | None:
        """Start one worker and wait until it is ready: a mistake is said once, and nothing else runs then."""
        post = self._posts[0]
        self._start(post, first=True)
        while not self._signals:
            status = self._ended(post)
            if status is not None:
                if status < 0 or status == 1:
                    log.error("the first worker ended before it was ready", status=status)
                return status if status > 0 else 1
            if self._board.workers()[0].state == "ready":
                return None
            self._sleep(LOOK_SECONDS / 10)
        return self._end()

    def _start(self, post: Post, *, first: bool = False) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        post.ready_at = None
        pid = os.fork()
        if pid == 0:
            self._be_worker(post.number, first=first)
        post.pid = pid

    def _be_worker(self, number: int, *, first: bool) -> NoReturn:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for one in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(one, signal.SIG_DFL)
            os.setsid()  # a terminal's Ctrl-C reaches the supervisor alone
            for end in (self._life_end, self._wake, self._wake_end, self._index):
                os.close(end)
            status = self._work(number, self._life, first)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            log.exception("a worker failed", worker=number)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _look_after_workers(self) -> None:
        now = time.monotonic()
        for post, seen in zip(self._posts, self._board.workers(), strict=True):
            if not post.pid:
                if now >= post.start_at:
                    self._start(post)
                continue
            status = self._ended(post)
            if status is not None:
                quick = post.ready_at is None or now - post.ready_at < QUICK_DEATH_SECONDS
                post.quick_deaths = post.quick_deaths + 1 if quick else 0
                pause = min(LONGEST_PAUSE, 0.1 * 2**post.quick_deaths) if post.quick_deaths > 1 else 0.0
                post.start_at = now + pause
                log.error("a worker ended and is started again", worker=post.number, status=status, pause=pause)
                if not pause:
                    self._start(post)
            elif seen.state == "ready" and post.ready_at is None:
                post.ready_at = now
            elif seen.state == "stale" and seen.silent_seconds > STUCK_SECONDS and seen.pid == post.pid:
                log.error("a worker is stuck and is killed", worker=post.number, silent=seen.silent_seconds)
                os.kill(post.pid, signal.SIGKILL)

    def _ended(self, post: Post) -> int | None:
        """The exit status once the worker has ended, negative for a signal."""
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
            log.warning("the indexer ended and is started again", status=self._indexer.returncode)
            self._indexer = None
        if self._indexer is None and now >= self._indexer_due:
            self._indexer_due = now + 1.0
            if not self._indexer_plan.is_running():
                plan = self._indexer_plan
                self._indexer = subprocess.Popen(
                    list(plan.command), stdin=self._index, env=dict(plan.environment), start_new_session=True
                )

    def _end(self) -> int:
        """Let all workers drain, then the indexer move what is left."""
        self._let_go()
        self._tell_workers()
        told, deadline = self._signals, time.monotonic() + self._drain_seconds + GRACE_SECONDS
        killed = False
        while any(post.pid for post in self._posts):
            for post in self._posts:
                self._ended(post)
            if self._signals > told:
                told = self._signals
                self._tell_workers()
            if time.monotonic() > deadline and not killed:
                killed = True
                log.error("workers did not end in time and are killed")
                self._tell_workers(signal.SIGKILL)
            self._sleep(LOOK_SECONDS / 10)
        os.close(self._index_end)
        if self._indexer is not None:
            self._indexer.wait()
        return 1 if killed else 0

    def _tell_workers(self, what: signal.Signals = signal.SIGTERM) -> None:
        for post in self._posts:
            if post.pid:
                os.kill(post.pid, what)  # not reaped yet: the number is still its own

    def _told_to_end(self, *_: object) -> None:
        self._signals += 1

    def _sleep(self, seconds: float) -> None:
        """Until a signal comes, of a dead child also, or the time is over."""
        if select.select([self._wake], [], [], seconds)[0]:
            os.read(self._wake, 4096)
