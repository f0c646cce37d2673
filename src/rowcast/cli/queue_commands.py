"""The command group `rowcast queue`."""

from __future__ import annotations

from typing import Annotated

import typer

from rowcast.cli.options import Home, Json, show_help

queue_app = typer.Typer(help="Inspect the queue between servers and workers.", rich_markup_mode=None)
queue_app.callback(invoke_without_command=True)(show_help)

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of parked messages.")]
All = Annotated[bool, typer.Option("--all", help="Apply the command to all parked messages.")]


@queue_app.command("show")
def queue_show(home: Home = None, json: Json = False) -> None:
    """Show how many messages and live workers there are, and why messages are parked."""
    from rowcast import settings
    from rowcast.cli import queue

    queue.show(settings.load(home=home), as_json=json)


@queue_app.command("retry")
def queue_retry(ids: Ids = None, every: All = False, home: Home = None, json: Json = False) -> None:
    """Send parked messages to the workers again, to find out whether they can be scored now.

    The original requests have already failed, so nothing is recorded or sent to a client.
    """
    from rowcast import settings
    from rowcast.cli import queue

    queue.retry(settings.load(home=home), ids or [], every=every, as_json=json)


@queue_app.command("drop")
def queue_drop(ids: Ids = None, every: All = False, home: Home = None, json: Json = False) -> None:
    """Delete parked messages."""
    from rowcast import settings
    from rowcast.cli import queue

    queue.drop(settings.load(home=home), ids or [], every=every, as_json=json)
