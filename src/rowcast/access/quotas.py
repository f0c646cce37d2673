"""Quotas, which limit how many rows a caller may send in a time window, and the meters that enforce the quotas."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable

import msgspec

from rowcast.access.durations import UNIT_SECONDS
from rowcast.errors import OverQuota, SettingsError

_match_quota = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,6})([smhd]?)").fullmatch


class Quota(msgspec.Struct, frozen=True):
    """A limit of `rows` rows per `seconds` seconds."""

    rows: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.rows}/{self.seconds}s"


class Meter:
    """Tracks the use of one quota with the generic cell rate algorithm, which stores only a timestamp.

    Hot path: each request calls the meter twice, so the common path avoids calls to `max` and `ceil`.
    """

    is_immediate = True
    """True if `spend` always returns None, never an awaitable."""

    def __init__(self, quota: Quota, share: int = 1) -> None:
        self.quota = quota
        self._share = share  # the number of server processes that split the quota
        self._cost = quota.seconds / max(1, quota.rows // share)
        self._most = quota.seconds + quota.seconds * 1e-9
        self._full_at = -math.inf
        policy = b'ratelimit-policy: "default";q=%d;w=%d\r\n' % (quota.rows, quota.seconds)
        self._headers = policy + b'ratelimit: "default";r=%d;t=%d\r\n'

    def spend(self, rows: int, now: float, whole: int = 0) -> Awaitable[None] | None:
        """Charge `rows` rows against the quota; if the quota does not cover them, charge nothing and raise OverQuota.

        `whole` is the total number of rows in the request, for the error message.
        """
        full_at = self._full_at
        if full_at < now:
            full_at = now
        full_at += rows * self._cost
        if full_at - now > self._most:
            self._refuse(max(rows, whole), full_at - now - self.quota.seconds)
        self._full_at = full_at
        return None

    def headers(self, now: float) -> bytes:
        """Return the RateLimit headers: the remaining rows, and the seconds until the full quota is available."""
        used = self._full_at - now
        if used <= 0:
            return self._headers % (self.quota.rows, 0)
        return self._headers % (int((self._most - used) / self._cost) * self._share, int(used) + 1)

    def _refuse(self, rows: int, wait: float) -> None:
        if rows * self._cost > self._most:
            raise OverQuota(f"too many rows for the quota of {self.quota}: {rows}; send fewer rows per request", 0)
        seconds = math.ceil(wait)
        raise OverQuota(f"quota of {self.quota} exceeded; retry in {seconds} s", seconds)


def parse_quota(text: str) -> Quota:
    """Parse a quota such as `100/60s`; raise SettingsError if the format is invalid."""
    match = _match_quota(text)
    if not match:
        raise SettingsError(f"invalid quota {text!r}; expected a row count, a slash and a duration, such as 100/60s")
    return Quota(int(match[1]), int(match[2]) * UNIT_SECONDS[match[3] or "s"])
