"""The context of a request: created once at the edge and passed on to the history entry as one value."""

from __future__ import annotations

import math

import msgspec

from rowcast.access.callers import Caller


class RequestContext(msgspec.Struct, frozen=True, gc=False):
    """The caller, dialect, id, entity and deadline of a request."""

    dialect: str
    """`native`, `wire`, `v2` and so on; the field `source` of history entries."""
    request_id: str
    caller: Caller = Caller()
    entity: str = ""
    """The caller's own reference, for example an application number."""
    deadline: float = math.inf
    """A value of `time.perf_counter`; rows that are still waiting at this time are not scored."""
