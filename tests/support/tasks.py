"""Functions that tests run on engines. The nodes of the tests' Ray cluster can import them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

from rowcast.errors import InvalidRows, ValueProblem


def add(value: int, number: int) -> int:
    return value + number


def fail(value: Any, number: int) -> NoReturn:
    raise InvalidRows([ValueProblem("x", "missing", "no value", row=number)])


def break_down(value: Any) -> None:
    raise ZeroDivisionError("broken")


def pid(value: Any) -> int:
    return os.getpid()


def wait_for(folder: Path, name: str) -> str:
    """Create the file `NAME.started`, and wait until the file NAME exists."""
    (folder / f"{name}.started").touch()
    while not (folder / name).exists():
        time.sleep(0.01)
    return name


def fail_or_wait(folder: Path, name: str) -> str:
    return fail(folder, 0) if name == "fail" else wait_for(folder, name)


def crash(value: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash_once(folder: Path) -> str:
    """Kill the task's process on the first call; on later calls, return `done`."""
    marker = folder / "crashed"
    if not marker.exists():
        marker.touch()
        crash(folder)
    return "done"
