"""Requests waiting to be scored. Dialects import this module, so it loads neither numpy nor ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from rowcast.access.context import RequestContext
from rowcast.errors import TooLate
from rowcast.serving.interface import ModelInterface
from rowcast.serving.ports import Answer
from rowcast.serving.rows import Row

EXPIRED: Final = "the deadline passed before the request was scored"
Render = Callable[[bytes], bytes]
"""Converts a native reply to a wire template's reply."""


class PendingRequest(msgspec.Struct, frozen=True):
    """Rows to be scored, and the object that receives their replies."""

    model: ModelInterface
    rows: Sequence[Row]
    context: RequestContext
    answer: Answer
    is_single: bool
    """Whether the reply is one prediction instead of a list."""
    render: Render | None = None


def expire(request: PendingRequest, now: float) -> bool:
    """Fail the request with TooLate if its deadline has passed; return whether the request is finished."""
    if request.context.deadline < now and not request.answer.done():
        request.answer.set_exception(TooLate(EXPIRED))
    return request.answer.done()
