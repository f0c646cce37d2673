"""The context of a request: made once at the edge and carried to the history entry as one value."""

from __future__ import annotations

import math

import msgspec

from rowcast.access.callers import Caller


class RequestContext(msgspec.Struct, frozen=True, gc=False):
    """Who asks, for which tenant, by which dialect, and until when."""

    dialect: str
    """`native`, `wire`, `v2`, ...; history entries call it `source`."""
    request_id: str
    caller: Caller = Caller()
    entity: str = ""
    """The caller's own reference, such as an application number."""
    deadline: float = math.inf
    """By `time.perf_counter`. Rows that are not scored by then are never scored."""
