"""The port for quotas that server processes share. It is not in `ports.py`, because that would create an import cycle.

Every adapter passes the contract tests in `tests/contracts/`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class QuotaUse(NamedTuple):
    """The state of a quota after a charge, which was either accepted or refused as a whole."""

    accepted: bool
    seconds: float
    """The time until the whole quota is available again."""


class SharedQuotas(Protocol):
    """Counts the usage of quotas across all server processes, with the generic cell rate algorithm."""

    async def charge(self, name: str, rows: int, *, limit: int, seconds: int) -> QuotaUse | None:
        """Charge rows against the quota with this name, which allows `limit` rows per `seconds` seconds.

        A charge is atomic, and a refused charge changes nothing. Return None if the shared quotas are not available;
        never raise an exception.
        """
        ...
