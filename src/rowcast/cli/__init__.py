"""The command line: each command parses its options, calls the application and prints the result.

Exit codes: 0 for success, 1 for a negative result such as a broken chain, 2 for an error, and 130 for an interruption.
"""

from __future__ import annotations

import sys

from typer.exceptions import TyperException

from rowcast.cli import output
from rowcast.cli.commands import app
from rowcast.errors import RowcastError

ERROR = 2
INTERRUPTED = 130


def main() -> None:
    """Run one command; print an expected error as one line on standard error."""
    try:
        status = app(prog_name="rowcast", standalone_mode=False)
    except RowcastError as error:
        sys.exit(_print_error(error.message))
    except TyperException as error:
        sys.exit(_print_error(getattr(error, "format_message", error.__str__)()))
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status if isinstance(status, int) else 0)


def _print_error(message: str) -> int:
    output.say(" ".join(message.split()), label="error: ", style=output.BAD)
    return ERROR
