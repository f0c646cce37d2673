"""The command line: each command parses its options, calls the application and prints the result.

Exit codes: 0 for success, 1 for a negative result such as a broken chain, 2 for an error, and 130 for an interruption.
"""

from __future__ import annotations

import gc
import os
import sys

from rowcast.errors import RowcastError

ERROR = 2
INTERRUPTED = 130
YOUNG_OBJECTS = 20_000
"""The number of new objects after which the garbage collector runs. Python's default is 700. Almost every
object that a command creates while it starts is permanent, so frequent runs only prolong the start."""


def main() -> None:
    """Run one command; print an expected error as one line on standard error."""
    gc.set_threshold(YOUNG_OBJECTS)
    if os.getpid() == 1:  # the kernel discards signals that process 1 does not handle
        from rowcast.runtime.signals import exit_on_stop

        exit_on_stop()
    try:
        status = _run()
    except RowcastError as error:
        status = _print_error(error.message)
    except KeyboardInterrupt:
        status = INTERRUPTED
    _discard_unwritten_output()
    sys.exit(status if isinstance(status, int) else 0)


def _discard_unwritten_output() -> None:
    """Discard buffered output that cannot be written; otherwise, the interpreter would exit with status 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            from rowcast.cli import output

            output.discard(stream)


def _run() -> object:
    from typer.exceptions import TyperException

    from rowcast.cli.commands import app

    try:
        return app(prog_name="rowcast", standalone_mode=False)
    except TyperException as error:
        return _print_error(getattr(error, "format_message", error.__str__)())


def _print_error(message: str) -> int:
    from rowcast.cli import output

    output.say(" ".join(message.split()), label="error: ", style=output.BAD)
    return ERROR
