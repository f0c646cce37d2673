"""Shows the progress of training runs as a bar in terminals and as one updating line in notebooks.

Elsewhere, no progress is shown.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

from rowcast.printable import printable

if TYPE_CHECKING:
    from rowcast.training.events import TrainingEvent

BAR_WIDTH: Final = 30


@contextmanager
def training_progress(stream: TextIO | None = None) -> Iterator[Callable[[TrainingEvent], None]]:
    """Show the progress on `stream` (by default, standard error) if the stream can rewrite a line."""
    stream = sys.stderr if stream is None else stream
    if stream.isatty():
        with _terminal_bar(stream) as report:
            yield report
    elif "ipykernel" in sys.modules:
        line = NotebookLine(stream)
        try:
            yield line.report
        finally:
            line.clear()
    else:
        yield lambda event: None


@contextmanager
def _terminal_bar(stream: TextIO) -> Iterator[Callable[[TrainingEvent], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = [
        TextColumn("{task.fields[stage]:<8}", markup=False),
        BarColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=Console(file=stream, highlight=False), transient=True) as bar:
        task = bar.add_task("reading the table", stage="read", total=None)

        def report(event: TrainingEvent) -> None:
            if _is_notice(event):
                bar.console.print(printable(event.message), markup=False)
            total = event.trials or None
            bar.update(task, stage=event.stage, description=_describe(event), total=total, completed=event.trial)

        yield report


class NotebookLine:
    """One line of a notebook's output. Text that follows a carriage return overwrites the line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._width = 0

    def report(self, event: TrainingEvent) -> None:
        """Replace the line with the state of the training run."""
        if _is_notice(event):
            self.clear()
            self._stream.write(f"{event.message}\n")
        full = BAR_WIDTH * event.trial // event.trials if event.trials else 0
        bar = f"[{'=' * full}{' ' * (BAR_WIDTH - full)}] " if event.trials else ""
        self._replace(f"{event.stage:<8} {bar}{_describe(event)}")

    def clear(self) -> None:
        """Remove the line."""
        self._replace("")
        self._stream.write("\r")
        self._stream.flush()

    def _replace(self, text: str) -> None:
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)


def _is_notice(event: TrainingEvent) -> bool:
    """Return whether the event's message stays on the screen, for example the message after Ctrl-C."""
    return event.stage == "tune" and not event.trials


def _describe(event: TrainingEvent) -> str:
    facts = [event.candidate or event.message]
    if event.trials:
        facts.append(f"trial {event.trial} of {event.trials}")
    if event.best is not None:
        facts.append(f"best {event.best:.4f}")
    if event.seconds_left is not None:
        facts.append(f"about {event.seconds_left:.0f} s left")
    return ", ".join(facts)
