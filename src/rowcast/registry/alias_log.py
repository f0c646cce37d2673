"""The log of a model's aliases: which version each alias pointed to, who moved the alias, and when.

A registry appends one entry per move and never changes an entry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import msgspec

LOG_FORMAT: Final = 1


class AliasMove(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"source": "from", "target": "to"}
):
    """An entry in the log. `number` counts the moves of the model's aliases, starting at 1."""

    format: int
    number: int
    time: str
    """The time of the move in UTC, as an RFC 3339 timestamp."""
    who: str
    """The user who moved the alias."""
    alias: str
    source: int | None
    """The version that the alias pointed to before; None for a new alias."""
    target: int
    reason: str = ""
    rollback: bool = False


def previous_version(moves: Iterable[AliasMove], alias: str, current: int, published: Collection[int]) -> int | None:
    """Return the version to which a rollback moves the alias, or None if there is none.

    This is the version that `current` replaced. A rollback undoes a move. A second rollback goes back one step further
    instead of undoing the first rollback. Deleted versions are skipped.
    """
    earlier: list[int] = []
    for move in moves:
        if move.alias != alias:
            continue
        if not earlier and move.source is not None:
            earlier.append(move.source)
        if move.rollback and move.target in earlier:
            while earlier[-1] != move.target:
                earlier.pop()
        else:
            earlier.append(move.target)
    while earlier and (earlier[-1] == current or earlier[-1] not in published):
        earlier.pop()
    return earlier[-1] if earlier else None
