"""`rowcast store`: migrate, check and copy the history store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from rowcast.app import store_tools
from rowcast.cli import output
from rowcast.setting_values import hide_credentials

if TYPE_CHECKING:
    from rowcast.settings import Settings

OK, FAILED = 0, 1
REPORT_SECONDS = 1.0


def migrate(settings: Settings, *, as_json: bool) -> None:
    """Apply all pending migrations and print the schema version before and after."""
    before, after = store_tools.migrate_store(settings)
    location = hide_credentials(settings.store_url)
    if as_json:
        output.print_json({"location": location, "before": before, "schema": after})
    elif before == after:
        output.say(f"{location} already has schema version {after}")
    else:
        output.say(f"migrated {location} from schema version {before} to {after}")


def check(settings: Settings, *, as_json: bool) -> int:
    """Print the state of the store; return the exit status."""
    state = store_tools.check_store(settings)
    if as_json:
        output.print_json(msgspec.to_builtins(state))
        return FAILED if state.problems else OK
    for problem in state.problems:
        output.print_status(problem, output.BAD)
    partitions = f", {output.counted(len(state.partitions), 'partition')}" if state.partitions else ""
    sample = f"{output.counted(state.entries, 'entry', 'entries')} of {output.counted(state.writers, 'writer')}"
    summary = f"{state.location}: schema version {state.schema} of {state.newest}{partitions}; checked {sample}"
    output.print_status(summary, output.BAD if state.problems else output.GOOD)
    return FAILED if state.problems else OK


def copy(settings: Settings, url: str, *, as_json: bool) -> None:
    """Copy the store, reporting the progress every second."""
    last = time.monotonic()

    def report(count: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_SECONDS:
            last = time.monotonic()
            output.say(f"{count:,} of {total:,} entries")

    result = store_tools.copy_to(settings, url, report)
    location = hide_credentials(url)
    if as_json:
        document = {"location": location, **msgspec.to_builtins(result.history)}
        output.print_json({**document, "keys": result.keys, "has_history_key": result.has_secret})
        return
    copied = output.counted(result.history.copied, "entry", "entries")
    keys = output.counted(result.keys, "API key")
    output.say(f"copied {copied} and {keys} to {location}; {result.history.present:,} entries were already there")
