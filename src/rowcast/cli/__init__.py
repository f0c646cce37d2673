"""The command line: parse, call, print. Exit codes: 0 done, 1 the answer is no, 2 a mistake (one line says which)."""

from __future__ import annotations

import sys

from typer.exceptions import TyperException

from rowcast.cli.commands import app
from rowcast.errors import RowcastError

MISTAKE = 2
INTERRUPTED = 130


def main() -> None:
    """Run one command; a person's mistake is one line on standard error."""
    try:
        status = app(prog_name="rowcast", standalone_mode=False)
    except RowcastError as error:
        sys.exit(_mistake(error.message))
    except TyperException as error:
        sys.exit(_mistake(getattr(error, "format_message", error.__str__)()))
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status if isinstance(status, int) else 0)


def _mistake(message: str) -> int:
    line = " ".join(message.split())
    sys.stderr.write(f"error: {line}\n")
    return MISTAKE
