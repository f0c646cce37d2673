"""The context of a request, passed from the HTTP layer to the recorder."""

from __future__ import annotations

import math

import msgspec

from rowcast.access.callers import Caller


class RequestContext(msgspec.Struct, frozen=True, gc=False):
    """The caller, dialect, id, entity and deadline of a request."""

    dialect: str
    """The dialect, for example `native`, `wire` or `v2`; recorded as `source` in history entries."""
    request_id: str
    caller: Caller = Caller()
    entity: str = ""
    """The caller's own reference, for example an application number."""
    deadline: float = math.inf
    """The `time.perf_counter` value at which the request times out.

    Rows that are still in the queue at that time are not scored.
    """
