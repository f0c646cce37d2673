"""What a drill promises."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """One promise: what was found, and what it must be at least or at most."""

    name: str
    found: float
    most: float | None = None
    least: float | None = None

    @property
    def kept(self) -> bool:
        """Whether it holds."""
        return (self.most is None or self.found <= self.most) and (self.least is None or self.found >= self.least)
