"""The progress of a training run is shown in terminals and notebooks, and nowhere else."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
from types import ModuleType

import pytest

from rowcast.app.progress import training_progress
from rowcast.training.events import TrainingEvent

TRIAL = TrainingEvent(stage="tune", message="", trial=3, trials=6, candidate="boosting", best=0.91234, seconds_left=4.2)
NOTICE = TrainingEvent(stage="tune", message="the search was stopped [early]")


def show(stream: io.StringIO) -> str:
    """Return what the stream contains just before the run ends."""
    with training_progress(stream) as report:
        report(TRIAL)
        report(NOTICE)
        return stream.getvalue()


def test_nothing_is_shown_outside_terminals_and_notebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)

    assert show(io.StringIO()) == ""


def shown_in_a_terminal() -> str:
    """Return everything that a terminal has received by the time `NOTICE` appears."""
    master, slave = pty.openpty()
    with os.fdopen(master, "rb", 0) as terminal, os.fdopen(slave, "w") as stream, training_progress(stream) as report:
        report(TRIAL)
        report(NOTICE)
        shown = terminal.read(65_536)
        while f"{NOTICE.message}\r\n".encode() not in shown:
            shown += terminal.read(65_536)
    return shown.decode("utf-8", "replace")


def test_a_terminal_shows_a_progress_bar_and_keeps_the_notices_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "━" in (colored := shown_in_a_terminal())
    assert re.search(r"\x1b\[[0-9;]*m", colored)

    monkeypatch.setenv("NO_COLOR", "1")
    assert "━" in (plain := shown_in_a_terminal())
    assert not re.search(r"\x1b\[[0-9;]*m", plain)


def test_a_notebook_shows_the_progress_on_a_single_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    stream = io.StringIO()

    shown = show(stream)

    assert "\rtune     [===============               ] boosting, trial 3 of 6, best 0.9123, about 4 s left" in shown
    assert f"\r{NOTICE.message}\n" in shown
    assert stream.getvalue().endswith("\r")
    assert stream.getvalue().rsplit("\r", 2)[1].strip() == ""
