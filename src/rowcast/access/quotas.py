"""Quotas, which limit how many rows or requests a caller may send in a time window, and their meters."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable
from typing import Any, Literal

import msgspec

from rowcast.access.durations import UNIT_SECONDS
from rowcast.access.shared_quotas import SharedQuotas
from rowcast.errors import OverQuota, SettingsError

_match_quota = re.compile(r"([1-9][0-9]{0,8})(?: *(rows|requests))?/([1-9][0-9]{0,6})([smhd]?)").fullmatch


class Quota(msgspec.Struct, frozen=True, omit_defaults=True):
    """A limit of `rows` rows, or of `rows` requests, per `seconds` seconds."""

    rows: int
    seconds: int
    unit: Literal["rows", "requests"] = "rows"

    def __str__(self) -> str:
        unit = "" if self.unit == "rows" else f" {self.unit}"
        return f"{self.rows}{unit}/{self.seconds}s"


class Meter:
    """Tracks the usage of one quota with the generic cell rate algorithm, which stores only a timestamp.

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
        unit = b"" if quota.unit == "rows" else b';qu="%b"' % quota.unit.encode()
        policy = b'ratelimit-policy: "default";q=%d%b;w=%d\r\n' % (quota.rows, unit, quota.seconds)
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


class RequestMeter(Meter):
    """A meter that counts requests: only the first row of a request is charged."""

    def spend(self, rows: int, now: float, whole: int = 0) -> Awaitable[None] | None:
        """Charge one request when it arrives. A call with `whole` is for the request's other rows and charges
        nothing."""
        return None if whole else super().spend(1, now)


class SharedMeter(Meter):
    """A meter that counts the usage across all server processes.

    If the shared count is not available, each process enforces its own share. It starts with the last known state, so
    that an outage does not reset the quota.
    """

    is_immediate = False

    def __init__(self, quota: Quota, share: int, quotas: SharedQuotas, name: str) -> None:
        super().__init__(quota)
        self._own = Meter(quota, share)
        self._quotas = quotas
        self._name = name

    def spend(self, rows: int, now: float, whole: int = 0) -> Awaitable[None] | None:
        """Return an awaitable that charges the quota, or None if nothing is charged."""
        if self.quota.unit == "requests":
            if whole:
                return None
            rows = 1
        return self._spend(rows, now, whole)

    async def _spend(self, rows: int, now: float, whole: int) -> None:
        quota = self.quota
        use = await self._quotas.charge(self._name, rows, limit=quota.rows, seconds=quota.seconds)
        if use is None:
            self._own.spend(rows, now, whole)
            self._full_at = self._own._full_at
            return
        # One row is a larger part of the share than of the whole quota, but both refill in the same time.
        self._full_at = self._own._full_at = now + use.seconds
        if not use.accepted:
            self._refuse(max(rows, whole), use.seconds + rows * self._cost - quota.seconds)


def new_meter(
    quota: Quota | None, share: int = 1, *, shared: SharedQuotas | None = None, name: str = ""
) -> Meter | None:
    """Return a meter for the quota, or None if `quota` is None.

    With `shared`, the quota's usage is counted in `shared` under `name`. Otherwise, the quota is split among `share`
    processes.
    """
    if quota is None:
        return None
    if shared is not None:
        return SharedMeter(quota, share, shared, f"{name}:{quota}")
    return Meter(quota, share) if quota.unit == "rows" else RequestMeter(quota, share)


def new_meters(
    general: Quota | None,
    predict: Quota | None,
    share: int = 1,
    *,
    shared: SharedQuotas | None = None,
    owner: str = "",
) -> tuple[Meter | None, Meter | None]:
    """Return the meters of one caller for predictions and for all other requests; by default, they share one meter."""
    meter = new_meter(general, share, shared=shared, name=f"{owner}:general")
    if predict is None:
        return meter, meter
    return new_meter(predict, share, shared=shared, name=f"{owner}:predict"), meter


def parse_quota(text: str) -> Quota:
    """Parse a quota such as `100/60s`; raise SettingsError if the format is invalid."""
    match = _match_quota(text)
    if not match:
        raise SettingsError(
            f"invalid quota {text!r}; expected a number of rows or requests, a slash and a duration, such as 100/60s "
            "or 20 requests/60s"
        )
    unit: Any = match[2] or "rows"
    return Quota(int(match[1]), int(match[3]) * UNIT_SECONDS[match[4] or "s"], unit)
