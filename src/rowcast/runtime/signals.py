"""The signals that stop a process, and their handlers.

A signal without a handler kills the process before it can clean up, and the kernel never delivers such a signal to
process 1, the first process of a container. This module imports nothing heavy, so that a command can install the
handlers before its slow imports.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], None]


def handle_stop(handler: Handler, numbers: tuple[signal.Signals, ...] = STOP_SIGNALS) -> None:
    """Call `handler` when one of these signals arrives. SIGHUP stays ignored under `nohup`."""
    for number in numbers:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def exit_on_stop() -> None:
    """On SIGTERM or SIGHUP, exit with status 128 plus the signal number. For SIGINT, Python does the same."""
    handle_stop(_exit, (signal.SIGTERM, signal.SIGHUP))


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
