"""All dialects by the paths they answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rowcast.http.routes import Door, Doors


class Dialect(Protocol):
    """One dialect's doors."""

    def door(self, path: str) -> Door | None:
        """What answers this path; for a path below its own that leads nowhere, a door that says so in its form."""
        ...


def doors(dialects: Sequence[Dialect]) -> Doors:
    """Of each path, the door of the first dialect that has one."""

    def find(path: str) -> Door | None:
        return next((door for dialect in dialects if (door := dialect.door(path)) is not None), None)

    return find
