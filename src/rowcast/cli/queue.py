"""`rowcast queue`: show the queue between servers and workers, and retry or drop its parked messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rowcast.app import queueing
from rowcast.cli import output
from rowcast.errors import SettingsError

if TYPE_CHECKING:
    from rowcast.settings import Settings


def show(settings: Settings, *, as_json: bool) -> None:
    """Print the state of the queue."""
    report = queueing.queue_admin(settings).report()
    if as_json:
        output.print_json(report)
        return
    waiting = f"; the oldest has been waiting for {report.waiting_seconds:.1f} s" if report.waiting_seconds else ""
    output.say(f"{output.counted(report.messages, 'unanswered message')}{waiting}")
    output.say(f"{output.counted(len(report.workers), 'live worker')}")
    output.say(f"{output.counted(report.parked_count, 'parked message')}")
    if report.parked:
        rows = [[parked.id, parked.digest[:16], str(parked.bytes), parked.reason] for parked in report.parked]
        output.print_table(["id", "model digest", "bytes", "reason"], rows, wide=["reason"])


def retry(settings: Settings, ids: Sequence[str], *, every: bool, as_json: bool) -> None:
    """Put parked messages back into the queue, and print how many there were."""
    _check(ids, every=every)
    _print_count(queueing.queue_admin(settings).retry(ids), "retried", as_json=as_json)


def drop(settings: Settings, ids: Sequence[str], *, every: bool, as_json: bool) -> None:
    """Delete parked messages, and print how many there were."""
    _check(ids, every=every)
    _print_count(queueing.queue_admin(settings).drop(ids), "dropped", as_json=as_json)


def _check(ids: Sequence[str], *, every: bool) -> None:
    if bool(ids) == every:
        raise SettingsError("pass either the ids of parked messages or --all")
    for each in ids:
        milliseconds, dash, number = each.partition("-")
        if not (dash and milliseconds.isdecimal() and number.isdecimal()):
            raise SettingsError(f"{each[:40]!r} is not the id of a message; `rowcast queue show` lists the ids")


def _print_count(count: int, action: str, *, as_json: bool) -> None:
    if as_json:
        output.print_json({action: count})
    else:
        output.say(f"{action} {output.counted(count, 'parked message')}")
